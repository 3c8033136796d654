// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// IdIndex: where something with an id is kept (a place in a vector). A hash table by open addressing
// with linear probing: one look is one or two cache lines, whatever the number of ids. It cannot be
// walked, so no order of hashing ever gets into a decision; the same calls give the same table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/rng.hpp"

namespace towline {

template <class Key>  // an Id
class IdIndex {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // The place of `id`, or -1.
  int32_t find(Key id) const {
    if (slots_.empty()) return -1;
    for (size_t i = home(id);; i = next(i)) {
      if (slots_[i].place < 0 || slots_[i].id == id) return slots_[i].place;
    }
  }
  bool contains(Key id) const { return find(id) >= 0; }
  // `id` is not there yet; `place` is not negative.
  void add(Key id, int32_t place) {
    CHECK(place >= 0, place);
    if (2 * (size_ + 1) > slots_.size()) grow();
    put(id, place);
    ++size_;
  }
  // False if it was not there.
  bool erase(Key id) {
    if (slots_.empty()) return false;
    size_t hole = home(id);
    while (slots_[hole].place >= 0 && slots_[hole].id != id) hole = next(hole);
    if (slots_[hole].place < 0) return false;
    // Those behind it that would not be found across a hole move into it.
    for (size_t i = next(hole); slots_[i].place >= 0; i = next(i)) {
      const size_t wanted = home(slots_[i].id);
      const bool reachable = hole < i ? hole < wanted && wanted <= i : hole < wanted || wanted <= i;
      if (reachable) continue;
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole].place = -1;
    --size_;
    return true;
  }

 private:
  struct Slot {
    Key id{};
    int32_t place = -1;  // negative: nobody
  };
  size_t home(Key id) const {
    return static_cast<size_t>(mix64(static_cast<uint64_t>(id.value))) & (slots_.size() - 1);
  }
  size_t next(size_t i) const { return (i + 1) & (slots_.size() - 1); }
  void put(Key id, int32_t place) {
    size_t i = home(id);
    for (; slots_[i].place >= 0; i = next(i)) CHECK(slots_[i].id != id, id.value);
    slots_[i] = {id, place};
  }
  void grow() {
    const std::vector<Slot> old = std::exchange(
        slots_, std::vector<Slot>(slots_.empty() ? 16 : 2 * slots_.size()));
    for (const Slot& slot : old) {
      if (slot.place >= 0) put(slot.id, slot.place);
    }
  }

  std::vector<Slot> slots_;  // a power of two of them, at most half taken
  size_t size_ = 0;
};

}  // namespace towline
