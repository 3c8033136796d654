// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// EventQueue: what happens next, in the total order (time, number of the push).
//
// `Time` is int64 nanoseconds in every simulation of our own and double seconds in the mode that
// repeats the published Helix simulator; `Event` is a small plain struct that the owner interprets.
// Events at the present instant, which are most of them, go through a ring and never touch the heap.
//
// Who works out several steps at once, of which only the last is worth an event, still wants that
// event in the place that it would have after single steps. So an event carries its causes: the time
// at which it was pushed, that at which the event that pushed it was pushed, and so on, kCauses of
// them. As nobody pushes into the past, events of one instant are in the order of their causes, and
// the number of the push decides only where all of these are equal.
//
// Cancelling: the owner puts a generation number into the event and compares it when the event
// comes; nothing is searched or removed. Not thread-safe; copyable.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/check.hpp"

namespace towline::sim {

template <class Time, class Event>
class EventQueue {
 public:
  static constexpr size_t kCauses = 4;
  using Causes = std::array<Time, kCauses>;  // the latest first

  explicit EventQueue(Time start = Time{}) : now_(start) { popped_.causes.fill(start); }

  Time now() const { return now_; }
  bool empty() const { return heap_.empty() && ring_head_ == ring_.size(); }
  size_t size() const { return heap_.size() + ring_.size() - ring_head_; }

  // `when` is not before now().
  void push(Time when, const Event& event) {
    DCHECK(!(when < now_));
    if (when == now_) {
      ring_.push_back({causes(), sequence_++, event});
    } else {
      put({causes(), sequence_++, event}, when);
    }
  }
  // The causes of what is pushed now; and of what an event would push that is pushed with `causes`
  // for the time `when`.
  Causes causes() const { return after(now_, popped_.causes); }
  static Causes after(Time when, const Causes& causes) {
    Causes result;
    result[0] = when;
    std::copy_n(causes.begin(), kCauses - 1, result.begin() + 1);
    return result;
  }
  // With these causes, of which the first is before `when`. Returns its number while it is in here.
  uint32_t push_as_of(const Causes& causes, Time when, const Event& event) {
    return push_as_of(causes, next_order(), when, event);
  }
  // The same; where all causes are equal, the lower order comes first. Who pushes in the place of an
  // event of which it is the continuation gives that one's.
  uint32_t push_as_of(const Causes& causes, uint32_t order, Time when, const Event& event) {
    DCHECK(!(when < now_) && causes[0] < when);
    return put({causes, order, event}, when);
  }
  uint32_t next_order() { return sequence_++; }

  // Would an event of this instant with these causes be past?
  bool is_past(const Causes& causes) const { return causes < popped_.causes; }
  // An event that is in here was pushed as if by one at causes[0]. Would that be past?
  bool cause_is_past(uint32_t number) const {
    const Item& item = items_[number];
    if (item.causes[0] != now_) return item.causes[0] < now_;
    for (size_t i = 1; i < kCauses; ++i) {
      const Time one = item.causes[i], other = popped_.causes[i - 1];
      if (one != other) return one < other;
    }
    return older(item.order, popped_.order);
  }
  // Pushes that event, which is not past.
  void push_cause(uint32_t number, const Event& event) {
    Item cause = items_[number];
    const Time when = cause.causes[0];
    std::copy(cause.causes.begin() + 1, cause.causes.end(), cause.causes.begin());
    cause.event = event;
    put(cause, when);
  }

  // The time of the next event; the queue is not empty.
  Time next_time() const { return ring_first() ? now_ : heap_[0].when; }

  // Removes the next event and moves the clock to it; the queue is not empty.
  Event pop() {
    if (ring_first()) {
      popped_ = ring_[ring_head_];
      if (++ring_head_ == ring_.size()) {
        ring_.clear();
        ring_head_ = 0;
      }
      return popped_.event;
    }
    now_ = heap_[0].when;
    popped_ = items_[heap_[0].item];
    free_.push_back(heap_[0].item);
    const Key last = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sift_down(last);
    return popped_.event;
  }

  // Events that are likely to come next, the most likely first; at most `count`. For prefetching.
  template <class F>
  void peek(size_t count, F&& f) const {
    for (size_t i = 0; i < std::min(count, heap_.size()); ++i) f(items_[heap_[i].item].event);
  }

  // Moves the clock on without an event; nothing may be due before `when`.
  void advance(Time when) {
    DCHECK(empty() || !(next_time() < when));
    if (ring_head_ != ring_.size()) return;  // things are due now, and `when` is now
    now_ = when;
    popped_.causes.fill(when);
  }

 private:
  struct Item {
    Causes causes;
    uint32_t order = 0;  // counts round; only those pushed at the same instant are compared
    Event event;
  };
  struct Key {
    Time when;
    uint32_t item = 0;
  };
  static constexpr size_t kArity = 4;

  static bool older(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
  bool before(const Key& a, const Key& b) const {
    return a.when < b.when || (a.when == b.when && tied_before(items_[a.item], items_[b.item]));
  }
  [[gnu::noinline]] static bool tied_before(const Item& a, const Item& b) {
    return a.causes != b.causes ? a.causes < b.causes : older(a.order, b.order);
  }
  // Ring entries were pushed now, those in the heap earlier.
  bool ring_first() const {
    return ring_head_ != ring_.size() && (heap_.empty() || now_ < heap_[0].when);
  }
  uint32_t put(const Item& item, Time when) {
    uint32_t place;
    if (free_.empty()) {
      place = static_cast<uint32_t>(items_.size());
      items_.push_back(item);
    } else {
      place = free_.back();
      free_.pop_back();
      items_[place] = item;
    }
    heap_.push_back({when, place});
    sift_up({when, place});
    return place;
  }
  void sift_up(const Key moving) {
    size_t at = heap_.size() - 1;
    while (at > 0) {
      const size_t parent = (at - 1) / kArity;
      if (!before(moving, heap_[parent])) break;
      heap_[at] = heap_[parent];
      at = parent;
    }
    heap_[at] = moving;
  }
  // From the top, where nothing is.
  void sift_down(const Key moving) {
    size_t at = 0;
    for (;;) {
      const size_t first = at * kArity + 1;
      if (first >= heap_.size()) break;
      const size_t last = std::min(first + kArity, heap_.size());
      size_t least = first;
      for (size_t child = first + 1; child < last; ++child) {
        if (before(heap_[child], heap_[least])) least = child;
      }
      if (!before(heap_[least], moving)) break;
      heap_[at] = heap_[least];
      at = least;
    }
    heap_[at] = moving;
  }

  Time now_;
  Item popped_;            // the event that is being handled
  uint32_t sequence_ = 0;
  std::vector<Key> heap_;
  std::vector<Item> items_;
  std::vector<uint32_t> free_;  // places there
  std::vector<Item> ring_;  // FIFO; entries before ring_head_ are gone
  size_t ring_head_ = 0;
};

}  // namespace towline::sim
