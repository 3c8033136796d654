// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Byte-pair encoding by merge ranks (Sennrich et al., ACL 2016; byte-level: Radford et al., GPT-2):
// a piece starts as single bytes or characters; the adjacent pair of the lowest rank is merged,
// leftmost first, until no pair has a rank.
//
// Short pieces scan for the best pair; long ones use a heap over a linked list, so that a hostile
// piece of n bytes costs O(n log n). Both give the same tokens (bpe_test.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/hash_index.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {

class BpeModel {
 public:
  // Working memory, reused from piece to piece.
  struct Scratch {
    struct Symbol {
      int32_t id;  // -1: merged into its left neighbour
      int32_t previous, next;
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;
  };

  BpeModel() = default;
  // Keeps a reference to `vocabulary`.
  explicit BpeModel(const Vocabulary& vocabulary);

  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const;
  // As SpmModel::words_are_independent.
  bool words_are_independent() const { return words_are_independent_; }

  // Pieces of more symbols than this use the heap; tests set it.
  size_t scan_limit = 24;

 private:
  void add_merges();
  void first_symbols(std::string_view piece, std::vector<Scratch::Symbol>& symbols) const;
  void merge_by_scan(std::vector<Scratch::Symbol>& symbols) const;
  void merge_by_heap(Scratch& scratch) const;
  void emit(int32_t symbol, std::vector<int32_t>& out) const;

  const Vocabulary* vocabulary_ = nullptr;
  StringIndex index_;   // of the tokens that text can become
  PairIndex merges_;    // (left, right) -> (rank, merged); symbols are token ids, and from
                        // tokens.size() on `interned_`: texts in merges that are no tokens
  std::vector<std::string> interned_;
  std::array<int32_t, 256> byte_symbols_{};  // byte_level: the symbol of each byte
  std::array<int32_t, 256> byte_tokens_{};   // <0xXX>, -1: none
  bool words_are_independent_ = false;
};

}  // namespace towline::engine
