// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Two small open-addressing hash tables for tokenizers, built once and then read only. Both are
// flat arrays with linear probing at a load of at most one half.
#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.hpp"

namespace towline::engine {

// Text -> position in a list of strings that the owner keeps alive and unchanged.
class StringIndex {
 public:
  // `use[i]` false leaves item i out; an empty span uses all. Of equal texts the last wins.
  void build(std::span<const std::string> items, const std::vector<bool>& use = {}) {
    slots_.assign(std::bit_ceil(items.size() * 2 + 2), -1);
    for (size_t i = 0; i < items.size(); ++i) {
      if (use.empty() || use[i]) slots_[slot(items, items[i])] = static_cast<int32_t>(i);
    }
  }
  // -1 if absent. `items` are those given to build.
  int32_t find(std::span<const std::string> items, std::string_view text) const {
    return slots_.empty() ? -1 : slots_[slot(items, text)];
  }

 private:
  size_t slot(std::span<const std::string> items, std::string_view text) const {
    size_t at = std::hash<std::string_view>{}(text) & (slots_.size() - 1);
    while (slots_[at] >= 0 && items[static_cast<size_t>(slots_[at])] != text) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }
  std::vector<int32_t> slots_;
};

// (a, b) -> value, for non-negative a and b.
class PairIndex {
 public:
  struct Value {
    int32_t first = -1;  // -1: absent
    int32_t second = -1;
  };
  PairIndex() : slots_(4) {}

  // The first value given to a key stays.
  void add(int32_t a, int32_t b, Value value) {
    if (++count_ * 2 > slots_.size()) grow();
    Slot& s = slots_[slot(key(a, b))];
    if (s.value.first >= 0) return;
    s = {key(a, b), value};
  }
  Value find(int32_t a, int32_t b) const { return slots_[slot(key(a, b))].value; }

 private:
  struct Slot {
    uint64_t key = 0;
    Value value;
  };
  static uint64_t key(int32_t a, int32_t b) {
    return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
  }
  size_t slot(uint64_t k) const {
    size_t at = mix64(k) & (slots_.size() - 1);
    while (slots_[at].value.first >= 0 && slots_[at].key != k) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 4);
    old.swap(slots_);
    for (const Slot& s : old) {
      if (s.value.first >= 0) slots_[slot(s.key)] = s;
    }
  }
  std::vector<Slot> slots_;
  size_t count_ = 0;
};

}  // namespace towline::engine
