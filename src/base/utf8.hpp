// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// UTF-8 as the Unicode standard defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
// Everything here is a pure function over bytes and safe for any input.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace towline {

// Length in bytes of the valid sequence that starts at text[i], or 0 if none does. i < text.size().
inline size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char b = byte(i);
  if (b < 0x80) return 1;
  const size_t n = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2;
  if (b < 0xc2 || b > 0xf4 || i + n > text.size()) return 0;
  for (size_t k = 1; k < n; ++k) {
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
  }
  const unsigned char c = byte(i + 1);
  if ((b == 0xe0 && c < 0xa0) || (b == 0xed && c > 0x9f)) return 0;  // overlong, surrogate
  if ((b == 0xf0 && c < 0x90) || (b == 0xf4 && c > 0x8f)) return 0;  // overlong, > U+10FFFF
  return n;
}

// The code point of the valid sequence of n = utf8_length(text, i) > 0 bytes at text[i].
inline char32_t utf8_code_point(std::string_view text, size_t i, size_t n) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  if (n == 1) return byte(i);
  char32_t c = byte(i) & (0x7fu >> n);
  for (size_t k = 1; k < n; ++k) c = (c << 6) | (byte(i + k) & 0x3fu);
  return c;
}

// Whether `tail` (1 to 3 bytes) is the beginning of a sequence that more bytes could make valid.
inline bool utf8_could_continue(std::string_view tail) {
  if (tail.empty() || tail.size() > 3) return false;
  const auto b = static_cast<unsigned char>(tail[0]);
  const size_t n = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc2 ? 2 : 1;
  if (b > 0xf4 || tail.size() >= n) return false;
  // E0 and F0 need a high second byte, ED and F4 a low one; any continuation byte does for the rest.
  std::string whole(tail);
  if (whole.size() == 1) whole += b == 0xe0 || b == 0xf0 ? '\xbf' : '\x80';
  if (b == 0xf0 && tail.size() == 1) whole[1] = '\x90';
  whole.resize(n, '\x80');
  return utf8_length(whole, 0) == n;
}

// Appends the code point c <= U+10FFFF.
inline void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t v) { out += static_cast<char>(static_cast<unsigned char>(v)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | (c >> 6)), put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | (c >> 12)), put(0x80 | ((c >> 6) & 0x3f)), put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | (c >> 18)), put(0x80 | ((c >> 12) & 0x3f)), put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

// Length of the valid UTF-8 text that starts at text[i] (0 if the byte there is invalid).
inline size_t utf8_valid_run(std::string_view text, size_t i) {
  const size_t begin = i;
  while (i < text.size()) {
    const size_t n = utf8_length(text, i);
    if (n == 0) break;
    i += n;
  }
  return i - begin;
}

// `text` with every invalid byte replaced by U+FFFD.
inline std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_valid_run(text, i);
    out += text.substr(i, n);
    if ((i += n) < text.size()) {
      out += "\xef\xbf\xbd";
      ++i;
    }
  }
  return out;
}

}  // namespace towline
