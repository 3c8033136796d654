// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FlatSet: a small ordered set in one piece of memory. What comes is mostly greater than all that is
// there (arrivals), so that it is put at the end; what goes is moved over. For up to some hundreds of
// members it does without the cache misses and allocations of a tree.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace towline::policy {

template <class T>
class FlatSet {
 public:
  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  auto rbegin() const { return items_.rbegin(); }
  auto rend() const { return items_.rend(); }
  bool contains(const T& item) const {
    return std::binary_search(items_.begin(), items_.end(), item);
  }
  // Nothing happens if it is there already.
  void insert(const T& item) {
    if (items_.empty() || items_.back() < item) return items_.push_back(item);
    const auto at = std::lower_bound(items_.begin(), items_.end(), item);
    if (item < *at) items_.insert(at, item);
  }
  // Nothing happens if it is not there.
  void erase(const T& item) {
    const auto at = std::lower_bound(items_.begin(), items_.end(), item);
    if (at != items_.end() && !(item < *at)) items_.erase(at);
  }

 private:
  std::vector<T> items_;  // ascending
};

}  // namespace towline::policy
