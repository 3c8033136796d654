// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Methods of strings, lists and maps, as Python has them. Those that would change a list or a map
// are refused, as Hugging Face's sandbox does.
#include <algorithm>
#include <map>

#include "base/utf8.hpp"
#include "engine/text/characters.hpp"
#include "engine/text/jinja_interpreter.hpp"
#include "engine/text/jinja_text.hpp"

namespace towline::engine::jinja {
namespace {

using Method = Result<Value> (*)(Interpreter&, const Value& self, const Arguments&);
using Table = std::map<std::string_view, Method>;

// A string; the value shares it, and it may be long.
Result<Value> text_argument(const Arguments& a, size_t i, std::string_view name,
                            std::string_view method) {
  Value v = a.get(i, name, Value());
  if (!v.is_string()) {
    return Interpreter::fail("{}() needs a string, not a {}", method, v.type_name());
  }
  return v;
}

template <bool left, bool right>
Result<Value> strip(Interpreter& in, const Value& self, const Arguments& a) {
  const Value chars = a.get(0, "chars", Value(None{}));
  TRY(in.charge_scan(self.string().size()));
  if (chars.is_string()) {
    TRY(in.charge_characters(chars.string().size()));
    return in.text(stripped_of(self.string(), chars.string(), left, right));
  }
  std::string_view s = self.string();
  if (left) s = trimmed_left(s);
  if (right) s = trimmed_right(s);
  return in.text(std::string(s));
}

template <bool from_right>
Result<Value> split(Interpreter& in, const Value& self, const Arguments& a) {
  const Value separator = a.get(0, "sep", Value(None{}));
  const Value limit = a.get(1, "maxsplit", Value(-1));
  if (!limit.is_int()) return Interpreter::fail("split() needs a number of splits");
  std::vector<Value> parts;
  if (separator.is_none()) {
    ASSIGN_OR_RETURN(parts, split_white_space(in, self.string(), limit.integer(), from_right));
  } else if (separator.is_string() && !separator.string().empty()) {
    ASSIGN_OR_RETURN(parts, split_text(in, self.string(), separator.string(), limit.integer(),
                                       from_right));
  } else {
    return Interpreter::fail("split() needs a separator that is not empty");
  }
  return in.list(std::move(parts));
}

Result<Value> splitlines(Interpreter& in, const Value& self, const Arguments& a) {
  const bool keep = a.get(0, "keepends", Value(false)).truthy();
  std::vector<Value> items;
  std::string_view s = self.string();
  TRY(in.charge_scan(s.size()));
  while (!s.empty()) {
    const size_t end = std::min(s.find_first_of("\n\r"), s.size());
    size_t next = std::min(end + 1, s.size());
    if (s.substr(end).starts_with("\r\n")) next = end + 2;
    TRY(add_part(in, items, s.substr(0, keep ? next : end)));
    s.remove_prefix(next);
  }
  return in.list(std::move(items));
}

template <bool at_start>
Result<Value> has_affix(Interpreter& in, const Value& self, const Arguments& a) {
  const Value v = a.get(0, at_start ? "prefix" : "suffix", Value());
  const std::vector<Value> one = {v};
  for (const Value& affix : v.is_tuple() ? v.items() : one) {
    if (!affix.is_string()) {
      return Interpreter::fail("startswith() and endswith() need a string, not a {}",
                               affix.type_name());
    }
    const std::string& s = self.string();
    TRY(in.charge_scan(std::min(s.size(), affix.string().size())));
    if (at_start ? s.starts_with(affix.string()) : s.ends_with(affix.string())) return Value(true);
  }
  return Value(false);
}

template <bool at_start>
Result<Value> remove_affix(Interpreter& in, const Value& self, const Arguments& a) {
  ASSIGN_OR_RETURN(const Value given, text_argument(a, 0, "affix", "removeprefix"));
  const std::string& affix = given.string();
  std::string_view s = self.string();
  TRY(in.charge_scan(std::min(s.size(), affix.size())));
  if (at_start && s.starts_with(affix)) s.remove_prefix(affix.size());
  if (!at_start && s.ends_with(affix)) s.remove_suffix(affix.size());
  return in.text(std::string(s));
}

Result<Value> replace(Interpreter& in, const Value& self, const Arguments& a) {
  ASSIGN_OR_RETURN(const Value from, text_argument(a, 0, "old", "replace"));
  ASSIGN_OR_RETURN(const Value to, text_argument(a, 1, "new", "replace"));
  const Value count = a.get(2, "count", Value(-1));
  return replace_text(in, self.string(), from.string(), to.string(),
                      count.is_int() ? count.integer() : -1);
}

template <bool last, bool must>
Result<Value> find(Interpreter& in, const Value& self, const Arguments& a) {
  ASSIGN_OR_RETURN(const Value what, text_argument(a, 0, "sub", "find"));
  const std::string& s = self.string();
  TRY(in.charge_scan(2 * s.size()));
  const size_t at = last ? rfind_text(s, what.string()) : find_text(s, what.string(), 0);
  if (at != std::string::npos) return Value(code_point_count(std::string_view(s).substr(0, at)));
  if (must) return Interpreter::fail("index(): substring not found");
  return Value(-1);
}

Result<Value> count(Interpreter& in, const Value& self, const Arguments& a) {
  ASSIGN_OR_RETURN(const Value given, text_argument(a, 0, "sub", "count"));
  const std::string& what = given.string();
  const std::string& s = self.string();
  TRY(in.charge_scan(s.size()));
  if (what.empty()) return Value(code_point_count(s) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = find_text(s, what, at)) != std::string::npos; at += what.size()) {
    TRY(in.charge(1));
    ++n;
  }
  return Value(n);
}

Result<Value> join(Interpreter& in, const Value& self, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(a.get(0, "iterable", Value())));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) return Interpreter::fail("join() of a {}", items[i].type_name());
    TRY(in.charge(1, static_cast<int64_t>(items[i].string().size() + self.string().size())));
    if (i > 0) out += self.string();
    out += items[i].string();
  }
  return Value(std::move(out));
}

template <std::string (*change)(std::string_view)>
Result<Value> changed(Interpreter& in, const Value& self, const Arguments&) {
  TRY(in.charge_characters(self.string().size()));
  return in.text(change(self.string()));
}

template <bool (*is)(std::string_view)>
Result<Value> predicate(Interpreter& in, const Value& self, const Arguments&) {
  TRY(in.charge_characters(2 * self.string().size()));
  return Value(is(self.string()));
}

template <bool from_right>
Result<Value> partition(Interpreter& in, const Value& self, const Arguments& a) {
  ASSIGN_OR_RETURN(const Value given, text_argument(a, 0, "sep", "partition"));
  const std::string& what = given.string();
  const std::string& s = self.string();
  TRY(in.charge_scan(2 * s.size()));
  TRY(in.charge(1, static_cast<int64_t>(s.size())));
  const size_t at = what.empty() ? std::string::npos
                    : from_right ? rfind_text(s, what)
                                 : find_text(s, what, 0);
  std::vector<Value> parts = {Value(s), Value(""), Value("")};
  if (at != std::string::npos) {
    parts = {Value(s.substr(0, at)), Value(what), Value(s.substr(at + what.size()))};
  } else if (from_right) {
    std::swap(parts[0], parts[2]);
  }
  return in.list(std::move(parts), true);
}

template <int side>  // -1 ljust, 0 center, 1 rjust
Result<Value> justify(Interpreter& in, const Value& self, const Arguments& a) {
  const Value width = a.get(0, "width", Value(0));
  const Value fill = a.get(1, "fillchar", Value(" "));
  if (!width.is_int() || !fill.is_string()) return Interpreter::fail("wrong padding arguments");
  return pad_text(in, self.string(), width.integer(), fill.string(), side);
}

Result<Value> zfill(Interpreter& in, const Value& self, const Arguments& a) {
  const Value width = a.get(0, "width", Value(0));
  if (!width.is_int()) return Interpreter::fail("zfill() needs a width");
  return pad_text(in, self.string(), width.integer(), "0", 1);
}

// "{} and {name}".format(...), without conversion or format specifications.
Result<Value> format_method(Interpreter& in, const Value& self, const Arguments& a) {
  std::string out;
  const std::string& s = self.string();
  TRY(in.charge_characters(s.size()));
  size_t automatic = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if ((s[i] == '{' || s[i] == '}') && i + 1 < s.size() && s[i + 1] == s[i]) {
      out += s[i++];
    } else if (s[i] == '{') {
      const size_t end = s.find('}', i);
      if (end == std::string::npos) return Interpreter::fail("format(): a '{{' is not closed");
      const std::string field = s.substr(i + 1, end - i - 1);
      Value v;
      if (field.find_first_not_of("0123456789") == std::string::npos && field.size() < 6) {
        const size_t index = field.empty() ? automatic++ : static_cast<size_t>(std::stoul(field));
        v = a.get(index, "", Value());
      } else {
        v = a.get(SIZE_MAX, field, Value());
      }
      if (v.is_undefined()) return Interpreter::fail("format(): nothing given for '{{{}}}'", field);
      TRY(in.charge(4 + static_cast<int64_t>(a.named.size() / 16)));
      ASSIGN_OR_RETURN(const std::string shown, in.show(v));
      out += shown;
      i = end;
    } else {
      out += s[i];
    }
  }
  return in.text(std::move(out));
}

Result<Value> encode(Interpreter&, const Value& self, const Arguments&) { return self; }

const Table& string_methods() {
  static const Table kTable = {
      {"strip", strip<true, true>},
      {"lstrip", strip<true, false>},
      {"rstrip", strip<false, true>},
      {"split", split<false>},
      {"rsplit", split<true>},
      {"splitlines", splitlines},
      {"startswith", has_affix<true>},
      {"endswith", has_affix<false>},
      {"removeprefix", remove_affix<true>},
      {"removesuffix", remove_affix<false>},
      {"replace", replace},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"count", count},
      {"join", join},
      {"upper", changed<upper_text>},
      {"lower", changed<lower_text>},
      {"title", changed<title_text>},
      {"capitalize", changed<capital_text>},
      {"swapcase", changed<swapped_text>},
      {"isdigit", predicate<all_digits>},
      {"isdecimal", predicate<all_digits>},
      {"isnumeric", predicate<all_digits>},
      {"isalpha", predicate<all_letters>},
      {"isalnum", predicate<all_alphanumeric>},
      {"isspace", predicate<all_space>},
      {"isupper", predicate<is_upper_text>},
      {"islower", predicate<is_lower_text>},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"ljust", justify<-1>},
      {"center", justify<0>},
      {"rjust", justify<1>},
      {"zfill", zfill},
      {"format", format_method},
      {"encode", encode},
  };
  return kTable;
}

// --- maps and lists ------------------------------------------------------------------------------

template <int what>  // 0 keys, 1 values, 2 items
Result<Value> members(Interpreter& in, const Value& self, const Arguments&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.map().members) {
    if (what == 2) {
      ASSIGN_OR_RETURN(Value pair, in.list({key, value}, true));
      out.push_back(std::move(pair));
    } else {
      out.push_back(what == 0 ? key : value);
    }
  }
  return in.list(std::move(out));
}

Result<Value> get(Interpreter& in, const Value& self, const Arguments& a) {
  const Value key = a.get(0, "key", Value(None{}));
  if (key.is_container()) return Interpreter::fail("a {} cannot be a key", key.type_name());
  ASSIGN_OR_RETURN(const Value* found, in.find(self.map(), key));
  return found ? *found : a.get(1, "default", Value(None{}));
}

Result<Value> same(Interpreter&, const Value& self, const Arguments&) { return self; }

Result<Value> refuse(Interpreter&, const Value&, const Arguments&) {
  return Interpreter::fail("lists and dicts cannot be changed in a chat template");
}

Result<Value> list_count(Interpreter& in, const Value& self, const Arguments& a) {
  int64_t n = 0;
  for (const Value& v : self.items()) {
    ASSIGN_OR_RETURN(const bool equal, in.equal(v, a.get(0, "value", Value())));
    n += equal;
  }
  return Value(n);
}

Result<Value> list_index(Interpreter& in, const Value& self, const Arguments& a) {
  for (size_t i = 0; i < self.items().size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, in.equal(self.items()[i], a.get(0, "value", Value())));
    if (equal) return Value(i);
  }
  return Interpreter::fail("index(): the value is not in the list");
}

const Table& map_methods() {
  static const Table kTable = {
      {"items", members<2>}, {"keys", members<0>}, {"values", members<1>}, {"get", get},
      {"copy", same},        {"update", refuse},   {"pop", refuse},        {"clear", refuse},
      {"setdefault", refuse}, {"popitem", refuse},
  };
  return kTable;
}
const Table& list_methods() {
  static const Table kTable = {
      {"count", list_count}, {"index", list_index}, {"copy", same},    {"append", refuse},
      {"extend", refuse},    {"insert", refuse},    {"pop", refuse},   {"remove", refuse},
      {"reverse", refuse},   {"sort", refuse},      {"clear", refuse},
  };
  return kTable;
}

}  // namespace

Value find_method(const Value& object, std::string_view name) {
  const Table* table = object.is_string() ? &string_methods()
                       : object.is_map()  ? &map_methods()
                       : object.is_list() ? &list_methods()
                                          : nullptr;
  if (table == nullptr) return Value();
  const auto at = table->find(name);
  if (at == table->end()) return Value();
  return Value(std::make_shared<const Function>(Function{
      std::string(name), [method = at->second, object](Interpreter& in, const Arguments& a) {
        return method(in, object, a);
      }}));
}

}  // namespace towline::engine::jinja
