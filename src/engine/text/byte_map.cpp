// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// GPT-2 writes each byte as a printable character, so that vocabularies can be plain text: bytes
// that are printable Latin-1 stand for themselves, the 68 others become
// U+0100, U+0101, ... in order.
#include <array>

#include "base/utf8.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr std::array<char16_t, 256> kByteToChar = [] {
  std::array<char16_t, 256> map{};
  char16_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    map[b] = stands_for_itself(b) ? static_cast<char16_t>(b) : next++;
  }
  return map;
}();

constexpr std::array<int16_t, 0x144> kCharToByte = [] {
  std::array<int16_t, 0x144> map{};
  for (int16_t& v : map) v = -1;
  for (int16_t b = 0; b < 256; ++b) map[kByteToChar[static_cast<size_t>(b)]] = b;
  return map;
}();

}  // namespace

std::string byte_map(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) append_utf8(text, kByteToChar[static_cast<unsigned char>(c)]);
  return text;
}

bool byte_unmap(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    if (n == 0) return false;
    const char32_t c = utf8_code_point(text, i, n);
    if (c >= kCharToByte.size() || kCharToByte[c] < 0) return false;
    bytes += static_cast<char>(static_cast<unsigned char>(kCharToByte[c]));
    i += n;
  }
  return true;
}

}  // namespace towline::engine
