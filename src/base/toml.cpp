// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#define TOML_EXCEPTIONS 0
#include <algorithm>
#include <sstream>
#include <toml++/toml.h>

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

}  // namespace

Result<Json> parse_toml(std::string_view text, std::string_view source) {
  const toml::parse_result parsed = toml::parse(text, source);
  if (!parsed) {
    return errorf(Code::kInvalidArgument, "{}: not valid TOML at line {}: {}", source,
                  parsed.error().source().begin.line, parsed.error().description());
  }
  return convert(parsed.table());
}

}  // namespace towline
