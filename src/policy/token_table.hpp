// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// TokenTable: the tokens of one sequence, the newest of them inside the object.
//
// A sequence that generates is touched at its end only, one token a step, and between two steps
// everything else has passed through the caches: with the end in a table of its own, each of
// hundreds of sequences costs a miss in the caches and in the TLB, more so the longer it is (tables
// of equal sizes lie on the same cache sets). Here the last one to four tokens lie beside the
// sequence's other hot state, and the table is touched by one sequence of four in a step: positions
// decide, so sequences of unequal lengths take turns.
//
// A plain value: what is const writes nothing, so readers may share it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace towline::policy {

class TokenTable {
 public:
  TokenTable() = default;
  TokenTable& operator=(std::vector<int32_t> tokens) {
    table_ = std::move(tokens);
    size_ = static_cast<uint32_t>(table_.size());
    take_tail();
    return *this;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int32_t operator[](size_t i) const { return i >= settled() ? tail_[i % kTail] : table_[i]; }
  int32_t back() const { return tail_[(size_ - 1) % kTail]; }
  void set(size_t i, int32_t token) { (i >= settled() ? tail_[i % kTail] : table_[i]) = token; }

  void push_back(int32_t token) {
    if (tail_is_full()) settle();
    tail_[size_++ % kTail] = token;
  }
  void append(std::span<const int32_t> tokens) {
    for (const int32_t token : tokens) push_back(token);
  }
  void clear() {
    table_.clear();
    size_ = 0;
  }
  void assign(size_t n, int32_t token) { *this = std::vector<int32_t>(n, token); }
  // Shorter, or longer by zeros.
  void resize(size_t n) {
    if (n == size_ + size_t{1}) return push_back(0);
    if (n == size_) return;
    settle();
    table_.resize(n);
    size_ = static_cast<uint32_t>(n);
    take_tail();
  }

  // Appends tokens [from, to) to `out`.
  void copy(size_t from, size_t to, std::vector<int32_t>& out) const {
    const size_t middle = std::clamp(settled(), from, to);
    if (from < middle) out.insert(out.end(), table_.data() + from, table_.data() + middle);
    for (size_t i = middle; i < to; ++i) out.push_back(tail_[i % kTail]);
  }
  std::vector<int32_t> all() const {
    std::vector<int32_t> out;
    out.reserve(size_);
    copy(0, size_, out);
    return out;
  }

  // Whether the next push_back() touches the table; if so, what it touches, in two steps, since the
  // second is found through the first.
  bool tail_is_full() const { return size_ % kTail == 0 && size_ > 0; }
  const void* table_head() const { return &table_; }
  const void* table_end() const { return table_.data() + settled(); }

 private:
  static constexpr uint32_t kTail = 4;
  // Positions from here on lie in tail_, at their remainder.
  size_t settled() const { return size_ == 0 ? 0 : (size_ - 1) / kTail * kTail; }
  void settle() {
    const size_t from = settled();
    table_.resize(size_);
    std::copy_n(tail_, size_ - from, table_.begin() + static_cast<std::ptrdiff_t>(from));
  }
  void take_tail() {
    const size_t from = settled();
    std::copy_n(table_.begin() + static_cast<std::ptrdiff_t>(from), size_ - from, tail_);
  }

  uint32_t size_ = 0;
  int32_t tail_[kTail] = {};
  std::vector<int32_t> table_;          // right up to settled(); may be shorter than size_
};

}  // namespace towline::policy
