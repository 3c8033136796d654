// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/base64.hpp"

#include <cstdint>

#include "base/fmt.hpp"

namespace towline {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = bytes.size() - at < 3 ? bytes.size() - at : 3;
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) {
      bits = bits << 8 | (i < count ? static_cast<uint8_t>(bytes[at + i]) : 0u);
    }
    for (size_t i = 0; i < 4; ++i) {
      out += i <= count ? kAlphabet[bits >> (18 - 6 * i) & 63] : '=';
    }
  }
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return errorf(Code::kDataCorrupt, "base64 text of {} characters {}", text.size(), why);
  };
  if (text.size() % 4 != 0) return bad("is cut short");
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t at = 0; at < text.size(); at += 4) {
    const bool last = at + 4 == text.size();
    size_t count = 4;  // characters that are not padding
    while (last && count > 2 && text[at + count - 1] == '=') --count;
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) {
      const size_t digit = i < count ? kAlphabet.find(text[at + i]) : 0;
      if (digit == std::string_view::npos) {
        return bad("has a character that is none of its alphabet");
      }
      bits = bits << 6 | static_cast<uint32_t>(digit);
    }
    const uint32_t unused = count == 4 ? 0 : count == 3 ? 0xff : 0xffff;
    if ((bits & unused) != 0) return bad("ends with bits that belong to no byte");
    for (size_t i = 0; i + 1 < count; ++i) out += static_cast<char>(bits >> (16 - 8 * i) & 255);
  }
  return out;
}

}  // namespace towline
