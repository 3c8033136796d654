// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Statements and what they share; expressions are in jinja_eval.cpp.
#include "engine/text/jinja_interpreter.hpp"

#include <algorithm>

namespace towline::engine::jinja {
namespace {

// A namespace may refer to itself: without this it would never be freed.
void let_go(Namespace& n) {
  n.members.clear();
  if (n.loop) {
    n.loop->items.clear();
    n.loop->changed = Value();
    n.loop = nullptr;
  }
}

}  // namespace

size_t Scope::place(std::string_view name) const {
  if (index_) {
    const auto at = index_->find(name);
    return at == index_->end() ? names_.size() : at->second;
  }
  size_t i = 0;
  while (i < names_.size() && names_[i].first != name) ++i;
  return i;
}

void Scope::set(std::string_view name, Value value) {
  const size_t at = place(name);
  if (at < names_.size()) {
    names_[at].second = std::move(value);
    return;
  }
  names_.emplace_back(std::string(name), std::move(value));
  if (names_.size() == kIndexFrom) {
    index_ = std::make_unique<Index>();
    for (size_t i = 0; i < names_.size(); ++i) index_->emplace(names_[i].first, i);
  } else if (index_) {
    index_->emplace(names_.back().first, at);
  }
}

const Value* Scope::find(std::string_view name, int64_t& looked) const {
  for (const Scope* s = this; s != nullptr; s = s->parent_) {
    ++looked;
    if (const size_t at = s->place(name); at < s->names_.size()) return &s->names_[at].second;
  }
  return nullptr;
}

void Scope::clear() {
  names_.clear();
  index_.reset();
}

Interpreter::Interpreter(int64_t now, Limits limits)
    : now_(now), limits_(limits), globals_(new_scope(nullptr)) {
  add_globals(*this);
}

Interpreter::~Interpreter() {
  // Macros and namespaces may refer to each other: let go of their contents first.
  for (Scope& scope : scopes_) scope.clear();
  for (const auto& n : namespaces_) let_go(*n);
}

Scope* Interpreter::new_scope(Scope* parent) {
  return &scopes_.emplace_back(parent);
}

Result<void> Interpreter::charge(int64_t steps, int64_t bytes) {
  steps_ += steps + bytes / 256;
  memory_ += bytes;
  if (steps_ > limits_.steps) {
    return errorf(Code::kExhausted, "the chat template takes more than {} steps", limits_.steps);
  }
  if (memory_ > limits_.memory) {
    return errorf(Code::kExhausted, "the chat template makes more than {} bytes of values",
                  limits_.memory);
  }
  return {};
}

Result<void> Interpreter::charge_scan(size_t bytes) {
  return charge(1 + static_cast<int64_t>(bytes / 32));
}

Result<void> Interpreter::charge_characters(size_t bytes) {
  return charge(1 + static_cast<int64_t>(bytes / 8));
}

Result<Value> Interpreter::text(std::string s) {
  TRY(charge(1, static_cast<int64_t>(s.size())));
  return Value(std::move(s));
}

Result<Value> Interpreter::list(std::vector<Value> items, bool tuple) {
  TRY(charge(1, static_cast<int64_t>(items.size() * sizeof(Value))));
  return Value::list(std::move(items), tuple);
}

Result<std::string> Interpreter::show(const Value& v) {
  if (v.is_string()) {
    TRY(charge(1, static_cast<int64_t>(v.string().size())));
    return v.string();
  }
  TRY(charge(v.weight(), v.weight() * 64));  // an escaped byte becomes four
  return v.str();
}

// The lighter of the two decides how much there is to compare.
int64_t Interpreter::comparison_cost(const Value& a, const Value& b) {
  const int64_t weight = std::min({a.weight(), b.weight(), int64_t{1} << 30});
  // Looking up the members of a map in another is quadratic.
  const bool both = a.is_container() && b.is_container();
  return 1 + weight / 4 + (both ? weight * weight / 256 : 0);
}

Result<bool> Interpreter::equal(const Value& a, const Value& b) {
  TRY(charge(comparison_cost(a, b)));
  return a == b;
}

Result<int> Interpreter::order(const Value& a, const Value& b) {
  TRY(charge(2 * comparison_cost(a, b)));
  return compare(a, b);
}

Result<const Value*> Interpreter::find(const Map& map, const Value& key) {
  const auto members = static_cast<int64_t>(map.members.size());
  TRY(charge(1 + members * (1 + key.weight() / 4) / 16));
  return map.find(key);
}

Value Interpreter::make_namespace(std::vector<std::pair<std::string, Value>> members) {
  namespaces_.push_back(std::make_shared<Namespace>(Namespace{std::move(members)}));
  return Value(namespaces_.back());
}

Result<std::string> Interpreter::render(const Template& t) {
  std::string out;
  out_ = &out;
  TRY(run(t.body, new_scope(globals_)));
  return out;
}

Result<void> Interpreter::emit(std::string_view text) {
  if (out_->size() + text.size() > limits_.output) {
    return errorf(Code::kExhausted, "the chat template renders more than {} bytes", limits_.output);
  }
  *out_ += text;
  return {};
}

Result<std::string> Interpreter::capture(const std::vector<Stmt>& body, Scope* scope) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  Result<Flow> flow = run(body, scope);
  out_ = outer;
  if (!flow) return std::move(flow.error());
  TRY(charge(1, static_cast<int64_t>(text.size())));
  return text;
}

Result<Interpreter::Flow> Interpreter::run(const std::vector<Stmt>& body, Scope* scope) {
  const Depth depth(depth_);
  if (depth_ > limits_.depth) {
    return errorf(Code::kExhausted, "the chat template nests deeper than {} levels", limits_.depth);
  }
  for (const Stmt& s : body) {
    TRY(charge(1 + static_cast<int64_t>(s.text.size() / 256)));
    ASSIGN_OR_RETURN(const Flow flow, run_one(s, scope));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run_one(const Stmt& s, Scope* scope) {
  switch (s.kind) {
    case Stmt::Kind::kText: TRY(emit(s.text)); break;
    case Stmt::Kind::kOutput: {
      ASSIGN_OR_RETURN(const Value v, eval(*s.expr, scope));
      ASSIGN_OR_RETURN(const std::string shown, show(v));
      TRY(emit(shown));
      break;
    }
    case Stmt::Kind::kIf: {
      ASSIGN_OR_RETURN(const Value v, eval(*s.expr, scope));
      return run(v.truthy() ? s.body : s.orelse, scope);
    }
    case Stmt::Kind::kFor: return run_for(s, scope);
    case Stmt::Kind::kSet: {
      ASSIGN_OR_RETURN(Value v, eval(*s.expr, scope));
      TRY(assign(*s.target, std::move(v), scope));
      break;
    }
    case Stmt::Kind::kSetBlock: {
      ASSIGN_OR_RETURN(std::string body, capture(s.body, new_scope(scope)));
      Value v(std::move(body));
      if (s.expr) {
        ASSIGN_OR_RETURN(v, filter_chain(*s.expr, std::move(v), scope));
      }
      TRY(assign(*s.target, std::move(v), scope));
      break;
    }
    case Stmt::Kind::kMacro:
      TRY(charge(1, sizeof(Function)));
      scope->set(s.text, make_macro(s, s.text, scope));
      break;
    case Stmt::Kind::kCall: {
      Scope* inner = new_scope(scope);
      ASSIGN_OR_RETURN(Arguments arguments, eval_arguments(*s.expr, scope));
      ASSIGN_OR_RETURN(const Value callee, eval(*s.expr->args[0], scope));
      arguments.named.emplace_back("caller", make_macro(s, "caller", inner));
      ASSIGN_OR_RETURN(const Value v, call(callee, arguments));
      ASSIGN_OR_RETURN(const std::string shown, show(v));
      TRY(emit(shown));
      break;
    }
    case Stmt::Kind::kFilter: {
      ASSIGN_OR_RETURN(std::string body, capture(s.body, new_scope(scope)));
      ASSIGN_OR_RETURN(const Value v, filter_chain(*s.expr, Value(std::move(body)), scope));
      ASSIGN_OR_RETURN(const std::string shown, show(v));
      TRY(emit(shown));
      break;
    }
    case Stmt::Kind::kWith: {
      Scope* inner = new_scope(scope);
      for (const auto& [target, value] : s.assignments) {
        ASSIGN_OR_RETURN(Value v, eval(*value, scope));
        TRY(assign(*target, std::move(v), inner));
      }
      return run(s.body, inner);
    }
    case Stmt::Kind::kBlock: return run(s.body, scope);
    case Stmt::Kind::kBreak: return Flow::kBreak;
    case Stmt::Kind::kContinue: return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<void> Interpreter::assign(const Expr& target, Value value, Scope* scope) {
  if (target.kind == Expr::Kind::kName) {
    TRY(charge(1 + static_cast<int64_t>(target.name.size() / 32)));
    scope->set(target.name, std::move(value));
    return {};
  }
  if (target.kind == Expr::Kind::kAttribute) {
    ASSIGN_OR_RETURN(const Value object, eval(*target.args[0], scope));
    if (!object.is_namespace() || object.name_space().loop != nullptr) {
      return fail("line {}: '{}' is assigned on a {}; only namespaces can change", target.line,
                  target.name, object.type_name());
    }
    auto& members = object.name_space().members;
    TRY(charge(static_cast<int64_t>((members.size() + target.name.size()) / 16)));
    for (auto& [name, v] : members) {
      if (name == target.name) {
        v = std::move(value);
        return {};
      }
    }
    TRY(charge(1, static_cast<int64_t>(sizeof(Value) + target.name.size())));
    members.emplace_back(target.name, std::move(value));
    return {};
  }
  ASSIGN_OR_RETURN(const std::vector<Value> items, iterate(value));
  if (items.size() != target.args.size()) {
    return fail("line {}: {} values for {} names", target.line, items.size(), target.args.size());
  }
  for (size_t i = 0; i < items.size(); ++i) TRY(assign(*target.args[i], items[i], scope));
  return {};
}

// --- loops ---------------------------------------------------------------------------------------

Result<Interpreter::Flow> Interpreter::run_for(const Stmt& s, Scope* scope) {
  ASSIGN_OR_RETURN(const Value iterable, eval(*s.expr, scope));
  TRY(run_loop(s, scope, iterable, 0));
  return Flow::kNext;
}

Result<void> Interpreter::run_loop(const Stmt& s, Scope* scope, const Value& iterable, int depth) {
  auto loop = std::make_shared<LoopState>();
  loop->depth = depth;
  ASSIGN_OR_RETURN(loop->items, iterate(iterable));
  if (s.test) {
    std::vector<Value> kept;
    Scope* inner = new_scope(scope);
    for (Value& v : loop->items) {
      TRY(assign(*s.target, v, inner));
      ASSIGN_OR_RETURN(const Value wanted, eval(*s.test, inner));
      if (wanted.truthy()) kept.push_back(std::move(v));
    }
    loop->items = std::move(kept);
  }
  if (loop->items.empty()) {
    TRY(run(s.orelse, scope));
    return {};
  }
  const Value view = make_namespace({});
  const std::shared_ptr<Namespace> shown = namespaces_.back();
  shown->loop = loop;
  if (s.recursive) {
    auto recurse = [this, &s, scope, depth](Interpreter&, const Arguments& a) -> Result<Value> {
      std::string text;
      std::string* const outer = std::exchange(out_, &text);
      Result<void> done = run_loop(s, scope, a.get(0, "iterable", Value()), depth + 1);
      out_ = outer;
      if (!done) return std::move(done.error());
      return this->text(std::move(text));
    };
    shown->members.emplace_back("recurse", Value(std::make_shared<const Function>(Function{
                                               "recurse", std::move(recurse)})));
  }
  Scope* inner = new_scope(scope);
  TRY(charge(8, 1024));
  for (; loop->index < loop->items.size(); ++loop->index) {
    TRY(charge(4));
    inner->clear();
    inner->set("loop", view);
    TRY(assign(*s.target, loop->items[loop->index], inner));
    ASSIGN_OR_RETURN(const Flow flow, run(s.body, inner));
    if (flow == Flow::kBreak) break;
  }
  let_go(*shown);
  inner->clear();
  if (namespaces_.back() == shown) namespaces_.pop_back();
  return {};
}

Value Interpreter::loop_attribute(const std::shared_ptr<LoopState>& loop, std::string_view name) {
  const auto function = [&](auto call) {
    return Value(std::make_shared<const Function>(Function{std::string(name), std::move(call)}));
  };
  if (name == "cycle") {
    return function([loop](Interpreter&, const Arguments& a) -> Result<Value> {
      if (a.positional.empty()) return fail("loop.cycle() needs values");
      return a.positional[loop->index % a.positional.size()];
    });
  }
  if (name == "changed") {
    return function([loop](Interpreter& in, const Arguments& a) -> Result<Value> {
      ASSIGN_OR_RETURN(Value now, in.list(a.positional, true));
      ASSIGN_OR_RETURN(const bool same, in.equal(loop->changed, now));
      loop->changed = std::move(now);
      return Value(!same);
    });
  }
  return loop->attribute(name);
}

// --- macros --------------------------------------------------------------------------------------

Value Interpreter::make_macro(const Stmt& s, std::string name, Scope* scope) {
  return Value(std::make_shared<const Function>(Function{
      std::move(name), [this, &s, scope](Interpreter&, const Arguments& arguments) {
        return call_macro(s, scope, arguments);
      }}));
}

Result<Value> Interpreter::call_macro(const Stmt& s, Scope* closure, const Arguments& arguments) {
  // Each parameter is looked for among the named arguments, and each of those among them.
  TRY(charge(4 + static_cast<int64_t>(s.parameters.size() * (1 + arguments.named.size()) / 4),
             sizeof(Scope)));
  Scope* scope = new_scope(closure);
  const size_t first_default = s.parameters.size() - s.defaults.size();
  for (size_t i = 0; i < s.parameters.size(); ++i) {
    TRY(charge(static_cast<int64_t>(s.parameters[i].size() / 32)));
    Value fallback(Undefined{s.parameters[i]});
    if (i >= first_default && !arguments.has(i, s.parameters[i])) {
      ASSIGN_OR_RETURN(fallback, eval(*s.defaults[i - first_default], scope));
    }
    scope->set(s.parameters[i], arguments.get(i, s.parameters[i], std::move(fallback)));
  }
  std::vector<Value> rest;
  for (size_t i = s.parameters.size(); i < arguments.positional.size(); ++i) {
    rest.push_back(arguments.positional[i]);
  }
  ASSIGN_OR_RETURN(Value varargs, list(std::move(rest), true));
  scope->set("varargs", std::move(varargs));
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : arguments.named) {
    const auto& p = s.parameters;
    if (name == "caller") scope->set("caller", value);
    if (name != "caller" && std::find(p.begin(), p.end(), name) == p.end()) {
      named.emplace_back(Value(name), value);
    }
  }
  ASSIGN_OR_RETURN(Value kwargs, Value::map(std::move(named)));
  scope->set("kwargs", std::move(kwargs));
  ASSIGN_OR_RETURN(std::string text, capture(s.body, scope));
  scope->clear();
  return Value(std::move(text));
}

}  // namespace towline::engine::jinja
