// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The tests ("x is defined") and the global functions.
#include <algorithm>
#include <ctime>
#include <map>

#include "engine/text/jinja_filter_table.hpp"
#include "engine/text/jinja_text.hpp"

namespace towline::engine::jinja {
namespace {

using Test = Result<bool> (*)(Interpreter&, const Value&, const Arguments&);

template <bool (Value::*is)() const>
Result<bool> type_is(Interpreter&, const Value& v, const Arguments&) {
  return (v.*is)();
}

// eq, ne, lt, ...: -1, 0, 1 wanted, or not.
template <int order, bool equals>
Result<bool> ordered(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const int found, in.order(v, a.get(0, "other", Value())));
  return found == order || (equals && found == 0);
}

template <bool wanted>
Result<bool> equal(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const bool same, in.equal(v, a.get(0, "other", Value())));
  return same == wanted;
}

template <bool (*is)(std::string_view)>
Result<bool> letter_case(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  TRY(in.charge_characters(2 * text.size()));
  return is(text);
}

template <int64_t rest>
Result<bool> parity(Interpreter&, const Value& v, const Arguments&) {
  if (!v.is_int() && !v.is_bool()) return Interpreter::fail("odd and even need an integer");
  return (v.integer() & 1) == rest;
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> kTable = {
      {"defined", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return !v.is_undefined();
       }},
      {"undefined", type_is<&Value::is_undefined>},
      {"none", type_is<&Value::is_none>},
      {"boolean", type_is<&Value::is_bool>},
      {"integer", type_is<&Value::is_int>},
      {"float", type_is<&Value::is_float>},
      {"number", type_is<&Value::is_number>},
      {"string", type_is<&Value::is_string>},
      {"mapping", type_is<&Value::is_map>},
      {"callable", type_is<&Value::is_function>},
      {"sequence", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return v.is_string() || v.is_list() || v.is_map() || v.is_undefined();
       }},
      {"iterable", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return v.is_string() || v.is_list() || v.is_map() || v.is_undefined();
       }},
      {"true", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return v.is_bool() && v.truthy();
       }},
      {"false", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return v.is_bool() && !v.truthy();
       }},
      {"odd", parity<1>},
      {"even", parity<0>},
      {"divisibleby", [](Interpreter&, const Value& v, const Arguments& a) -> Result<bool> {
         const Value by = a.get(0, "num", Value());
         if (!v.is_int() || !by.is_int() || by.integer() == 0) {
           return Interpreter::fail("divisibleby needs two integers, the second not 0");
         }
         return by.integer() == -1 || v.integer() % by.integer() == 0;
       }},
      {"upper", letter_case<is_upper_text>},
      {"lower", letter_case<is_lower_text>},
      {"in", [](Interpreter& in, const Value& v, const Arguments& a) -> Result<bool> {
         return in.contains(a.get(0, "seq", Value()), v);
       }},
      {"sameas", equal<true>},
      {"escaped", [](Interpreter&, const Value&, const Arguments&) -> Result<bool> {
         return false;
       }},
      {"filter", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return v.is_string() && find_filter(v.string()) != nullptr;
       }},
      {"test", [](Interpreter&, const Value& v, const Arguments&) -> Result<bool> {
         return v.is_string() && is_known_test(v.string());
       }},
      {"eq", equal<true>},
      {"equalto", equal<true>},
      {"==", equal<true>},
      {"ne", equal<false>},
      {"!=", equal<false>},
      {"lt", ordered<-1, false>},
      {"lessthan", ordered<-1, false>},
      {"<", ordered<-1, false>},
      {"le", ordered<-1, true>},
      {"<=", ordered<-1, true>},
      {"gt", ordered<1, false>},
      {"greaterthan", ordered<1, false>},
      {">", ordered<1, false>},
      {"ge", ordered<1, true>},
      {">=", ordered<1, true>},
  };
  return kTable;
}

// --- global functions ----------------------------------------------------------------------------

using Global = Result<Value> (*)(Interpreter&, const Arguments&);

Result<Value> range(Interpreter& in, const Arguments& a) {
  int64_t parts[3] = {0, 0, 1};
  if (a.positional.empty() || a.positional.size() > 3) {
    return Interpreter::fail("range() takes 1 to 3 integers");
  }
  for (size_t i = 0; i < a.positional.size(); ++i) {
    if (!a.positional[i].is_int()) return Interpreter::fail("range() takes integers");
    parts[a.positional.size() == 1 ? 1 : i] = a.positional[i].integer();
  }
  const auto [from, to, step] = parts;
  if (step == 0) return Interpreter::fail("range() with step 0");
  const __int128 distance =
      step > 0 ? static_cast<__int128>(to) - from : static_cast<__int128>(from) - to;
  const __int128 stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  const __int128 count = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (count > 100'000) return Interpreter::fail("range() of more than 100000 numbers");
  TRY(in.charge(static_cast<int64_t>(count)));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) items.emplace_back(from + i * step);
  return in.list(std::move(items));
}

Result<Value> name_space(Interpreter& in, const Arguments& a) {
  std::vector<std::pair<std::string, Value>> members;
  for (const Value& v : a.positional) {
    if (!v.is_map()) return Interpreter::fail("namespace() takes name=value and dicts");
    for (const auto& [key, value] : v.map().members) {
      ASSIGN_OR_RETURN(std::string name, in.show(key));
      members.emplace_back(std::move(name), value);
    }
  }
  members.insert(members.end(), a.named.begin(), a.named.end());
  TRY(in.charge(1, static_cast<int64_t>(128 + members.size() * 2 * sizeof(Value))));
  return in.make_namespace(std::move(members));
}

Result<Value> dict(Interpreter& in, const Arguments& a) {
  std::vector<std::pair<Value, Value>> members;
  if (!a.positional.empty() && a.positional[0].is_map()) members = a.positional[0].map().members;
  for (const auto& [name, value] : a.named) {
    TRY(in.charge(1 + static_cast<int64_t>(members.size() / 16)));
    const auto same = std::find_if(members.begin(), members.end(), [&, n = name](const auto& m) {
      return m.first.is_string() && m.first.string() == n;
    });
    if (same != members.end()) {
      same->second = value;
    } else {
      members.emplace_back(Value(name), value);
    }
  }
  TRY(in.charge(static_cast<int64_t>(members.size()),
                static_cast<int64_t>(members.size() * 2 * sizeof(Value))));
  return Value::map(std::move(members));
}

Result<Value> raise_exception(Interpreter& in, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::string words, in.show(a.get(0, "message", Value(""))));
  return Interpreter::fail("the chat template refuses this conversation: {}", words);
}

Result<Value> strftime_now(Interpreter& in, const Arguments& a) {
  const Value form = a.get(0, "format", Value());
  if (!form.is_string() || form.string().size() > 200) {
    return Interpreter::fail("strftime_now() needs a format");
  }
  const std::time_t now = in.now();
  std::tm parts{};
  if (gmtime_r(&now, &parts) == nullptr) return Interpreter::fail("strftime_now(): no such time");
  char text[2048];
  const size_t n = std::strftime(text, sizeof(text), form.string().c_str(), &parts);
  return in.text(std::string(text, n));
}

Result<Value> joiner(Interpreter& in, const Arguments& a) {
  TRY(in.charge(4, 512));
  const Value state = in.make_namespace({{"used", Value(false)}});
  const Value separator = a.get(0, "sep", Value(", "));
  return Value(std::make_shared<const Function>(
      Function{"joiner", [state, separator](Interpreter&, const Arguments&) -> Result<Value> {
                 Value& used = state.name_space().members[0].second;
                 return std::exchange(used, Value(true)).truthy() ? separator : Value("");
               }}));
}

}  // namespace

bool is_known_test(std::string_view name) { return tests().contains(name); }

Result<bool> Interpreter::test(std::string_view name, const Value& input,
                               const Arguments& arguments) {
  TRY(charge(1));
  const auto at = tests().find(name);
  if (at == tests().end()) return fail("there is no test '{}'", name);
  return at->second(*this, input, arguments);
}

void add_globals(Interpreter& interpreter) {
  static constexpr std::pair<std::string_view, Global> kGlobals[] = {
      {"range", range},
      {"namespace", name_space},
      {"dict", dict},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
      {"joiner", joiner},
  };
  for (const auto& [name, call] : kGlobals) {
    interpreter.define(name,
                       Value(std::make_shared<const Function>(Function{std::string(name), call})));
  }
}

}  // namespace towline::engine::jinja
