// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/toml_text.hpp"

#include <array>
#include <charconv>

#include "base/json.hpp"

namespace towline::spec {

std::string toml_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);  // a JSON string is a TOML basic string
  return out;
}

std::string toml_number(double value) {
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";  // a float, not an integer
  return text;
}

}  // namespace towline::spec
