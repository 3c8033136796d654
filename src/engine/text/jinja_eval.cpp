// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Expressions of the template language.
#include <algorithm>
#include <cmath>

#include "engine/text/jinja_interpreter.hpp"
#include "engine/text/jinja_text.hpp"

namespace towline::engine::jinja {
namespace {

Error undefined_error(const Value& v) {
  return Interpreter::fail("'{}' is undefined", v.undefined_name());
}

// Indices of a Python slice of a sequence of `size` items.
Result<std::vector<int64_t>> slice_indices(int64_t size, const Value& start, const Value& stop,
                                           const Value& step) {
  const auto part = [](const Value& v, int64_t fallback) -> Result<int64_t> {
    if (v.is_none()) return fallback;
    if (!v.is_int() && !v.is_bool()) {
      return Interpreter::fail("a slice part is a {}", v.type_name());
    }
    return std::clamp<int64_t>(v.integer(), -(int64_t{1} << 40), int64_t{1} << 40);
  };
  ASSIGN_OR_RETURN(const int64_t by, part(step, 1));
  if (by == 0) return Interpreter::fail("a slice with step 0");
  ASSIGN_OR_RETURN(int64_t from, part(start, by > 0 ? 0 : size - 1));
  ASSIGN_OR_RETURN(int64_t to, part(stop, by > 0 ? size : -size - 1));
  if (from < 0) from += size;
  if (to < 0) to += size;
  from = std::clamp<int64_t>(from, by > 0 ? 0 : -1, by > 0 ? size : size - 1);
  to = std::clamp<int64_t>(to, -1, size);
  std::vector<int64_t> out;
  for (int64_t i = from; by > 0 ? i < to : i > to; i += by) out.push_back(i);
  return out;
}

}  // namespace

Result<Value> Interpreter::eval(const Expr& e, Scope* scope) {
  ++depth_;
  Result<Value> v = depth_ > limits_.depth
                        ? Result<Value>(errorf(Code::kExhausted,
                                               "the chat template nests deeper than {} levels",
                                               limits_.depth))
                        : eval_inner(e, scope);
  --depth_;
  return v;
}

Result<Value> Interpreter::eval_inner(const Expr& e, Scope* scope) {
  TRY(charge(1 + static_cast<int64_t>(e.name.size() / 32)));
  switch (e.kind) {
    case Expr::Kind::kConstant: return e.value;
    case Expr::Kind::kName: {
      int64_t looked = 0;
      const Value* found = scope->find(e.name, looked);
      TRY(charge(looked / 4));
      return found ? *found : Value(Undefined{e.name});
    }
    case Expr::Kind::kList:
    case Expr::Kind::kTuple: {
      std::vector<Value> items;
      for (const ExprPtr& arg : e.args) {
        ASSIGN_OR_RETURN(Value v, eval(*arg, scope));
        items.push_back(std::move(v));
      }
      return list(std::move(items), e.kind == Expr::Kind::kTuple);
    }
    case Expr::Kind::kDict: return eval_dict(e, scope);
    case Expr::Kind::kAttribute: {
      ASSIGN_OR_RETURN(const Value object, eval(*e.args[0], scope));
      return attribute(object, e.name);
    }
    case Expr::Kind::kSubscript: {
      ASSIGN_OR_RETURN(const Value object, eval(*e.args[0], scope));
      ASSIGN_OR_RETURN(const Value key, eval(*e.args[1], scope));
      return item(object, key);
    }
    case Expr::Kind::kSlice: return eval_slice(e, scope);
    case Expr::Kind::kCall: return eval_call(e, scope);
    case Expr::Kind::kFilter: {
      ASSIGN_OR_RETURN(Value input, eval(*e.args[0], scope));
      return apply_filter(e, std::move(input), scope);
    }
    case Expr::Kind::kTest: {
      ASSIGN_OR_RETURN(const Value input, eval(*e.args[0], scope));
      ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e, scope));
      ASSIGN_OR_RETURN(const bool holds, test(e.name, input, arguments));
      return Value(holds);
    }
    case Expr::Kind::kUnary: {
      ASSIGN_OR_RETURN(const Value v, eval(*e.args[0], scope));
      if (e.name == "not") return Value(!v.truthy());
      if (v.is_undefined()) return undefined_error(v);
      if (!v.is_number()) return fail("line {}: '{}' of a {}", e.line, e.name, v.type_name());
      if (e.name == "+") return v;
      return v.is_float() ? Result<Value>(Value(-v.number())) : arithmetic("-", Value(0), v);
    }
    case Expr::Kind::kBinary: return eval_binary(e, scope);
    case Expr::Kind::kCompare: return eval_compare(e, scope);
    case Expr::Kind::kCondition: {
      ASSIGN_OR_RETURN(const Value test, eval(*e.args[1], scope));
      if (test.truthy()) return eval(*e.args[0], scope);
      if (e.args[2]) return eval(*e.args[2], scope);
      return Value(Undefined{"the inline if-expression without else"});
    }
  }
  return Value();
}

Result<Value> Interpreter::eval_dict(const Expr& e, Scope* scope) {
  std::vector<std::pair<Value, Value>> members;
  for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, eval(*e.args[i], scope));
    ASSIGN_OR_RETURN(Value value, eval(*e.args[i + 1], scope));
    if (key.is_container()) return fail("line {}: a {} cannot be a key", e.line, key.type_name());
    TRY(charge(static_cast<int64_t>(members.size()) * (1 + key.weight() / 4) / 8,
               2 * sizeof(Value)));
    const auto same = std::find_if(members.begin(), members.end(),
                                   [&](const auto& member) { return member.first == key; });
    if (same != members.end()) {
      same->second = std::move(value);
    } else {
      members.emplace_back(std::move(key), std::move(value));
    }
  }
  return Value::map(std::move(members));
}

Result<Value> Interpreter::eval_slice(const Expr& e, Scope* scope) {
  ASSIGN_OR_RETURN(const Value object, eval(*e.args[0], scope));
  Value parts[3] = {Value(None{}), Value(None{}), Value(None{})};
  for (size_t i = 0; i < 3; ++i) {
    if (e.args[i + 1]) {
      ASSIGN_OR_RETURN(parts[i], eval(*e.args[i + 1], scope));
    }
  }
  if (object.is_undefined()) return undefined_error(object);
  if (object.is_string()) {
    const std::string& s = object.string();
    TRY(charge(1, static_cast<int64_t>(s.size() * (1 + 2 * sizeof(size_t)))));
    std::vector<size_t> starts;  // of each code point, and the end
    for (size_t i = 0; i < s.size(); ++i) {
      if ((static_cast<unsigned char>(s[i]) & 0xc0) != 0x80) starts.push_back(i);
    }
    const auto count = static_cast<int64_t>(starts.size());
    starts.push_back(s.size());
    ASSIGN_OR_RETURN(const auto indices, slice_indices(count, parts[0], parts[1], parts[2]));
    std::string out;
    for (const int64_t i : indices) {
      const auto k = static_cast<size_t>(i);
      out.append(s, starts[k], starts[k + 1] - starts[k]);
    }
    return Value(std::move(out));
  }
  if (!object.is_list()) return fail("line {}: a {} has no slices", e.line, object.type_name());
  const auto count = static_cast<int64_t>(object.items().size());
  TRY(charge(1, count * static_cast<int64_t>(sizeof(size_t))));
  ASSIGN_OR_RETURN(const auto indices, slice_indices(count, parts[0], parts[1], parts[2]));
  std::vector<Value> out;
  for (const int64_t i : indices) out.push_back(object.items()[static_cast<size_t>(i)]);
  return list(std::move(out), object.is_tuple());
}

Result<Arguments> Interpreter::eval_arguments(const Expr& e, Scope* scope) {
  Arguments out;
  for (size_t i = 1; i < e.args.size(); ++i) {
    ASSIGN_OR_RETURN(Value v, eval(*e.args[i], scope));
    out.positional.push_back(std::move(v));
  }
  for (const auto& [name, arg] : e.named) {
    ASSIGN_OR_RETURN(Value v, eval(*arg, scope));
    TRY(charge(static_cast<int64_t>(name.size() / 32)));
    out.named.emplace_back(name, std::move(v));
  }
  return out;
}

Result<Value> Interpreter::eval_call(const Expr& e, Scope* scope) {
  ASSIGN_OR_RETURN(const Value callee, eval(*e.args[0], scope));
  ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e, scope));
  return call(callee, arguments);
}

Result<Value> Interpreter::call(const Value& function, const Arguments& arguments) {
  TRY(charge(1));
  if (function.is_undefined()) return undefined_error(function);
  if (function.is_namespace()) {  // loop(...) of a recursive loop
    for (const auto& [name, v] : function.name_space().members) {
      if (name == "recurse" && v.is_function()) return v.function().call(*this, arguments);
    }
  }
  if (!function.is_function()) return fail("a {} cannot be called", function.type_name());
  return function.function().call(*this, arguments);
}

Result<Value> Interpreter::apply_filter(const Expr& e, Value input, Scope* scope) {
  ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e, scope));
  Result<Value> out = filter(e.name, input, arguments);
  if (!out) return std::move(out.error()).context(format("line {}", e.line));
  return out;
}

// A chain whose innermost input is `input`: of filter blocks and block assignments.
Result<Value> Interpreter::filter_chain(const Expr& e, Value input, Scope* scope) {
  const Depth deeper(depth_);
  if (e.args[0]) {
    ASSIGN_OR_RETURN(input, filter_chain(*e.args[0], std::move(input), scope));
  }
  return apply_filter(e, std::move(input), scope);
}

// --- access --------------------------------------------------------------------------------------

Result<Value> Interpreter::attribute(const Value& object, std::string_view name) {
  if (object.is_undefined()) return undefined_error(object);
  if (object.is_namespace()) {
    const Namespace& space = object.name_space();
    TRY(charge(static_cast<int64_t>((space.members.size() + name.size()) / 16)));
    for (const auto& [n, v] : space.members) {
      if (n == name) return v;
    }
    return space.loop ? loop_attribute(space.loop, name) : Value(Undefined(name));
  }
  const Value method = find_method(object, name);
  if (!method.is_undefined()) return method;
  if (object.is_map()) {
    TRY(charge(static_cast<int64_t>(object.map().members.size() * (1 + name.size() / 64)) / 16));
    if (const Value* found = object.map().find(name)) return *found;
  }
  return Value(Undefined(name));
}

Result<Value> Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) return undefined_error(object);
  if (object.is_map()) {
    if (key.is_container()) return fail("a {} cannot be a key", key.type_name());
    ASSIGN_OR_RETURN(const Value* found, find(object.map(), key));
    if (found != nullptr) return *found;
    return key.is_string() ? attribute(object, key.string()) : Value(Undefined(key.str()));
  }
  if (object.is_list() && key.is_int()) {
    const auto size = static_cast<int64_t>(object.items().size());
    const int64_t i = key.integer() < 0 ? key.integer() + size : key.integer();
    if (i >= 0 && i < size) return object.items()[static_cast<size_t>(i)];
    return Value(Undefined{format("index {}", key.integer())});
  }
  if (object.is_string() && key.is_int()) {
    const std::string& s = object.string();
    TRY(charge_scan(s.size()));
    const int64_t size = code_point_count(s);
    const int64_t i = key.integer() < 0 ? key.integer() + size : key.integer();
    if (i < 0 || i >= size) return Value(Undefined{format("index {}", key.integer())});
    const size_t begin = code_point_offset(s, i);
    return Value(s.substr(begin, code_point_offset(std::string_view(s).substr(begin), 1)));
  }
  if (key.is_string()) return attribute(object, key.string());
  return Value(Undefined(std::string(key.type_name()) + " subscript"));
}

Result<std::vector<Value>> Interpreter::iterate(const Value& v) {
  std::vector<Value> out;
  if (v.is_list()) {
    out = v.items();
  } else if (v.is_map()) {
    for (const auto& [key, value] : v.map().members) out.push_back(key);
  } else if (v.is_string()) {
    const std::string& s = v.string();
    TRY(charge(1, static_cast<int64_t>(s.size() * sizeof(Value))));
    for (size_t i = 0; i < s.size();) {
      size_t n = 1;
      while (i + n < s.size() && (static_cast<unsigned char>(s[i + n]) & 0xc0) == 0x80) ++n;
      out.push_back(Value(s.substr(i, n)));
      i += n;
    }
  } else if (!v.is_undefined()) {
    return fail("a {} cannot be looped over", v.type_name());
  }
  TRY(charge(1, static_cast<int64_t>(out.size() * sizeof(Value))));
  return out;
}

Result<bool> Interpreter::contains(const Value& container, const Value& wanted) {
  if (container.is_string()) {
    if (!wanted.is_string()) {
      return fail("'in' a string needs a string, not a {}", wanted.type_name());
    }
    TRY(charge_scan(container.string().size()));
    return find_text(container.string(), wanted.string(), 0) != std::string::npos;
  }
  if (container.is_map()) {
    if (wanted.is_container()) return fail("a {} cannot be a key", wanted.type_name());
    ASSIGN_OR_RETURN(const Value* found, find(container.map(), wanted));
    return found != nullptr;
  }
  if (container.is_list()) {
    for (const Value& v : container.items()) {
      ASSIGN_OR_RETURN(const bool same, equal(v, wanted));
      if (same) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  return fail("'in' a {} has no meaning", container.type_name());
}

// --- operators -----------------------------------------------------------------------------------

Result<Value> Interpreter::eval_binary(const Expr& e, Scope* scope) {
  ASSIGN_OR_RETURN(const Value a, eval(*e.args[0], scope));
  if (e.name == "and") return a.truthy() ? eval(*e.args[1], scope) : Result<Value>(a);
  if (e.name == "or") return a.truthy() ? Result<Value>(a) : eval(*e.args[1], scope);
  ASSIGN_OR_RETURN(const Value b, eval(*e.args[1], scope));
  if (e.name == "~") {
    ASSIGN_OR_RETURN(const std::string left, show(a));
    ASSIGN_OR_RETURN(const std::string right, show(b));
    return text(left + right);
  }
  if (a.is_undefined()) return undefined_error(a);
  if (b.is_undefined()) return undefined_error(b);
  if (e.name == "+" && a.is_string() && b.is_string()) {
    TRY(charge(1, static_cast<int64_t>(a.string().size() + b.string().size())));
    if (!a.is_markup() && !b.is_markup()) return Value(a.string() + b.string());
    TRY(charge(1, static_cast<int64_t>(kEscapedGrowth * (a.string().size() + b.string().size()))));
    return Value::markup((a.is_markup() ? a.string() : escaped_text(a.string())) +
                         (b.is_markup() ? b.string() : escaped_text(b.string())));
  }
  if (e.name == "+" && a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) {
    TRY(charge(1, static_cast<int64_t>((a.items().size() + b.items().size()) * sizeof(Value))));
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return Value::list(std::move(items), a.is_tuple());
  }
  if (e.name == "%" && a.is_string()) {
    return filter("format", a, Arguments{b.is_tuple() ? b.items() : std::vector<Value>{b}, {}});
  }
  if (e.name == "*" && (a.is_string() || b.is_string() || a.is_list() || b.is_list())) {
    const bool left = a.is_string() || a.is_list();
    const Value& sequence = left ? a : b;
    const Value& count = left ? b : a;
    if (!count.is_int() && !count.is_bool()) {
      return fail("line {}: {} * {}", e.line, a.type_name(), b.type_name());
    }
    const int64_t n = std::clamp<int64_t>(count.integer(), 0, int64_t{1} << 31);
    const int64_t size = static_cast<int64_t>(
        sequence.is_string() ? sequence.string().size() : sequence.items().size() * sizeof(Value));
    TRY(charge(1, size * n));
    if (sequence.is_string()) {
      std::string repeated = n > 0 ? sequence.string() : "";
      const size_t whole = static_cast<size_t>(size * n);
      repeated.reserve(whole);
      while (repeated.size() < whole) {  // doubling: n may be millions
        repeated.append(repeated, 0, std::min(repeated.size(), whole - repeated.size()));
      }
      return Value(std::move(repeated));
    }
    std::vector<Value> items;
    for (int64_t i = 0; i < n && size > 0; ++i) {
      items.insert(items.end(), sequence.items().begin(), sequence.items().end());
    }
    return Value::list(std::move(items), sequence.is_tuple());
  }
  if (!a.is_number() || !b.is_number()) {
    return fail("line {}: {} {} {} has no meaning", e.line, a.type_name(), e.name, b.type_name());
  }
  return arithmetic(e.name, a, b);
}

Result<Value> Interpreter::arithmetic(std::string_view op, const Value& a, const Value& b) {
  const bool divides = op == "/" || op == "//" || op == "%";
  if (divides && b.number() == 0) return fail("division by zero");
  if (a.is_float() || b.is_float() || op == "/") {
    const double x = a.number();
    const double y = b.number();
    if (op == "+") return Value(x + y);
    if (op == "-") return Value(x - y);
    if (op == "*") return Value(x * y);
    if (op == "/") return Value(x / y);
    if (op == "//") return Value(std::floor(x / y));
    if (op == "**") return Value(std::pow(x, y));
    const double rest = std::fmod(x, y);
    return Value(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
  }
  const int64_t x = a.integer();
  const int64_t y = b.integer();
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(x, y, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(x, y, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(x, y, &out);
  } else if (op == "**") {
    if (y < 0) return Value(std::pow(static_cast<double>(x), static_cast<double>(y)));
    out = 1;
    TRY(charge(std::min<int64_t>(y, 64)));
    for (int64_t i = 0; i < y && !overflow && !(out == x && (x == 0 || x == 1)); ++i) {
      overflow = __builtin_mul_overflow(out, x, &out);
      if (x == -1 && i > 1) {
        out = y % 2 == 0 ? 1 : -1;
        break;
      }
    }
  } else if (y == -1) {  // INT64_MIN / -1 traps
    if (op == "//") overflow = __builtin_sub_overflow(int64_t{0}, x, &out);
  } else {
    const int64_t rest = x % y;
    const bool adjust = rest != 0 && (rest < 0) != (y < 0);
    out = op == "//" ? x / y - (adjust ? 1 : 0) : (adjust ? rest + y : rest);
  }
  if (overflow) return fail("{} {} {} does not fit 64 bits", x, op, y);
  return Value(out);
}

Result<Value> Interpreter::eval_compare(const Expr& e, Scope* scope) {
  ASSIGN_OR_RETURN(Value left, eval(*e.args[0], scope));
  for (size_t i = 0; i < e.ops.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, eval(*e.args[i + 1], scope));
    const std::string& op = e.ops[i];
    bool holds = false;
    if (op == "in" || op == "not in") {
      ASSIGN_OR_RETURN(const bool found, contains(right, left));
      holds = found == (op == "in");
    } else if (op == "==" || op == "!=") {
      ASSIGN_OR_RETURN(const bool same, equal(left, right));
      holds = same == (op == "==");
    } else {
      if (left.is_undefined()) return undefined_error(left);
      if (right.is_undefined()) return undefined_error(right);
      ASSIGN_OR_RETURN(const int sign, order(left, right));
      holds = op == "<" ? sign < 0 : op == ">" ? sign > 0 : op == "<=" ? sign <= 0 : sign >= 0;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

}  // namespace towline::engine::jinja
