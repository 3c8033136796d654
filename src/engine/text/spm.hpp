// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SentencePiece BPE with scores ("llama" in GGUF): starting from single characters, the adjacent
// pair whose union is the token of the best score is merged, leftmost first among equals, until no
// pair is a token. Characters that are no token become their bytes' tokens <0xXX>, or the unknown
// token. Kudo and Richardson, "SentencePiece", EMNLP 2018 (model type bpe).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/hash_index.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {

class SpmModel {
 public:
  struct Symbol {
    uint32_t begin;
    uint32_t length;  // 0: merged into its left neighbour
    int32_t previous, next;
  };
  struct Candidate {
    float score;
    int32_t left, right;
    uint32_t length;
    // A max-heap on score; among equals the leftmost first.
    bool operator<(const Candidate& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  // Working memory, reused from piece to piece.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  SpmModel() = default;
  // Keeps a reference to `vocabulary`.
  explicit SpmModel(const Vocabulary& vocabulary);

  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const;
  // No token continues after a space mark that follows something else, so text may be cut before
  // every "▁" that follows another character without changing the tokens.
  bool words_are_independent() const { return words_are_independent_; }

 private:
  void push_candidate(std::string_view piece, int32_t left, Scratch& scratch) const;
  void emit(std::string_view symbol, std::vector<int32_t>& out) const;

  const Vocabulary* vocabulary_ = nullptr;
  StringIndex index_;      // of the tokens that text can become: not control, unknown or byte
  size_t longest_ = 0;     // bytes of the longest such token
  std::array<int32_t, 256> byte_tokens_{};  // -1: none
  bool words_are_independent_ = false;
};

}  // namespace towline::engine
