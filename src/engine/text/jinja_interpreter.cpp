// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Statements and what they share; expressions are in jinja_eval.cpp.
#include "engine/text/jinja_interpreter.hpp"

#include <algorithm>
#include <optional>

namespace towline::engine::jinja {

void Scope::set(std::string_view name, Value value) {
  for (auto& [n, v] : names) {
    if (n == name) {
      v = std::move(value);
      return;
    }
  }
  names.emplace_back(std::string(name), std::move(value));
}

const Value* Scope::find(std::string_view name) const {
  for (const Scope* s = this; s != nullptr; s = s->parent) {
    for (const auto& [n, v] : s->names) {
      if (n == name) return &v;
    }
  }
  return nullptr;
}

Interpreter::Interpreter(int64_t now, Limits limits)
    : now_(now), limits_(limits), globals_(new_scope(nullptr)) {
  add_globals(*this);
}

Interpreter::~Interpreter() {
  // Macros and namespaces may refer to each other: let go of their contents first.
  for (Scope& scope : scopes_) scope.names.clear();
  for (const auto& n : namespaces_) n->members.clear();
}

Scope* Interpreter::new_scope(Scope* parent) {
  scopes_.push_back({parent, {}});
  return &scopes_.back();
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

Result<Value> Interpreter::text(std::string s) {
  TRY(charge(1, static_cast<int64_t>(s.size())));
  return Value(std::move(s));
}

Result<Value> Interpreter::list(std::vector<Value> items, bool tuple) {
  TRY(charge(1, static_cast<int64_t>(items.size() * sizeof(Value))));
  return Value::list(std::move(items), tuple);
}

Result<std::string> Interpreter::show(const Value& v) {
  TRY(charge(1, v.weight() * 16));
  return v.str();
}

Result<bool> Interpreter::equal(const Value& a, const Value& b) {
  int64_t cost = std::min(a.weight(), b.weight());
  // Looking up the members of a map in another is quadratic.
  if (a.is_container() && b.is_container()) {
    const int64_t bounded = std::min(cost, int64_t{1} << 30);
    cost += bounded * bounded / 64;
  }
  TRY(charge(1 + cost / 4));
  return a == b;
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
    TRY(charge(1));
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
    scope->set(target.name, std::move(value));
    return {};
  }
  if (target.kind == Expr::Kind::kAttribute) {
    ASSIGN_OR_RETURN(const Value object, eval(*target.args[0], scope));
    if (!object.is_namespace()) {
      return fail("line {}: '{}' is assigned on a {}; only namespaces can change", target.line,
                  target.name, object.type_name());
    }
    for (auto& [name, v] : object.name_space().members) {
      if (name == target.name) {
        v = std::move(value);
        return {};
      }
    }
    TRY(charge(1, sizeof(Value)));
    object.name_space().members.emplace_back(target.name, std::move(value));
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

// What `loop` refers to. The items are held here; attributes are computed when asked for.
struct Interpreter::Loop {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 0;
  std::optional<Value> changed;

  Value attribute(std::string_view name) const {
    const auto at = static_cast<int64_t>(index);
    const auto count = static_cast<int64_t>(items.size());
    if (name == "index") return Value(at + 1);
    if (name == "index0") return Value(at);
    if (name == "revindex") return Value(count - at);
    if (name == "revindex0") return Value(count - at - 1);
    if (name == "first") return Value(at == 0);
    if (name == "last") return Value(at + 1 == count);
    if (name == "length") return Value(count);
    if (name == "depth") return Value(depth + 1);
    if (name == "depth0") return Value(depth);
    if (name == "previtem") return at > 0 ? items[index - 1] : Value(Undefined{"loop.previtem"});
    if (name == "nextitem")
      return at + 1 < count ? items[index + 1] : Value(Undefined{"loop.nextitem"});
    return Value(Undefined{"loop." + std::string(name)});
  }
};

Result<Interpreter::Flow> Interpreter::run_for(const Stmt& s, Scope* scope) {
  ASSIGN_OR_RETURN(const Value iterable, eval(*s.expr, scope));
  TRY(run_loop(s, scope, iterable, 0));
  return Flow::kNext;
}

Result<void> Interpreter::run_loop(const Stmt& s, Scope* scope, const Value& iterable, int depth) {
  auto loop = std::make_shared<Loop>();
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
  // `loop` is a namespace whose members are refreshed for each item.
  const Value view = make_namespace({});
  static constexpr std::string_view kAttributes[] = {
      "index", "index0", "revindex", "revindex0", "first",    "last",
      "length", "depth", "depth0",   "previtem",  "nextitem"};
  auto& members = view.name_space().members;
  for (const std::string_view name : kAttributes) members.emplace_back(name, Value());
  const auto add = [&](std::string_view name, auto call) {
    members.emplace_back(name, Value(std::make_shared<const Function>(
                                   Function{std::string(name), std::move(call)})));
  };
  add("cycle", [loop](Interpreter&, const Arguments& a) -> Result<Value> {
    if (a.positional.empty()) return fail("loop.cycle() needs values");
    return a.positional[loop->index % a.positional.size()];
  });
  add("changed", [loop](Interpreter& in, const Arguments& a) -> Result<Value> {
    ASSIGN_OR_RETURN(Value now, in.list(a.positional, true));
    bool changed = true;
    if (loop->changed) {
      ASSIGN_OR_RETURN(const bool same, in.equal(*loop->changed, now));
      changed = !same;
    }
    loop->changed = std::move(now);
    return Value(changed);
  });
  if (s.recursive) {
    add("recurse", [this, &s, scope, depth](Interpreter&, const Arguments& a) -> Result<Value> {
      std::string text;
      std::string* const outer = std::exchange(out_, &text);
      Result<void> done = run_loop(s, scope, a.get(0, "iterable", Value()), depth + 1);
      out_ = outer;
      if (!done) return std::move(done.error());
      return Value(std::move(text));
    });
  }
  Scope* inner = new_scope(scope);
  TRY(charge(8, 1024));
  for (; loop->index < loop->items.size(); ++loop->index) {
    TRY(charge(1));
    inner->names.clear();
    for (size_t i = 0; i < std::size(kAttributes); ++i) {
      members[i].second = loop->attribute(kAttributes[i]);
    }
    inner->set("loop", view);
    TRY(assign(*s.target, loop->items[loop->index], inner));
    ASSIGN_OR_RETURN(const Flow flow, run(s.body, inner));
    if (flow == Flow::kBreak) break;
  }
  members.clear();  // lets go of the items
  inner->names.clear();
  if (&namespaces_.back()->members == &members) namespaces_.pop_back();
  return {};
}

// --- macros --------------------------------------------------------------------------------------

Value Interpreter::make_macro(const Stmt& s, std::string name, Scope* scope) {
  return Value(std::make_shared<const Function>(Function{
      std::move(name), [this, &s, scope](Interpreter&, const Arguments& arguments) {
        return call_macro(s, scope, arguments);
      }}));
}

Result<Value> Interpreter::call_macro(const Stmt& s, Scope* closure, const Arguments& arguments) {
  TRY(charge(4, sizeof(Scope)));
  Scope* scope = new_scope(closure);
  const size_t first_default = s.parameters.size() - s.defaults.size();
  for (size_t i = 0; i < s.parameters.size(); ++i) {
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
  scope->names.clear();
  return Value(std::move(text));
}

}  // namespace towline::engine::jinja
