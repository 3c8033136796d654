// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What tokenizers need to know about characters. White space is Unicode's White_Space property
// (not PCRE2's \s, which also takes U+180E).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace towline::engine {

bool is_white_space(char32_t c);

// Without the white space at one end. Invalid UTF-8 is not white space.
std::string_view trimmed_left(std::string_view text);
std::string_view trimmed_right(std::string_view text);

// Whether a letter, digit, mark or underscore ends before / begins at byte `at`.
bool is_word_before(std::string_view text, size_t at);
bool is_word_after(std::string_view text, size_t at);

// Unicode normalisation of valid UTF-8 runs; invalid bytes stay as they are.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalized(std::string_view text, NormalForm form);
std::string lower_case(std::string_view text);     // simple mapping, one code point to one
std::string without_accents(std::string_view text);  // drops nonspacing marks (Mn)

}  // namespace towline::engine
