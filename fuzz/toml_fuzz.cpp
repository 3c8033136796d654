// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as TOML: an error, or a tree whose strings are UTF-8 and that prints as JSON which
// reads back as printed.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/json.hpp"
#include "base/utf8.hpp"

namespace {

using namespace towline;

void check_text(std::string_view text) {
  if (utf8_valid_run(text, 0) != text.size()) std::abort();
}

void check_strings(const Json& node) {
  check_text(node.as_string());
  for (const Json& item : node.items()) check_strings(item);
  for (const auto& [key, value] : node.members()) {
    check_text(key);
    check_strings(value);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tree = parse_toml({reinterpret_cast<const char*>(data), size}, "input");
  if (!tree) {
    if (tree.error().message().empty()) std::abort();
    return 0;
  }
  check_strings(*tree);
  const std::string text = tree->dump();
  const auto again = parse_json(text, "dump");
  if (!again || again->dump() != text) std::abort();
  return 0;
}
