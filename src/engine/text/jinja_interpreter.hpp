// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Interpreter: renders one parsed template once. Bounded in steps, memory, output and depth, so
// that a hostile template ends with an error. No I/O; the clock is given. One thread, one use.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fmt.hpp"
#include "base/result.hpp"
#include "engine/text/jinja_ast.hpp"
#include "engine/text/jinja_value.hpp"

namespace towline::engine::jinja {

// What one rendering may cost. A step is about 50 ns of work (so all of them about 0.1 s): a node
// evaluated, an item looped over, 256 bytes made. Whatever else takes time is counted in steps too,
// and before it is done: each operation's own lines say how much.
struct Limits {
  int64_t steps = 2'000'000;
  int64_t memory = 256 << 20;       // bytes of all values made
  size_t output = 32 << 20;         // bytes of the rendered text
  int depth = 500;                  // of evaluation, macros included
};

// One level of names. Scopes live until the rendering ends, because macros refer to them.
// Many names (a client may send thousands of variables) are found through an index.
class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent) {}
  void set(std::string_view name, Value value);
  // Here or in a parent; `looked` grows by the number of scopes looked through.
  const Value* find(std::string_view name, int64_t& looked) const;
  void clear();
  size_t size() const { return names_.size(); }

 private:
  static constexpr size_t kIndexFrom = 16;  // names; fewer are looked through
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return std::hash<std::string_view>()(name); }
  };
  using Index = std::unordered_map<std::string, size_t, Hash, std::equal_to<>>;
  size_t place(std::string_view name) const;  // names_.size() if it is not here
  Scope* parent_;
  std::vector<std::pair<std::string, Value>> names_;
  std::unique_ptr<Index> index_;
};

class Interpreter {
 public:
  Interpreter(int64_t now, Limits limits);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  void define(std::string_view name, Value value) { globals_->set(name, std::move(value)); }
  Result<std::string> render(const Template& t);

  // For filters, tests and methods: what they are about to do, in steps and bytes of values made.
  Result<void> charge(int64_t steps, int64_t bytes = 0);
  Result<void> charge_scan(size_t bytes);        // text searched, compared or copied
  Result<void> charge_characters(size_t bytes);  // text decoded character by character
  int64_t memory_left() const { return limits_.memory - memory_; }
  Result<Value> text(std::string s);                     // charged
  Result<Value> list(std::vector<Value> items, bool tuple = false);
  Result<std::string> show(const Value& v);              // v.str(), charged first
  Result<bool> equal(const Value& a, const Value& b);    // a == b, charged first
  Result<int> order(const Value& a, const Value& b);     // compare(a, b), charged first
  static int64_t comparison_cost(const Value& a, const Value& b);  // in steps
  // map[key], charged first; null if there is none. `key` is no container.
  Result<const Value*> find(const Map& map, const Value& key);
  Result<bool> contains(const Value& container, const Value& item);  // item in container
  Result<Value> call(const Value& function, const Arguments& arguments);
  Result<Value> attribute(const Value& object, std::string_view name);
  Result<Value> item(const Value& object, const Value& key);
  Result<std::vector<Value>> iterate(const Value& v);    // what `for` sees
  Result<Value> filter(std::string_view name, const Value& input, const Arguments& arguments);
  Result<bool> test(std::string_view name, const Value& input, const Arguments& arguments);
  Value make_namespace(std::vector<std::pair<std::string, Value>> members);
  int64_t now() const { return now_; }

  template <class... Args>
  static Error fail(fmt::format_string<Args...> what, Args&&... args) {
    return errorf(Code::kInvalidArgument, what, std::forward<Args>(args)...);
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  // Counts nesting while in scope.
  struct Depth {
    explicit Depth(int& depth) : depth_(depth) { ++depth_; }
    ~Depth() { --depth_; }
    int& depth_;
  };

  Result<Flow> run(const std::vector<Stmt>& body, Scope* scope);
  Result<Flow> run_one(const Stmt& s, Scope* scope);
  Result<Flow> run_for(const Stmt& s, Scope* scope);
  Result<void> run_loop(const Stmt& s, Scope* scope, const Value& iterable, int depth);
  Result<std::string> capture(const std::vector<Stmt>& body, Scope* scope);
  Result<void> assign(const Expr& target, Value value, Scope* scope);
  // loop.cycle, loop.changed, or one of LoopState's attributes.
  Value loop_attribute(const std::shared_ptr<LoopState>& loop, std::string_view name);
  Value make_macro(const Stmt& s, std::string name, Scope* scope);
  Result<Value> call_macro(const Stmt& s, Scope* closure, const Arguments& arguments);
  Result<void> emit(std::string_view text);

  Result<Value> eval(const Expr& e, Scope* scope);
  Result<Value> eval_inner(const Expr& e, Scope* scope);
  Result<Value> eval_dict(const Expr& e, Scope* scope);
  Result<Value> eval_slice(const Expr& e, Scope* scope);
  Result<Value> eval_binary(const Expr& e, Scope* scope);
  Result<Value> eval_compare(const Expr& e, Scope* scope);
  Result<Value> eval_call(const Expr& e, Scope* scope);
  Result<Value> apply_filter(const Expr& e, Value input, Scope* scope);
  Result<Value> filter_chain(const Expr& e, Value input, Scope* scope);
  Result<Arguments> eval_arguments(const Expr& e, Scope* scope);
  Result<Value> arithmetic(std::string_view op, const Value& a, const Value& b);

  Scope* new_scope(Scope* parent);

  int64_t now_;
  Limits limits_;
  int64_t steps_ = 0, memory_ = 0;
  int depth_ = 0;
  std::deque<Scope> scopes_;
  Scope* globals_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::string* out_ = nullptr;
};

// The methods of strings, lists and maps: jinja_methods.cpp. Undefined if there is none so named.
Value find_method(const Value& object, std::string_view name);
// The global functions: range, namespace, raise_exception, strftime_now, ...
void add_globals(Interpreter& interpreter);

}  // namespace towline::engine::jinja
