// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// CPythonIntSet: the order in which CPython (3.7 to 3.12) walks a set of small integers.
//
// The published simulator re-starts transmissions in that order, so repeating it needs the order.
// The set is an open hash table in which an integer hashes to itself: probing looks at nine
// neighbours before it jumps, and the table grows fourfold when it is three fifths full.
// Non-negative integers only; insertion only.
#pragma once

#include <cstdint>
#include <vector>

namespace towline::sim {

class CPythonIntSet {
 public:
  void insert(int32_t value) {
    if (!place(table_, value)) return;
    ++used_;
    if (used_ * 5 < (table_.size() - 1) * 3) return;
    size_t size = 8;
    while (size <= used_ * 4) size *= 2;
    std::vector<int32_t> larger(size, kEmpty);
    for (const int32_t old : table_) {
      if (old != kEmpty) place(larger, old);
    }
    table_.swap(larger);
  }

  // Appends the members in walking order to `out`, emptied first.
  void copy_to(std::vector<int32_t>& out) const {
    out.clear();
    for (const int32_t value : table_) {
      if (value != kEmpty) out.push_back(value);
    }
  }

 private:
  static constexpr int32_t kEmpty = -1;
  static constexpr size_t kNeighbours = 9;

  // False if the value is already there.
  static bool place(std::vector<int32_t>& table, int32_t value) {
    const size_t mask = table.size() - 1;
    auto perturb = static_cast<size_t>(value);
    size_t at = perturb & mask;
    for (;;) {
      const size_t last = at + kNeighbours <= mask ? at + kNeighbours : at;
      for (size_t i = at; i <= last; ++i) {
        if (table[i] == value) return false;
        if (table[i] == kEmpty) {
          table[i] = value;
          return true;
        }
      }
      perturb >>= 5;
      at = (at * 5 + 1 + perturb) & mask;
    }
  }

  std::vector<int32_t> table_ = std::vector<int32_t>(8, kEmpty);
  size_t used_ = 0;
};

}  // namespace towline::sim
