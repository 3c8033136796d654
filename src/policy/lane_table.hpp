// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LaneTable: things by LaneId, found in two steps instead of down a tree; a step of a lane looks its
// lane up several times. Ids ascend and are never used again, so what is kept for each id is one
// number. References stay valid until the thing is erased. A value; not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/ids.hpp"

namespace towline::policy {

template <class T>
class LaneTable {
 public:
  size_t size() const { return items_.size() - free_.size(); }
  // Null if there is none.
  T* find(LaneId id) {
    const int32_t place = place_of(id);
    return place < 0 ? nullptr : &items_[static_cast<size_t>(place)].second;
  }
  const T* find(LaneId id) const {
    const int32_t place = place_of(id);
    return place < 0 ? nullptr : &items_[static_cast<size_t>(place)].second;
  }
  bool contains(LaneId id) const { return place_of(id) >= 0; }
  T& at(LaneId id) {
    T* const item = find(id);
    CHECK(item != nullptr, id);
    return *item;
  }
  const T& at(LaneId id) const {
    const T* const item = find(id);
    CHECK(item != nullptr, id);
    return *item;
  }
  // `id` is greater than all before.
  T& add(LaneId id, T item) {
    CHECK(id.value >= 0 && static_cast<size_t>(id.value) >= places_.size(), id, places_.size());
    places_.resize(static_cast<size_t>(id.value), kNone);
    size_t place = items_.size();
    if (free_.empty()) {
      items_.emplace_back(id, std::move(item));
    } else {
      place = static_cast<size_t>(free_.back());
      free_.pop_back();
      items_[place] = {id, std::move(item)};
    }
    places_.push_back(static_cast<int32_t>(place));
    return items_[place].second;
  }
  void erase(LaneId id) {
    const int32_t place = place_of(id);
    CHECK(place >= 0, id);
    items_[static_cast<size_t>(place)] = {LaneId(-1), T{}};
    free_.push_back(place);
    places_[static_cast<size_t>(id.value)] = kNone;
  }
  // f(id, thing) for each, in no particular order (but always the same).
  template <class F>
  void for_each(F&& f) const {
    for (const auto& [id, item] : items_) {
      if (id.value >= 0) f(id, item);
    }
  }

 private:
  static constexpr int32_t kNone = -1;
  int32_t place_of(LaneId id) const {
    const auto i = static_cast<size_t>(id.value);  // a negative one is beyond every size
    return i < places_.size() ? places_[i] : kNone;
  }

  std::vector<int32_t> places_;            // [id] in items_
  std::deque<std::pair<LaneId, T>> items_;  // id negative: free
  std::vector<int32_t> free_;
};

}  // namespace towline::policy
