// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/characters.hpp"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "base/utf8.hpp"

namespace towline::engine {
namespace {

bool is_word(char32_t c) {
  if (c == '_') return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;
}

// Begin of the valid sequence that ends at text[end], or end if there is none.
size_t sequence_before(std::string_view text, size_t end) {
  for (size_t n = 1; n <= 4 && n <= end; ++n) {
    if (utf8_length(text.substr(0, end), end - n) == n) return end - n;
  }
  return end;
}

template <class Map>
std::string map_code_points(std::string_view text, Map&& map) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    if (n == 0) {
      out += text[i++];
      continue;
    }
    map(out, utf8_code_point(text, i, n));
    i += n;
  }
  return out;
}

}  // namespace

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

std::string_view trimmed_left(std::string_view text) {
  while (!text.empty()) {
    const size_t n = utf8_length(text, 0);
    if (n == 0 || !is_white_space(utf8_code_point(text, 0, n))) break;
    text.remove_prefix(n);
  }
  return text;
}

std::string_view trimmed_right(std::string_view text) {
  while (!text.empty()) {
    const size_t at = sequence_before(text, text.size());
    const size_t n = text.size() - at;
    if (n == 0 || !is_white_space(utf8_code_point(text, at, n))) break;
    text.remove_suffix(n);
  }
  return text;
}

bool is_word_before(std::string_view text, size_t at) {
  const size_t begin = sequence_before(text, at);
  return begin < at && is_word(utf8_code_point(text, begin, at - begin));
}

bool is_word_after(std::string_view text, size_t at) {
  const size_t n = at < text.size() ? utf8_length(text, at) : 0;
  return n > 0 && is_word(utf8_code_point(text, at, n));
}

std::string normalized(std::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE
                                                                   : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_valid_run(text, i);
    utf8proc_uint8_t* mapped = nullptr;
    const utf8proc_ssize_t length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                     static_cast<utf8proc_ssize_t>(n), &mapped,
                     static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
    if (length >= 0) {
      out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
    } else {
      out += text.substr(i, n);  // out of memory inside the library: better as it was than lost
    }
    if ((i += n) < text.size()) out += text[i++];
  }
  return out;
}

std::string lower_case(std::string_view text) {
  return map_code_points(text, [](std::string& out, char32_t c) {
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  });
}

std::string without_accents(std::string_view text) {
  return map_code_points(text, [](std::string& out, char32_t c) {
    if (utf8proc_category(static_cast<utf8proc_int32_t>(c)) != UTF8PROC_CATEGORY_MN) {
      append_utf8(out, c);
    }
  });
}

}  // namespace towline::engine
