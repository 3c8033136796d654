// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the character-based models share: byte tokens and the independence of words.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/vocabulary.hpp"

namespace towline::engine {

// U+2581, which SentencePiece vocabularies write for a space.
inline constexpr std::string_view kMetaspace = "\xe2\x96\x81";

// The value of a token written "<0xXX>" (upper or lower case), or -1.
int byte_token_value(std::string_view text);

// byte -> id of its <0xXX> token, -1 where the vocabulary has none.
std::array<int32_t, 256> find_byte_tokens(const Vocabulary& vocabulary);

// Appends the bytes' tokens; if one is missing, the unknown token once for the whole symbol
// (nothing if there is none).
void emit_bytes(std::string_view symbol, const std::array<int32_t, 256>& byte_tokens, int32_t unk,
                std::vector<int32_t>& out);

// True if no token of those used has a space mark after another character. Then no merge crosses
// the place before a space mark that follows something else, and words can be encoded one by one.
bool no_token_crosses_words(const Vocabulary& vocabulary, const std::vector<bool>& use);

// Length of the first such word of `text` (> 0 unless text is empty).
size_t first_word_length(std::string_view text);

}  // namespace towline::engine
