// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// EventQueue: what happens next, in the total order (time, sequence number of the push).
//
// `Time` is int64 nanoseconds in every simulation of our own and double seconds in the mode that
// repeats the published Helix simulator; `Event` is a small plain struct that the owner interprets.
// Events at the present instant, which are most of them, go through a ring and never touch the heap.
//
// Cancelling: the owner puts a generation number into the event and compares it when the event
// comes; nothing is searched or removed. Not thread-safe; copyable.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/check.hpp"

namespace towline::sim {

template <class Time, class Event>
class EventQueue {
 public:
  explicit EventQueue(Time start = Time{}) : now_(start) {}

  Time now() const { return now_; }
  bool empty() const { return heap_.empty() && ring_head_ == ring_.size(); }
  size_t size() const { return heap_.size() + ring_.size() - ring_head_; }
  uint64_t pushed() const { return sequence_; }

  // `when` is not before now().
  void push(Time when, const Event& event) {
    DCHECK(!(when < now_));
    const uint64_t order = sequence_++;
    if (when == now_) {
      ring_.push_back({when, order, event});
      return;
    }
    heap_.push_back({when, order, event});
    sift_up(heap_.size() - 1);
  }

  // The time of the next event; the queue is not empty.
  Time next_time() const { return ring_first() ? ring_[ring_head_].when : heap_[0].when; }

  // Removes the next event and moves the clock to it; the queue is not empty.
  Event pop() {
    if (ring_first()) {
      const Event event = ring_[ring_head_].event;
      if (++ring_head_ == ring_.size()) {
        ring_.clear();
        ring_head_ = 0;
      }
      return event;
    }
    const Entry top = heap_[0];
    heap_[0] = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sift_down(0);
    now_ = top.when;
    return top.event;
  }

  // Events that are likely to come next, the most likely first; at most `count`. For prefetching.
  template <class F>
  void peek(size_t count, F&& f) const {
    for (size_t i = 0; i < std::min(count, heap_.size()); ++i) f(heap_[i].event);
  }

  // Moves the clock on without an event; nothing may be due before `when`.
  void advance(Time when) {
    DCHECK(empty() || !(next_time() < when));
    if (ring_head_ != ring_.size()) return;  // things are due now, and `when` is now
    now_ = when;
  }

 private:
  struct Entry {
    Time when;
    uint64_t order;
    Event event;
    bool before(const Entry& other) const {
      return when < other.when || (when == other.when && order < other.order);
    }
  };
  static constexpr size_t kArity = 4;

  // Ring entries are at now(); a heap entry at now() was pushed earlier in time, hence is older.
  bool ring_first() const {
    if (ring_head_ == ring_.size()) return false;
    return heap_.empty() || ring_[ring_head_].before(heap_[0]);
  }
  void sift_up(size_t at) {
    const Entry moving = heap_[at];
    while (at > 0) {
      const size_t parent = (at - 1) / kArity;
      if (!moving.before(heap_[parent])) break;
      heap_[at] = heap_[parent];
      at = parent;
    }
    heap_[at] = moving;
  }
  void sift_down(size_t at) {
    const Entry moving = heap_[at];
    for (;;) {
      const size_t first = at * kArity + 1;
      if (first >= heap_.size()) break;
      const size_t last = std::min(first + kArity, heap_.size());
      size_t least = first;
      for (size_t child = first + 1; child < last; ++child) {
        if (heap_[child].before(heap_[least])) least = child;
      }
      if (!heap_[least].before(moving)) break;
      heap_[at] = heap_[least];
      at = least;
    }
    heap_[at] = moving;
  }

  Time now_;
  uint64_t sequence_ = 0;
  std::vector<Entry> heap_;
  std::vector<Entry> ring_;  // FIFO; entries before ring_head_ are gone
  size_t ring_head_ = 0;
};

}  // namespace towline::sim
