// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_value.hpp"

#include <algorithm>
#include <cmath>

#include "base/fmt.hpp"
#include "base/utf8.hpp"

namespace towline::engine::jinja {
namespace {

Error too_deep() {
  return errorf(Code::kExhausted, "values of the chat template nest deeper than {} levels",
                Value::kMaxDepth);
}

// Python prefers single quotes and takes double ones if that saves escapes.
void append_quoted(std::string& out, std::string_view text) {
  const bool use_double = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = use_double ? '"' : '\'';
  out += quote;
  for (const char c : text) {
    switch (c) {
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\\': out += "\\\\"; break;
      default:
        if (c == quote) {
          out += '\\';
          out += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  out += quote;
}

void append_ascii_json(std::string& out, std::string_view text) {
  std::string utf8;
  append_json_string(utf8, text);
  for (size_t i = 0; i < utf8.size();) {
    const size_t n = utf8_length(utf8, i);
    const char32_t c = utf8_code_point(utf8, i, n);
    i += n;
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c < 0x10000) {
      out += format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += format("\\u{:04x}\\u{:04x}", static_cast<uint32_t>(0xd800 + ((c - 0x10000) >> 10)),
                    static_cast<uint32_t>(0xdc00 + ((c - 0x10000) & 0x3ff)));
    }
  }
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, int64_t limit)
      : style_(style), limit_(static_cast<size_t>(std::max<int64_t>(limit, 0))) {
    if (style_.item_separator.empty()) style_.item_separator = style.indent < 0 ? ", " : ",";
    if (style_.key_separator.empty()) style_.key_separator = ": ";
  }

  Result<void> write(const Value& v, int level) {
    if (out.size() > limit_) {
      return errorf(Code::kExhausted, "tojson of the chat template makes more than {} bytes",
                    limit_);
    }
    if (v.is_none()) {
      out += "null";
    } else if (v.is_bool()) {
      out += v.truthy() ? "true" : "false";
    } else if (v.is_int()) {
      out += format("{}", v.integer());
    } else if (v.is_float()) {
      const double d = v.number();
      out += std::isnan(d) ? "NaN" : std::isinf(d) ? (d > 0 ? "Infinity" : "-Infinity")
                                                   : float_repr(d);
    } else if (v.is_string()) {
      string(v.string());
    } else if (v.is_list()) {
      return list(v, level);
    } else if (v.is_map()) {
      return map(v, level);
    } else {
      return errorf(Code::kInvalidArgument, "tojson: a value of type {} has no JSON form",
                    v.type_name());
    }
    return {};
  }

  std::string out;

 private:
  void string(std::string_view text) {
    style_.ensure_ascii ? append_ascii_json(out, text) : append_json_string(out, text);
  }
  void line(int level) {
    if (style_.indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(style_.indent) * static_cast<size_t>(level), ' ');
  }
  Result<void> list(const Value& v, int level) {
    out += '[';
    bool first = true;
    for (const Value& item : v.items()) {
      if (!first) out += style_.item_separator;
      first = false;
      line(level + 1);
      TRY(write(item, level + 1));  // looks at the length before it adds anything
    }
    if (!first) line(level);
    out += ']';
    return {};
  }
  Result<void> map(const Value& v, int level) {
    std::vector<std::pair<std::string, const Value*>> members;
    for (const auto& [key, value] : v.map().members) {
      std::string name = key.is_string() ? key.string() : key.str();
      if (key.is_bool()) name = key.truthy() ? "true" : "false";
      if (key.is_none()) name = "null";
      members.emplace_back(std::move(name), &value);
    }
    if (style_.sort_keys) {
      std::stable_sort(members.begin(), members.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out += '{';
    bool first = true;
    for (const auto& [key, value] : members) {
      if (!first) out += style_.item_separator;
      first = false;
      line(level + 1);
      string(key);
      out += style_.key_separator;
      TRY(write(*value, level + 1));
    }
    if (!first) line(level);
    out += '}';
    return {};
  }
  JsonStyle style_;
  const size_t limit_;
};

constexpr size_t kMaxNameShown = 80;

}  // namespace

Undefined::Undefined(std::string_view what) {
  if (what.size() > kMaxNameShown) {
    size_t end = kMaxNameShown;
    while (end > 0 && (static_cast<unsigned char>(what[end]) & 0xc0) == 0x80) --end;
    what = what.substr(0, end);
  }
  name = what;
}

Value LoopState::attribute(std::string_view name) const {
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
  if (name == "previtem") return at > 0 ? items[index - 1] : Value(Undefined("loop.previtem"));
  if (name == "nextitem") {
    return at + 1 < count ? items[index + 1] : Value(Undefined("loop.nextitem"));
  }
  return Value(Undefined("loop." + std::string(name.substr(0, kMaxNameShown))));
}

const Value* Map::find(const Value& key) const {
  for (const auto& [k, v] : members) {
    if (k == key) return &v;
  }
  return nullptr;
}

const Value* Map::find(std::string_view key) const {
  for (const auto& [k, v] : members) {
    if (k.is_string() && k.string() == key) return &v;
  }
  return nullptr;
}

Value Arguments::get(size_t i, std::string_view name, Value fallback) const {
  if (i < positional.size()) return positional[i];
  for (const auto& [n, v] : named) {
    if (n == name) return v;
  }
  return fallback;
}

bool Arguments::has(size_t i, std::string_view name) const {
  return i < positional.size() ||
         std::any_of(named.begin(), named.end(), [&](const auto& n) { return n.first == name; });
}

Result<Value> Value::list(std::vector<Value> items, bool tuple) {
  int depth = 1;
  int64_t weight = 1;
  for (const Value& item : items) {
    depth = std::max(depth, item.depth() + 1);
    weight = std::min(weight + item.weight(), kMaxWeight);
  }
  if (depth > kMaxDepth) return too_deep();
  Value v;
  v.data_ = std::make_shared<const List>(List{std::move(items), tuple, depth, weight});
  return v;
}

Result<Value> Value::map(std::vector<std::pair<Value, Value>> members) {
  int depth = 1;
  int64_t weight = 1;
  for (const auto& [key, value] : members) {
    depth = std::max({depth, value.depth() + 1, key.depth() + 1});
    weight = std::min(weight + key.weight() + value.weight(), kMaxWeight);
  }
  if (depth > kMaxDepth) return too_deep();
  Value v;
  v.data_ = std::make_shared<const Map>(Map{std::move(members), depth, weight});
  return v;
}

Result<Value> Value::from_json(const Json& json) {
  if (json.is_null()) return Value(None{});
  if (json.is_bool()) return Value(json.as_bool());
  if (json.is_int()) return Value(json.as_int());
  if (json.is_double()) return Value(json.as_double());
  if (json.is_string()) return Value(json.as_string());
  if (json.is_array()) {
    std::vector<Value> items;
    items.reserve(json.items().size());
    for (const Json& item : json.items()) {
      ASSIGN_OR_RETURN(Value value, from_json(item));
      items.push_back(std::move(value));
    }
    return list(std::move(items));
  }
  std::vector<std::pair<Value, Value>> members;
  members.reserve(json.members().size());
  for (const Json::Member& member : json.members()) {
    ASSIGN_OR_RETURN(Value value, from_json(member.second));
    members.emplace_back(Value(member.first), std::move(value));
  }
  return map(std::move(members));
}

int Value::depth() const {
  if (is_list()) return std::get<ListRef>(data_)->depth;
  if (is_map()) return std::get<MapRef>(data_)->depth;
  return 0;
}

int64_t Value::weight() const {
  if (is_list()) return std::get<ListRef>(data_)->weight;
  if (is_map()) return std::get<MapRef>(data_)->weight;
  return is_string() ? 1 + static_cast<int64_t>(string().size() / 16) : 1;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool() || is_int()) return integer() != 0;
  if (is_float()) return number() != 0;
  if (is_string()) return !string().empty();
  if (is_list()) return !items().empty();
  if (is_map()) return !map().members.empty();
  return true;
}

std::string_view Value::type_name() const {
  static constexpr std::string_view kNames[] = {"Undefined", "NoneType", "bool", "int", "float",
                                                "str", "list", "dict", "Namespace", "function"};
  return is_tuple() ? "tuple" : kNames[data_.index()];
}

std::string Value::str() const {
  if (is_string()) return string();
  if (is_undefined()) return "";
  return repr();
}

std::string Value::repr() const {
  std::string out;
  repr_to(out);
  return out;
}

void Value::repr_to(std::string& out) const {
  if (is_undefined()) {
    out += "Undefined";
  } else if (is_none()) {
    out += "None";
  } else if (is_bool()) {
    out += truthy() ? "True" : "False";
  } else if (is_int()) {
    out += format("{}", integer());
  } else if (is_float()) {
    out += float_repr(number());
  } else if (is_string()) {
    append_quoted(out, string());
  } else if (is_list()) {
    out += is_tuple() ? '(' : '[';
    for (size_t i = 0; i < items().size(); ++i) {
      if (i > 0) out += ", ";
      items()[i].repr_to(out);
    }
    if (is_tuple() && items().size() == 1) out += ',';
    out += is_tuple() ? ')' : ']';
  } else if (is_map()) {
    out += '{';
    bool first = true;
    for (const auto& [key, value] : map().members) {
      if (!first) out += ", ";
      first = false;
      key.repr_to(out);
      out += ": ";
      value.repr_to(out);
    }
    out += '}';
  } else if (is_function()) {
    out += format("<function {}>", function().name);
  } else {
    out += "<Namespace>";  // its members may lead back to it
  }
}

bool operator==(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.data_.index() != b.data_.index()) return false;
  if (a.is_string()) return a.string() == b.string();
  if (a.is_list()) return a.is_tuple() == b.is_tuple() && a.items() == b.items();
  if (a.is_map()) {
    if (a.map().members.size() != b.map().members.size()) return false;
    return std::all_of(a.map().members.begin(), a.map().members.end(), [&](const auto& member) {
      const Value* other = b.map().find(member.first);
      return other != nullptr && *other == member.second;
    });
  }
  if (a.is_namespace()) return &a.name_space() == &b.name_space();
  if (a.is_function()) return &a.function() == &b.function();
  return true;  // undefined, none
}

Result<int> compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) {
      return a.integer() < b.integer() ? -1 : a.integer() > b.integer() ? 1 : 0;
    }
    return a.number() < b.number() ? -1 : a.number() > b.number() ? 1 : 0;
  }
  if (a.is_string() && b.is_string()) {
    const int order = a.string().compare(b.string());  // UTF-8 sorts as its code points do
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.is_list() && b.is_list()) {
    const size_t n = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < n; ++i) {
      if (a.items()[i] == b.items()[i]) continue;
      return compare(a.items()[i], b.items()[i]);
    }
    return a.items().size() < b.items().size() ? -1 : a.items().size() > b.items().size() ? 1 : 0;
  }
  return errorf(Code::kInvalidArgument, "values of type {} and {} have no order", a.type_name(),
                b.type_name());
}

Result<std::string> to_json(const Value& value, const JsonStyle& style, int64_t limit) {
  JsonWriter writer(style, limit);
  TRY(writer.write(value, 0));
  return std::move(writer.out);
}

std::string float_repr(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  std::string text = format("{}", v);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

int64_t code_point_count(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

size_t code_point_offset(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) continue;
    if (index-- == 0) break;
  }
  return at;
}

}  // namespace towline::engine::jinja
