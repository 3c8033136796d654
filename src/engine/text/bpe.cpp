// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/bpe.hpp"

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "base/utf8.hpp"
#include "engine/text/byte_tokens.hpp"

namespace towline::engine {

BpeModel::BpeModel(const Vocabulary& vocabulary)
    : vocabulary_(&vocabulary), byte_tokens_(find_byte_tokens(vocabulary)) {
  std::vector<bool> use(vocabulary.tokens.size());
  for (size_t i = 0; i < use.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    use[i] = type != TokenType::kControl && type != TokenType::kUnknown && type != TokenType::kByte;
  }
  index_.build(vocabulary.tokens, use);
  words_are_independent_ = !vocabulary.byte_level && no_token_crosses_words(vocabulary, use);
  add_merges();
}

void BpeModel::add_merges() {
  const auto base = static_cast<int32_t>(vocabulary_->tokens.size());
  std::unordered_map<std::string, int32_t> interned;
  const auto symbol = [&](const std::string& text) {
    if (const int32_t id = index_.find(vocabulary_->tokens, text); id >= 0) return id;
    const auto [at, added] =
        interned.try_emplace(text, base + static_cast<int32_t>(interned_.size()));
    if (added) interned_.push_back(text);
    return at->second;
  };
  for (size_t byte = 0; byte < 256 && vocabulary_->byte_level; ++byte) {
    byte_symbols_[byte] = symbol(std::string(1, static_cast<char>(byte)));
  }
  for (size_t rank = 0; rank < vocabulary_->merges.size(); ++rank) {
    const auto& [left, right] = vocabulary_->merges[rank];
    const int32_t a = symbol(left);
    const int32_t b = symbol(right);
    merges_.add(a, b, {static_cast<int32_t>(rank), symbol(left + right)});
  }
}

void BpeModel::first_symbols(std::string_view piece, std::vector<Scratch::Symbol>& symbols) const {
  symbols.clear();
  const auto add = [&](int32_t id) {
    const auto at = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1});
  };
  for (size_t i = 0; i < piece.size();) {
    if (vocabulary_->byte_level) {
      add(byte_symbols_[static_cast<unsigned char>(piece[i++])]);
      continue;
    }
    const size_t n = std::max<size_t>(1, utf8_length(piece, i));
    const std::string_view character = piece.substr(i, n);
    i += n;
    if (const int32_t id = index_.find(vocabulary_->tokens, character); id >= 0) {
      add(id);
      continue;
    }
    const auto byte_token = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
    if (vocabulary_->byte_fallback &&
        std::all_of(character.begin(), character.end(),
                    [&](char c) { return byte_token(c) >= 0; })) {
      for (const char c : character) add(byte_token(c));
    } else if (vocabulary_->unk >= 0) {
      const bool fuse = vocabulary_->fuse_unknown && !symbols.empty() &&
                        symbols.back().id == vocabulary_->unk;
      if (!fuse) add(vocabulary_->unk);
    }
  }
  if (!symbols.empty()) symbols.back().next = -1;
}

void BpeModel::merge_by_scan(std::vector<Scratch::Symbol>& symbols) const {
  while (symbols.size() > 1) {
    size_t best = 0;
    PairIndex::Value best_merge;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const PairIndex::Value merge = merges_.find(symbols[i].id, symbols[i + 1].id);
      if (merge.first >= 0 && (best_merge.first < 0 || merge.first < best_merge.first)) {
        best = i;
        best_merge = merge;
      }
    }
    if (best_merge.first < 0) return;
    symbols[best].id = best_merge.second;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

void BpeModel::merge_by_heap(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;  // rank << 32 | left: the lowest rank, then the leftmost
  heap.clear();
  const auto merge_at = [&](int32_t left) -> PairIndex::Value {
    const Scratch::Symbol& a = symbols[static_cast<size_t>(left)];
    if (a.id < 0 || a.next < 0) return {};
    return merges_.find(a.id, symbols[static_cast<size_t>(a.next)].id);
  };
  const auto push = [&](int32_t left) {
    if (left < 0) return;
    const PairIndex::Value merge = merge_at(left);
    if (merge.first < 0) return;
    heap.push_back(static_cast<uint64_t>(merge.first) << 32 | static_cast<uint32_t>(left));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (size_t i = 0; i < symbols.size(); ++i) push(static_cast<int32_t>(i));
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t best = heap.back();
    heap.pop_back();
    const auto left = static_cast<int32_t>(best & 0xffffffffu);
    const PairIndex::Value merge = merge_at(left);
    if (merge.first != static_cast<int32_t>(best >> 32)) continue;  // stale
    Scratch::Symbol& a = symbols[static_cast<size_t>(left)];
    Scratch::Symbol& b = symbols[static_cast<size_t>(a.next)];
    a.id = merge.second;
    a.next = b.next;
    b.id = -1;
    if (a.next >= 0) symbols[static_cast<size_t>(a.next)].previous = left;
    push(a.previous);
    push(left);
  }
  std::erase_if(symbols, [](const Scratch::Symbol& s) { return s.id < 0; });
}

void BpeModel::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
  if (vocabulary_->ignore_merges ||
      (vocabulary_->whole_newlines && piece.starts_with('\n'))) {
    if (const int32_t id = index_.find(vocabulary_->tokens, piece); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  first_symbols(piece, scratch.symbols);
  if (scratch.symbols.size() <= scan_limit) {
    merge_by_scan(scratch.symbols);
  } else {
    merge_by_heap(scratch);
  }
  for (const Scratch::Symbol& symbol : scratch.symbols) emit(symbol.id, out);
}

void BpeModel::emit(int32_t symbol, std::vector<int32_t>& out) const {
  const size_t base = vocabulary_->tokens.size();
  if (static_cast<size_t>(symbol) < base) {
    out.push_back(symbol);
    return;
  }
  // A text that merges made but the vocabulary lacks: its bytes or characters, one by one.
  const std::string_view text = interned_[static_cast<size_t>(symbol) - base];
  for (size_t i = 0; i < text.size();) {
    const size_t n = vocabulary_->byte_level ? 1 : std::max<size_t>(1, utf8_length(text, i));
    const int32_t id = index_.find(vocabulary_->tokens, text.substr(i, n));
    if (id >= 0) {
      out.push_back(id);
    } else {
      emit_bytes(text.substr(i, n), byte_tokens_, vocabulary_->unk, out);
    }
    i += n;
  }
}

}  // namespace towline::engine
