// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// WordPiece (BERT): a word is cut into the longest tokens from left to right; a word that cannot be
// cut to the end is the unknown token. Tokens are held as GGUF writes them: "▁" begins a word,
// without it a token continues one. Schuster and Nakajima, ICASSP 2012.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/hash_index.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {

class WordPieceModel {
 public:
  struct Scratch {};
  WordPieceModel() = default;
  explicit WordPieceModel(const Vocabulary& vocabulary);  // keeps a reference
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
  bool words_are_independent() const { return false; }

 private:
  const Vocabulary* vocabulary_ = nullptr;
  StringIndex index_;
  size_t longest_ = 0;
};

}  // namespace towline::engine
