// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_text.hpp"

#include <utf8proc.h>

#include <algorithm>

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

std::vector<char32_t> code_points(std::string_view text) {
  std::vector<char32_t> out;
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    out.push_back(n > 0 ? utf8_code_point(text, i, n) : 0xfffd);
    i += std::max<size_t>(n, 1);
  }
  return out;
}

// map(c, previous) for each code point; previous is 0 at the start.
template <class Function>
std::string mapped(std::string_view text, Function&& map) {
  std::string out;
  char32_t previous = 0;
  for (const char32_t c : code_points(text)) {
    append_utf8(out, map(c, previous));
    previous = c;
  }
  return out;
}

template <class Predicate>
bool all(std::string_view text, Predicate&& predicate) {
  const std::vector<char32_t> points = code_points(text);
  return !points.empty() && std::all_of(points.begin(), points.end(), predicate);
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

std::string stripped_of(std::string_view text, std::string_view chars, bool left, bool right) {
  const std::vector<char32_t> points = code_points(text);
  std::vector<char32_t> set = code_points(chars);
  std::sort(set.begin(), set.end());
  const auto in_set = [&](char32_t c) { return std::binary_search(set.begin(), set.end(), c); };
  size_t begin = 0;
  size_t end = points.size();
  while (left && begin < end && in_set(points[begin])) ++begin;
  while (right && end > begin && in_set(points[end - 1])) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) append_utf8(out, points[i]);
  return out;
}

std::vector<std::string> split_text(std::string_view text, std::string_view separator,
                                    int64_t limit, bool from_right) {
  std::vector<std::string> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    if (from_right) {
      out.emplace_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      out.emplace_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
  }
  out.emplace_back(text);
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> split_white_space(std::string_view text, int64_t limit, bool from_right) {
  std::vector<std::string> out;
  const std::vector<char32_t> points = code_points(text);
  const auto take = [&](size_t begin, size_t end) {
    std::string part;
    for (size_t i = begin; i < end; ++i) append_utf8(part, points[i]);
    out.push_back(std::move(part));
  };
  size_t begin = 0;
  size_t end = points.size();
  for (;;) {
    while (begin < end && is_white_space(points[begin])) ++begin;
    while (end > begin && is_white_space(points[end - 1])) --end;
    if (begin == end) break;
    if (limit >= 0 && static_cast<int64_t>(out.size()) >= limit) {
      take(begin, from_right ? end : points.size());
      break;
    }
    size_t i = from_right ? end : begin;
    if (from_right) {
      while (i > begin && !is_white_space(points[i - 1])) --i;
      take(i, end);
      end = i;
    } else {
      while (i < end && !is_white_space(points[i])) ++i;
      take(begin, i);
      begin = i;
    }
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

Result<Value> replace_text(Interpreter& in, std::string_view text, std::string_view from,
                           std::string_view to, int64_t count) {
  std::string out;
  TRY(in.charge(1, static_cast<int64_t>(text.size())));
  if (from.empty()) {  // Python puts `to` around every character
    for (size_t i = 0; i <= text.size();) {
      if (count != 0) out += to;
      if (count > 0) --count;
      TRY(in.charge(0, static_cast<int64_t>(to.size())));
      if (i == text.size()) break;
      const size_t n = std::max<size_t>(1, utf8_length(text, i));
      out += text.substr(i, n);
      i += n;
    }
    return Value(std::move(out));
  }
  while (count != 0) {
    const size_t at = text.find(from);
    if (at == std::string_view::npos) break;
    TRY(in.charge(0, static_cast<int64_t>(to.size())));
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
    if (count > 0) --count;
  }
  out += text;
  return Value(std::move(out));
}

Result<Value> pad_text(Interpreter& in, std::string_view text, int64_t width,
                       std::string_view fill, int side) {
  const int64_t missing = std::clamp<int64_t>(width - code_point_count(text), 0, int64_t{1} << 31);
  TRY(in.charge(1,
                missing * static_cast<int64_t>(fill.size()) + static_cast<int64_t>(text.size())));
  const int64_t before = side > 0 ? missing : side < 0 ? 0 : missing / 2;
  std::string out;
  for (int64_t i = 0; i < before; ++i) out += fill;
  out += text;
  for (int64_t i = before; i < missing; ++i) out += fill;
  return Value(std::move(out));
}

}  // namespace towline::engine::jinja
