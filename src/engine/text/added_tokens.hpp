// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// AddedTokenMatcher: finds added tokens in a text, leftmost first and the longest among those that
// begin at one place. A byte trie: each place costs at most the length of the longest token.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/hash_index.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // Of vocabulary.added, those whose `normalized` is as given. Keeps a reference to the vocabulary.
  AddedTokenMatcher(const Vocabulary& vocabulary, bool normalized);

  // A stretch of text [begin, end) that is one token, or that holds none (id < 0).
  struct Span {
    size_t begin, end;
    int32_t id;
  };
  // The spans of `text` in order. White space that a token takes along is in no span.
  std::vector<Span> split(std::string_view text, bool parse_special) const;
  bool empty() const { return empty_; }

 private:
  const AddedToken* longest_at(std::string_view text, size_t at, bool parse_special) const;
  const Vocabulary* vocabulary_ = nullptr;
  PairIndex children_;               // (node, byte) -> node
  std::vector<int32_t> token_at_;    // node -> index into vocabulary.added, -1: none
  bool starts_[256] = {};            // bytes that some token begins with
  bool empty_ = true;
};

}  // namespace towline::engine
