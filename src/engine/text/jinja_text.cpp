// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_text.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/utf8.hpp"
#include "engine/text/characters.hpp"

namespace towline::engine::jinja {
namespace {

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}
bool is_letter(char32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_LU && category(c) <= UTF8PROC_CATEGORY_LO;
}
bool is_cased(char32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_LU && category(c) <= UTF8PROC_CATEGORY_LT;
}
bool is_number(char32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_ND && category(c) <= UTF8PROC_CATEGORY_NO;
}
char32_t upper(char32_t c) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

// visit(c) for each code point, U+FFFD for what is none; ends when it returns false.
template <class Visit>
void each_code_point(std::string_view text, Visit&& visit) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    if (!visit(n > 0 ? utf8_code_point(text, i, n) : U'\xfffd')) return;
    i += std::max<size_t>(n, 1);
  }
}

// map(c, previous) for each code point; previous is 0 at the start.
template <class Function>
std::string mapped(std::string_view text, Function&& map) {
  std::string out;
  out.reserve(text.size());
  char32_t previous = 0;
  each_code_point(text, [&](char32_t c) {
    append_utf8(out, map(c, previous));
    previous = c;
    return true;
  });
  return out;
}

template <class Predicate>
bool all(std::string_view text, Predicate&& predicate) {
  bool holds = !text.empty();
  each_code_point(text, [&](char32_t c) { return holds = predicate(c); });
  return holds;
}

// The code point that ends before text[end] > 0, and where it begins.
std::pair<char32_t, size_t> code_point_before(std::string_view text, size_t end) {
  for (size_t n = 1; n <= 4 && n <= end; ++n) {
    if (utf8_length(text.substr(0, end), end - n) == n) {
      return {utf8_code_point(text, end - n, n), end - n};
    }
  }
  return {U'\xfffd', end - 1};
}

}  // namespace

std::string upper_text(std::string_view text) {
  return mapped(text, [](char32_t c, char32_t) { return upper(c); });
}
std::string lower_text(std::string_view text) {
  return mapped(text, [](char32_t c, char32_t) { return lower(c); });
}
std::string title_text(std::string_view text) {
  return mapped(text, [](char32_t c, char32_t before) {
    return is_cased(before) ? lower(c) : upper(c);
  });
}
std::string words_text(std::string_view text) {
  return mapped(text, [](char32_t c, char32_t before) {
    const bool begins = before == 0 || is_white_space(before) ||
                        (before < 0x80 && std::string_view("-([{<").find(static_cast<char>(
                                              before)) != std::string_view::npos);
    return begins ? upper(c) : lower(c);
  });
}
std::string capital_text(std::string_view text) {
  return mapped(text,
                [](char32_t c, char32_t before) { return before == 0 ? upper(c) : lower(c); });
}
std::string swapped_text(std::string_view text) {
  return mapped(text, [](char32_t c, char32_t) {
    return category(c) == UTF8PROC_CATEGORY_LU ? lower(c) : upper(c);
  });
}

std::string escaped_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

bool all_digits(std::string_view text) {
  return all(text, [](char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; });
}
bool all_letters(std::string_view text) { return all(text, is_letter); }
bool all_alphanumeric(std::string_view text) {
  return all(text, [](char32_t c) { return is_letter(c) || is_number(c); });
}
bool all_space(std::string_view text) { return all(text, is_white_space); }
bool is_upper_text(std::string_view text) {
  return upper_text(text) == text && lower_text(text) != text;
}
bool is_lower_text(std::string_view text) {
  return lower_text(text) == text && upper_text(text) != text;
}

size_t find_text(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (what.empty()) return from;
  if (text.size() - from < what.size()) return std::string_view::npos;
  // Not find(): it tries every place, and two long texts of one letter would take for ever. In
  // windows that double, because sanitizers check all that memmem could look at, each time.
  for (size_t window = what.size() + 256;; window *= 2) {
    const size_t n = std::min(window, text.size() - from);
    const void* at = memmem(text.data() + from, n, what.data(), what.size());
    if (at != nullptr) return static_cast<size_t>(static_cast<const char*>(at) - text.data());
    if (from + n == text.size()) return std::string_view::npos;
    from += n - (what.size() - 1);
  }
}

size_t rfind_text(std::string_view text, std::string_view what) {
  const std::string backwards(text.rbegin(), text.rend());
  const size_t at = find_text(backwards, std::string(what.rbegin(), what.rend()), 0);
  return at == std::string_view::npos ? at : text.size() - at - what.size();
}

std::string stripped_of(std::string_view text, std::string_view chars, bool left, bool right) {
  std::vector<char32_t> set;
  each_code_point(chars, [&](char32_t c) { return set.push_back(c), true; });
  std::sort(set.begin(), set.end());
  const auto in_set = [&](char32_t c) { return std::binary_search(set.begin(), set.end(), c); };
  size_t begin = 0;
  while (left && begin < text.size()) {
    const size_t n = utf8_length(text, begin);
    if (!in_set(n > 0 ? utf8_code_point(text, begin, n) : U'\xfffd')) break;
    begin += std::max<size_t>(n, 1);
  }
  size_t end = text.size();
  while (right && end > begin) {
    const auto [c, before] = code_point_before(text, end);
    if (!in_set(c)) break;
    end = std::max(before, begin);
  }
  return std::string(text.substr(begin, end - begin));
}

Result<void> add_part(Interpreter& in, std::vector<Value>& parts, std::string_view part) {
  constexpr size_t kHeld = 64;  // the string object and what counts its owners
  TRY(in.charge(1, static_cast<int64_t>(sizeof(Value) + kHeld + part.size())));
  parts.emplace_back(part);
  return {};
}

Result<std::vector<Value>> split_text(Interpreter& in, std::string_view text,
                                      std::string_view separator, int64_t limit, bool from_right) {
  TRY(in.charge_scan(text.size()));
  // From the right: the same from the left, of both backwards; then the cuts are turned around.
  std::string backwards, mark(separator);
  if (from_right) {
    backwards.assign(text.rbegin(), text.rend());
    std::reverse(mark.begin(), mark.end());
  }
  const std::string_view source = from_right ? std::string_view(backwards) : text;
  std::vector<Value> out;
  size_t begin = 0;
  const auto add = [&](size_t end) {
    return add_part(in, out, from_right ? text.substr(text.size() - end, end - begin)
                                        : text.substr(begin, end - begin));
  };
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t at = find_text(source, mark, begin);
    if (at == std::string_view::npos) break;
    TRY(add(at));
    begin = at + separator.size();
  }
  TRY(add(source.size()));
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

Result<std::vector<Value>> split_white_space(Interpreter& in, std::string_view text, int64_t limit,
                                             bool from_right) {
  TRY(in.charge_characters(text.size()));
  std::vector<Value> out;
  for (;;) {
    text = from_right ? trimmed_right(text) : trimmed_left(text);
    if (text.empty()) break;
    size_t cut = from_right ? 0 : text.size();  // where the white space after (before) a word is
    if (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
      cut = from_right ? text.size() : 0;
      while (from_right && cut > 0) {
        const auto [c, before] = code_point_before(text, cut);
        if (is_white_space(c)) break;
        cut = before;
      }
      while (!from_right && cut < text.size()) {
        const size_t n = utf8_length(text, cut);
        if (n > 0 && is_white_space(utf8_code_point(text, cut, n))) break;
        cut += std::max<size_t>(n, 1);
      }
    }
    TRY(add_part(in, out, from_right ? text.substr(cut) : text.substr(0, cut)));
    text = from_right ? text.substr(0, cut) : text.substr(cut);
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

Result<Value> replace_text(Interpreter& in, std::string_view text, std::string_view from,
                           std::string_view to, int64_t count) {
  std::string out;
  TRY(in.charge_scan(text.size()));
  TRY(in.charge(1, static_cast<int64_t>(text.size())));
  if (from.empty()) {  // Python puts `to` around every character
    for (size_t i = 0; i <= text.size();) {
      TRY(in.charge(1, count != 0 ? static_cast<int64_t>(to.size()) : 0));
      if (count != 0) out += to;
      if (count > 0) --count;
      if (i == text.size()) break;
      const size_t n = std::max<size_t>(1, utf8_length(text, i));
      out += text.substr(i, n);
      i += n;
    }
    return Value(std::move(out));
  }
  size_t begin = 0;
  while (count != 0) {
    const size_t at = find_text(text, from, begin);
    if (at == std::string_view::npos) break;
    TRY(in.charge(1, static_cast<int64_t>(to.size())));
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
    if (count > 0) --count;
  }
  out += text.substr(begin);
  return Value(std::move(out));
}

Result<Value> pad_text(Interpreter& in, std::string_view text, int64_t width,
                       std::string_view fill, int side) {
  TRY(in.charge_scan(text.size()));
  const int64_t missing = std::clamp<int64_t>(width - code_point_count(text), 0, int64_t{1} << 31);
  TRY(in.charge(1 + missing / 8,
                missing * static_cast<int64_t>(fill.size()) + static_cast<int64_t>(text.size())));
  const int64_t before = side > 0 ? missing : side < 0 ? 0 : missing / 2;
  std::string out;
  for (int64_t i = 0; i < before; ++i) out += fill;
  out += text;
  for (int64_t i = before; i < missing; ++i) out += fill;
  return Value(std::move(out));
}

}  // namespace towline::engine::jinja
