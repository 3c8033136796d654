// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/spm.hpp"

#include <algorithm>

#include "base/utf8.hpp"
#include "engine/text/byte_tokens.hpp"

namespace towline::engine {

SpmModel::SpmModel(const Vocabulary& vocabulary)
    : vocabulary_(&vocabulary), byte_tokens_(find_byte_tokens(vocabulary)) {
  std::vector<bool> use(vocabulary.tokens.size());
  for (size_t i = 0; i < use.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    use[i] = type != TokenType::kControl && type != TokenType::kUnknown && type != TokenType::kByte;
    if (use[i]) longest_ = std::max(longest_, vocabulary.tokens[i].size());
  }
  index_.build(vocabulary.tokens, use);
  words_are_independent_ = no_token_crosses_words(vocabulary, use);
}

void SpmModel::push_candidate(std::string_view piece, int32_t left, Scratch& scratch) const {
  if (left < 0) return;
  const std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  const Symbol& a = symbols[static_cast<size_t>(left)];
  if (a.next < 0) return;
  const uint32_t length = a.length + symbols[static_cast<size_t>(a.next)].length;
  if (length > longest_) return;
  const int32_t id = index_.find(vocabulary_->tokens, piece.substr(a.begin, length));
  if (id < 0) return;
  heap.push_back({vocabulary_->scores[static_cast<size_t>(id)], left, a.next, length});
  std::push_heap(heap.begin(), heap.end());
}

void SpmModel::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  symbols.clear();
  symbols.reserve(piece.size());
  for (size_t i = 0; i < piece.size();) {
    const size_t n = std::max<size_t>(1, utf8_length(piece, i));
    const auto at = static_cast<int32_t>(symbols.size());
    symbols.push_back({static_cast<uint32_t>(i), static_cast<uint32_t>(n), at - 1, at + 1});
    i += n;
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  heap.clear();
  for (size_t i = 0; i < symbols.size(); ++i) {
    push_candidate(piece, static_cast<int32_t>(i), scratch);
  }
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.left)];
    Symbol& right = symbols[static_cast<size_t>(best.right)];
    // Stale: one of the two has been merged with something else since.
    if (left.length == 0 || right.length == 0 || left.length + right.length != best.length) {
      continue;
    }
    left.length = best.length;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.left;
    push_candidate(piece, left.previous, scratch);
    push_candidate(piece, best.left, scratch);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    const Symbol& symbol = symbols[static_cast<size_t>(i)];
    emit(piece.substr(symbol.begin, symbol.length), out);
  }
}

void SpmModel::emit(std::string_view symbol, std::vector<int32_t>& out) const {
  if (const int32_t id = index_.find(vocabulary_->tokens, symbol); id >= 0) {
    out.push_back(id);
    return;
  }
  emit_bytes(symbol, byte_tokens_, vocabulary_->unk, out);
}

}  // namespace towline::engine
