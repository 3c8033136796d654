// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Values of the template language: Python's as far as templates can see them. Lists, tuples, maps
// and strings are immutable and shared; only namespaces change. Integers are 64-bit; an operation
// that leaves that range is an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace towline::engine::jinja {

class Interpreter;
class Value;

// What was asked for is kept for the error message, its first 80 bytes: names may be huge.
struct Undefined {
  explicit Undefined(std::string_view what = {});
  std::string name;
};
struct None {};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;  // of nesting, so that destruction and printing cannot overflow the stack
  int64_t weight = 1;
};

struct Map {
  std::vector<std::pair<Value, Value>> members;  // in order of insertion; keys are unique
  int depth = 1;
  int64_t weight = 1;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct LoopState;
struct Namespace {
  std::vector<std::pair<std::string, Value>> members;
  std::shared_ptr<LoopState> loop = nullptr;  // of the `loop` inside a for; else null
};

// The arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  // Argument number i, or by name; `fallback` if neither was given.
  Value get(size_t i, std::string_view name, Value fallback) const;
  bool has(size_t i, std::string_view name) const;
};

struct Function {
  std::string name;
  std::function<Result<Value>(Interpreter&, const Arguments&)> call;
};

class Value {
 public:
  static constexpr int kMaxDepth = 64;

  Value() : data_(Undefined{}) {}
  Value(Undefined v) : data_(std::move(v)) {}
  Value(None v) : data_(v) {}
  Value(bool v) : data_(v) {}
  Value(int v) : data_(int64_t{v}) {}
  Value(int64_t v) : data_(v) {}
  Value(size_t v) : data_(static_cast<int64_t>(v)) {}
  Value(double v) : data_(v) {}
  Value(std::string v) : data_(std::make_shared<const std::string>(std::move(v))) {}
  Value(std::string_view v) : Value(std::string(v)) {}
  Value(const char* v) : Value(std::string(v)) {}
  Value(std::shared_ptr<const Function> v) : data_(std::move(v)) {}
  Value(std::shared_ptr<Namespace> v) : data_(std::move(v)) {}
  // Nesting deeper than kMaxDepth is an error.
  static Result<Value> list(std::vector<Value> items, bool tuple = false);
  static Result<Value> map(std::vector<std::pair<Value, Value>> members);
  static Result<Value> from_json(const Json& json);
  // Text that the filters safe and escape have marked: "+" escapes what is added to it.
  static Value markup(std::string text) {
    Value v(std::move(text));
    v.markup_ = true;
    return v;
  }
  bool is_markup() const { return markup_; }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_int() || is_float() || is_bool(); }
  bool is_string() const { return std::holds_alternative<StringRef>(data_); }
  bool is_list() const { return std::holds_alternative<ListRef>(data_); }
  bool is_map() const { return std::holds_alternative<MapRef>(data_); }
  bool is_namespace() const { return std::holds_alternative<std::shared_ptr<Namespace>>(data_); }
  bool is_function() const {
    return std::holds_alternative<std::shared_ptr<const Function>>(data_);
  }

  // Only when the matching is_*() holds.
  const std::string& string() const { return *std::get<StringRef>(data_); }
  const std::vector<Value>& items() const { return std::get<ListRef>(data_)->items; }
  bool is_tuple() const { return is_list() && std::get<ListRef>(data_)->tuple; }
  const Map& map() const { return *std::get<MapRef>(data_); }
  Namespace& name_space() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const Function& function() const { return *std::get<std::shared_ptr<const Function>>(data_); }
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }
  int64_t integer() const {
    return is_bool() ? int64_t{std::get<bool>(data_)} : std::get<int64_t>(data_);
  }
  double number() const {  // of any is_number()
    return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
  }

  bool truthy() const;
  std::string_view type_name() const;  // Python's: "str", "int", "list", ...
  std::string str() const;             // Python's str()
  std::string repr() const;            // Python's repr()
  int depth() const;
  // How much there is to print or compare: values inside, shared ones each time, and 16 bytes of
  // text each; at most kMaxWeight. A list that holds one list twice, 60 levels deep, is heavy.
  static constexpr int64_t kMaxWeight = int64_t{1} << 40;
  int64_t weight() const;
  bool is_container() const { return is_list() || is_map(); }

  friend bool operator==(const Value& a, const Value& b);  // 1 == 1.0 == true, as in Python

 private:
  using StringRef = std::shared_ptr<const std::string>;
  using ListRef = std::shared_ptr<const List>;
  using MapRef = std::shared_ptr<const Map>;
  void repr_to(std::string& out) const;
  std::variant<Undefined, None, bool, int64_t, double, StringRef, ListRef, MapRef,
               std::shared_ptr<Namespace>, std::shared_ptr<const Function>>
      data_;
  bool markup_ = false;
};

// What `loop` tells inside a for; computed when asked for.
struct LoopState {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 0;              // of recursion
  Value changed;              // what loop.changed() was last called with; undefined before
  Value attribute(std::string_view name) const;
};

// -1, 0, 1 for numbers, strings and lists of such; an error for what Python cannot order.
Result<int> compare(const Value& a, const Value& b);

// json.dumps(value, ensure_ascii=False); indent < 0: on one line. More than `limit` bytes are an
// error: indents and separators make a little value long.
struct JsonStyle {
  int indent = -1;
  std::string item_separator;  // empty: Python's default
  std::string key_separator;
  bool sort_keys = false;
  bool ensure_ascii = false;
};
Result<std::string> to_json(const Value& value, const JsonStyle& style, int64_t limit);

std::string float_repr(double v);

// Strings count in code points, as Python's do.
int64_t code_point_count(std::string_view text);
// Byte offset of code point `index`; text.size() if there are not so many.
size_t code_point_offset(std::string_view text, int64_t index);

}  // namespace towline::engine::jinja
