// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The filters: Jinja's own, with Hugging Face's tojson. Filters over sequences are in
// jinja_sequence_filters.cpp.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/utf8.hpp"
#include "engine/text/characters.hpp"
#include "engine/text/jinja_filter_table.hpp"
#include "engine/text/jinja_text.hpp"

namespace towline::engine::jinja {
namespace {

Result<Value> tojson(Interpreter& in, const Value& v, const Arguments& a) {
  JsonStyle style;
  style.ensure_ascii = a.get(0, "ensure_ascii", Value(false)).truthy();
  const Value indent = a.get(1, "indent", Value(None{}));
  if (indent.is_int()) {
    style.indent = static_cast<int>(std::clamp<int64_t>(indent.integer(), 0, 64));
  }
  const Value separators = a.get(2, "separators", Value(None{}));
  if (separators.is_list() && separators.items().size() == 2) {
    ASSIGN_OR_RETURN(style.item_separator, in.show(separators.items()[0]));
    ASSIGN_OR_RETURN(style.key_separator, in.show(separators.items()[1]));
  }
  style.sort_keys = a.get(3, "sort_keys", Value(false)).truthy();
  TRY(in.charge(v.weight(), v.weight() * 32));
  if (v.is_undefined()) return Interpreter::fail("tojson: '{}' is undefined", v.undefined_name());
  ASSIGN_OR_RETURN(std::string text, to_json(v, style, in.memory_left()));
  return in.text(std::move(text));
}

Result<Value> default_value(Interpreter&, const Value& v, const Arguments& a) {
  const bool also_false = a.get(1, "boolean", Value(false)).truthy();
  const bool use = v.is_undefined() || (also_false && !v.truthy());
  return use ? a.get(0, "default_value", Value("")) : v;
}

Result<Value> length(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_string()) {
    TRY(in.charge_scan(v.string().size()));
    return Value(code_point_count(v.string()));
  }
  if (v.is_list()) return Value(v.items().size());
  if (v.is_map()) return Value(v.map().members.size());
  if (v.is_undefined()) return Value(0);
  return Interpreter::fail("a {} has no length", v.type_name());
}

template <std::string (*change)(std::string_view)>
Result<Value> changed(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  TRY(in.charge_characters(text.size()));
  return in.text(change(text));
}

Result<Value> string(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(std::string text, in.show(v));
  return Value(std::move(text));
}

Result<Value> trim(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  const Value chars = a.get(0, "chars", Value(None{}));
  TRY(in.charge_scan(text.size()));
  if (chars.is_string()) {
    TRY(in.charge_characters(chars.string().size()));
    return in.text(stripped_of(text, chars.string(), true, true));
  }
  return in.text(std::string(trimmed_left(trimmed_right(text))));
}

Result<Value> replace(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  const Value from = a.get(0, "old", Value());
  const Value to = a.get(1, "new", Value());
  const Value count = a.get(2, "count", Value(None{}));
  if (!from.is_string() || !to.is_string()) return Interpreter::fail("replace: two strings wanted");
  return replace_text(in, text, from.string(), to.string(), count.is_int() ? count.integer() : -1);
}

Result<Value> indent(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  const Value width = a.get(0, "width", Value(4));
  const bool first = a.get(1, "first", Value(false)).truthy();
  const bool blank = a.get(2, "blank", Value(false)).truthy();
  const std::string pad =
      width.is_string() ? width.string()
      : width.is_int()
          ? std::string(static_cast<size_t>(std::clamp<int64_t>(width.integer(), 0, 1000)), ' ')
          : "    ";
  std::string out;
  bool line_begin = first;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (line_begin && (blank || end > at)) {
      TRY(in.charge(1, static_cast<int64_t>(pad.size())));
      out += pad;
    }
    out.append(text, at, end - at);
    if (end == text.size()) break;
    out += '\n';
    at = end + 1;
    line_begin = true;
  }
  return in.text(std::move(out));
}

Result<Value> safe(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(std::string text, in.show(v));
  return Value::markup(std::move(text));
}

Result<Value> escape(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  TRY(in.charge(static_cast<int64_t>(text.size() / 16),
                static_cast<int64_t>(kEscapedGrowth * text.size())));
  return v.is_markup() ? v : Value::markup(escaped_text(text));
}

Result<Value> center(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  const Value width = a.get(0, "width", Value(80));
  return pad_text(in, text, width.is_int() ? width.integer() : 80, " ", 0);
}

Result<Value> truncate(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  const Value length = a.get(0, "length", Value(255));
  const bool kill = a.get(1, "killwords", Value(false)).truthy();
  ASSIGN_OR_RETURN(const std::string end, in.show(a.get(2, "end", Value("..."))));
  const Value leeway = a.get(3, "leeway", Value(5));
  if (!length.is_int() || !leeway.is_int()) {
    return Interpreter::fail("truncate: a length is wanted");
  }
  TRY(in.charge_scan(text.size() + end.size()));
  const int64_t keep = length.integer() - code_point_count(end);
  if (keep < 0) return Interpreter::fail("truncate: the length is below that of the end mark");
  if (code_point_count(text) <= length.integer() + leeway.integer()) return v;
  std::string cut = text.substr(0, code_point_offset(text, keep));
  if (!kill) cut = cut.substr(0, cut.rfind(' '));
  return in.text(cut + end);
}

Result<Value> word_count(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  TRY(in.charge_characters(2 * text.size()));
  int64_t words = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    words += is_word_after(text, i) && !is_word_before(text, i);
  }
  return Value(words);
}

Result<Value> url_encode(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::string text, in.show(v));
  TRY(in.charge(1 + static_cast<int64_t>(text.size() / 2)));
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    if (plain) {
      out += c;
    } else {
      out += format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return in.text(std::move(out));
}

// --- numbers -------------------------------------------------------------------------------------

Result<Value> to_int(Interpreter& in, const Value& v, const Arguments& a) {
  const Value fallback = a.get(0, "default", Value(0));
  const Value base = a.get(1, "base", Value(10));
  if (v.is_undefined()) return Interpreter::fail("'{}' is undefined", v.undefined_name());
  if (v.is_int() || v.is_bool()) return Value(v.integer());
  double number = 0;
  if (v.is_float()) {
    number = v.number();
  } else if (v.is_string()) {
    TRY(in.charge_characters(v.string().size()));
    const std::string text(trimmed_left(trimmed_right(v.string())));
    int64_t whole = 0;
    const char* first = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* last = text.data() + text.size();
    const int radix = base.is_int() && base.integer() >= 2 && base.integer() <= 36
                          ? static_cast<int>(base.integer())
                          : 10;
    const auto [end, error] = std::from_chars(first, last, whole, radix);
    if (error == std::errc() && end == last) return Value(whole);
    char* stop = nullptr;
    number = std::strtod(text.c_str(), &stop);
    if (text.empty() || *stop != '\0') return fallback;
  } else {
    return fallback;
  }
  if (!std::isfinite(number) || std::abs(number) >= 9.2e18) return fallback;
  return Value(static_cast<int64_t>(number));
}

Result<Value> to_float(Interpreter& in, const Value& v, const Arguments& a) {
  if (v.is_undefined()) return Interpreter::fail("'{}' is undefined", v.undefined_name());
  if (v.is_number()) return Value(v.number());
  if (v.is_string()) {
    TRY(in.charge_characters(v.string().size()));
    const std::string text(trimmed_left(trimmed_right(v.string())));
    char* stop = nullptr;
    const double number = std::strtod(text.c_str(), &stop);
    if (!text.empty() && *stop == '\0') return Value(number);
  }
  return a.get(0, "default", Value(0.0));
}

Result<Value> absolute(Interpreter&, const Value& v, const Arguments&) {
  if (v.is_float()) return Value(std::abs(v.number()));
  if (!v.is_number() || v.integer() == INT64_MIN) {
    return Interpreter::fail("abs of a {}", v.type_name());
  }
  return Value(std::abs(v.integer()));
}

Result<Value> round(Interpreter&, const Value& v, const Arguments& a) {
  if (!v.is_number()) return Interpreter::fail("round of a {}", v.type_name());
  const Value precision = a.get(0, "precision", Value(0));
  const Value method = a.get(1, "method", Value("common"));
  const double scale =
      std::pow(10.0, precision.is_int() ? static_cast<double>(precision.integer()) : 0.0);
  const double scaled = v.number() * scale;
  if (method == Value("ceil")) return Value(std::ceil(scaled) / scale);
  if (method == Value("floor")) return Value(std::floor(scaled) / scale);
  return Value(std::nearbyint(scaled) / scale);  // half to even, as Python
}

constexpr int kMaxFormatWidth = 100;

// The largest number in a format's flags: its width or its precision.
int widest(std::string_view spec) {
  int most = 0;
  int number = 0;
  for (const char c : spec) {
    number = c >= '0' && c <= '9' ? std::min(number * 10 + (c - '0'), 1'000'000) : 0;
    most = std::max(most, number);
  }
  return most;
}

// "%s and %05.2f" % (a, b): s, r, d, i, x, X, f, e, g and %%.
Result<Value> percent_format(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_string()) return Interpreter::fail("format of a {}", v.type_name());
  const std::string& s = v.string();
  TRY(in.charge_characters(s.size()));
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '%') {
      out += s[i];
      continue;
    }
    const size_t end = s.find_first_not_of("-+ #0123456789.", i + 1);
    if (end == std::string::npos || end - i > 12) return Interpreter::fail("format: a bad '%'");
    const char kind = s[end];
    std::string spec = s.substr(i, end - i);
    i = end;
    if (kind == '%') {
      out += '%';
      continue;
    }
    if (next >= a.positional.size()) return Interpreter::fail("format: too few values");
    const Value& arg = a.positional[next++];
    TRY(in.charge(8));
    if (kind == 's' || kind == 'r') {
      ASSIGN_OR_RETURN(const std::string shown, in.show(arg));
      out += kind == 's' ? shown : arg.repr();
      continue;
    }
    if (!arg.is_number() || std::string_view("diuxXfFeEgG").find(kind) == std::string_view::npos) {
      return Interpreter::fail("format: '%{}' of a {}", kind, arg.type_name());
    }
    if (widest(spec) > kMaxFormatWidth) return Interpreter::fail("format: '{}' is too wide", spec);
    const bool whole = std::string_view("diuxX").find(kind) != std::string_view::npos;
    char buffer[512];
    if (whole) {
      const auto n = arg.is_float() ? static_cast<long long>(std::clamp(arg.number(), -9e18, 9e18))
                                    : static_cast<long long>(arg.integer());
      spec += "ll";
      spec += kind == 'u' ? 'd' : kind;
      std::snprintf(buffer, sizeof(buffer), spec.c_str(), n);
    } else {
      spec += kind;
      std::snprintf(buffer, sizeof(buffer), spec.c_str(), arg.number());
    }
    out += buffer;
  }
  return in.text(std::move(out));
}

Result<Value> attr(Interpreter& in, const Value& v, const Arguments& a) {
  const Value name = a.get(0, "name", Value());
  if (!name.is_string()) return Interpreter::fail("attr: a name is wanted");
  return in.attribute(v, name.string());
}

using Table = std::map<std::string_view, Filter>;

const Table& scalar_filters() {
  static const Table kTable = {
      {"tojson", tojson},
      {"default", default_value},
      {"d", default_value},
      {"length", length},
      {"count", length},
      {"upper", changed<upper_text>},
      {"lower", changed<lower_text>},
      {"title", changed<words_text>},
      {"capitalize", changed<capital_text>},
      {"string", string},
      {"safe", safe},
      {"trim", trim},
      {"replace", replace},
      {"indent", indent},
      {"escape", escape},
      {"e", escape},
      {"forceescape", escape},
      {"center", center},
      {"truncate", truncate},
      {"wordcount", word_count},
      {"urlencode", url_encode},
      {"int", to_int},
      {"float", to_float},
      {"abs", absolute},
      {"round", round},
      {"format", percent_format},
      {"attr", attr},
  };
  return kTable;
}

}  // namespace

Filter find_filter(std::string_view name) {
  const Table& table = scalar_filters();
  if (const auto at = table.find(name); at != table.end()) return at->second;
  return find_sequence_filter(name);
}

Result<Value> Interpreter::filter(std::string_view name, const Value& input,
                                  const Arguments& arguments) {
  TRY(charge(1));
  const Filter found = find_filter(name);
  if (found == nullptr) return fail("there is no filter '{}'", name);
  return found(*this, input, arguments);
}

}  // namespace towline::engine::jinja
