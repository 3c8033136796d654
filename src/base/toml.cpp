// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "base/fmt.hpp"
#include "base/json.hpp"

namespace towline {
namespace {

Json convert(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    // toml++ keeps tables sorted by key; give members back in the order of their lines.
    std::vector<std::pair<toml::source_position, Json::Member>> rows;
    for (const auto& [key, value] : *table) {
      rows.push_back({key.source().begin, {std::string(key.str()), convert(value)}});
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    Json out = Json::object();
    for (auto& row : rows) out.set(row.second.first, std::move(row.second.second));
    return out;
  }
  if (const auto* array = node.as_array()) {
    Json out = Json::array();
    for (const toml::node& item : *array) out.push(convert(item));
    return out;
  }
  if (const auto* v = node.as_string()) return Json(v->get());
  if (const auto* v = node.as_integer()) return Json(v->get());
  if (const auto* v = node.as_floating_point()) return Json(v->get());
  if (const auto* v = node.as_boolean()) return Json(v->get());
  std::ostringstream text;  // dates and times: as written
  node.visit([&](const auto& value) { text << value; });
  return Json(text.str());
}

// The first byte that is not ASCII and stands outside strings and comments, where TOML 1.0 has no
// place for it; npos if there is none. toml++ 3.3 runs into undefined behaviour on such letters
// when it asks whether they are white space (its tables are wrong for U+00A1 to U+0499), so they
// must not reach it. Follows the quoting rules of TOML for text that is valid up to that byte.
size_t stray_letter(std::string_view text) {
  constexpr std::string_view kBeforeString = "\n=,[{";  // a quote elsewhere is a fault of the text
  size_t at = 0;
  char before = '\n';  // the last character that is not a blank
  while (at < text.size()) {
    const char c = text[at];
    if (static_cast<unsigned char>(c) >= 0x80) return at;
    const bool opens = kBeforeString.find(before) != std::string_view::npos;
    const bool bracket = c == '[' || c == '{';  // opens a list or a table only there itself
    if (c != ' ' && c != '\t' && c != '\r') before = bracket && !opens ? 'x' : c;
    if (c == '#') {
      at = std::min(text.find('\n', at), text.size());
    } else if (opens && (c == '"' || c == '\'')) {
      const std::string_view triple = c == '"' ? "\"\"\"" : "\'\'\'";
      const bool multi = text.substr(at, 3) == triple;
      at += multi ? 3 : 1;
      while (at < text.size() && (multi || text[at] != '\n')) {
        if (c == '"' && text[at] == '\\') {
          at += 2;
        } else if (text[at] == c && (!multi || text.substr(at, 3) == triple)) {
          at += multi ? 3 : 1;
          // A multi-line string may end in up to two quotes of its own.
          for (int extra = 0; multi && extra < 2 && at < text.size() && text[at] == c; ++extra)
            ++at;
          break;
        } else {
          ++at;
        }
      }
    } else {
      ++at;
    }
  }
  return std::string_view::npos;
}

}  // namespace

Result<Json> parse_toml(std::string_view text, std::string_view source) {
  std::string_view body = text;
  if (body.starts_with("\xEF\xBB\xBF")) body.remove_prefix(3);  // a byte order mark is no letter
  if (const size_t stray = stray_letter(body); stray != std::string_view::npos) {
    return errorf(
        Code::kInvalidArgument,
        "{}: not valid TOML at line {}: a letter that is not ASCII outside quotes; put it "
        "in quotes",
        source, 1 + std::count(body.begin(), body.begin() + stray, '\n'));
  }
  const toml::parse_result parsed = toml::parse(text, source);
  if (!parsed) {
    return errorf(Code::kInvalidArgument, "{}: not valid TOML at line {}: {}", source,
                  parsed.error().source().begin.line, parsed.error().description());
  }
  return convert(parsed.table());
}

}  // namespace towline
