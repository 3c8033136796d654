// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Text functions that methods and filters of the template language share. Upper and lower case are
// the simple mappings, one code point to one ("ß" stays).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_interpreter.hpp"

namespace towline::engine::jinja {

std::string upper_text(std::string_view text);
std::string lower_text(std::string_view text);
std::string title_text(std::string_view text);     // str.title(): letters after non-letters
std::string words_text(std::string_view text);     // Jinja's title: after spaces and "-([{<"
std::string capital_text(std::string_view text);
std::string swapped_text(std::string_view text);

std::string escaped_text(std::string_view text);   // & < > " ' as HTML entities
inline constexpr size_t kEscapedGrowth = 5;        // it is at most so many times longer

// Where `what` begins in `text`, at or after `from`; or where it begins last. npos: nowhere. The
// time grows with both lengths, not with their product.
size_t find_text(std::string_view text, std::string_view what, size_t from);
size_t rfind_text(std::string_view text, std::string_view what);

// Python's str.is...(): false for an empty text.
bool all_digits(std::string_view text);
bool all_letters(std::string_view text);
bool all_alphanumeric(std::string_view text);
bool all_space(std::string_view text);
bool is_upper_text(std::string_view text);
bool is_lower_text(std::string_view text);

// `text` without the characters of `chars` at its ends.
std::string stripped_of(std::string_view text, std::string_view chars, bool left, bool right);

// At most `limit` cuts (< 0: any number), from the left or the right. Charged.
Result<std::vector<Value>> split_text(Interpreter& in, std::string_view text,
                                      std::string_view separator, int64_t limit, bool from_right);
Result<std::vector<Value>> split_white_space(Interpreter& in, std::string_view text, int64_t limit,
                                             bool from_right);
// A part of a text as an item of a list, charged.
Result<void> add_part(Interpreter& in, std::vector<Value>& parts, std::string_view part);

// At most `count` replacements (< 0: all). Charged.
Result<Value> replace_text(Interpreter& in, std::string_view text, std::string_view from,
                           std::string_view to, int64_t count);

// Padded to `width` code points: side -1 text first, 0 in the middle, 1 text last. Charged.
Result<Value> pad_text(Interpreter& in, std::string_view text, int64_t width,
                       std::string_view fill, int side);

}  // namespace towline::engine::jinja
