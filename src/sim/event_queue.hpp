// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// EventQueue: what happens next, in the total order (time, number of the push).
//
// `Time` is int64 nanoseconds in every simulation of our own and double seconds in the mode that
// repeats the published Helix simulator; `Event` is a small plain struct that the owner interprets.
// Events at the present instant, which are most of them, go through a
// ring and never touch the heap.
//
// Who works out several steps at once, of which only the last is worth an event, still wants that
// event in the place that it would have after single steps. So an event carries its causes:
// the time at which it was pushed, that at which the event that pushed it was pushed, and so on,
// kCauses of them. As nobody pushes into the past, events of one instant are in the order of their
// causes, and the number of the push decides only where all of these are equal.
//
// Cancelling: the owner puts a generation number into the event and compares it when the event
// comes; nothing is searched or removed. Not thread-safe; copyable.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
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
  bool empty() const { return size() == 0; }
  size_t size() const { return keys_ - (open_ ? 1 : 0) + ring_.size() - ring_head_; }

  // `when` is not before now(), and before the end of time (kNever).
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
  // The same; where all causes are equal, the lower order comes first. Who pushes in the place of
  // an event of which it is the continuation gives that one's.
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
  Time next_time() const { return ring_first() ? now_ : heap_time(); }

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
    if (open_) close_top();
    now_ = key(0).when;
    popped_ = items_[key(0).item];
    open_ = true;
    return popped_.event;
  }

  // f(an event that has newly come near the top): it is one of the next few. For prefetching.
  template <class F>
  void look_ahead(F&& f) const {
    const Key& risen = families_[1].keys[risen_];
    if (risen.item != kNone) f(items_[risen.item].event);
  }

  // Moves the clock on without an event; nothing may be due before `when`.
  void advance(Time when) {
    DCHECK(empty() || !(next_time() < when));
    if (ring_head_ != ring_.size()) return;  // things are due now, and `when` is now
    now_ = when;
    popped_.causes.fill(when);
  }

 private:
  static constexpr Time kNever = std::numeric_limits<Time>::has_infinity
                                     ? std::numeric_limits<Time>::infinity()
                                     : std::numeric_limits<Time>::max();
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr size_t kArity = 4;

  struct alignas(64) Item {
    Causes causes;
    uint32_t order = 0;  // counts round; only those pushed at the same instant are compared
    Event event;
  };
  struct Key {
    Time when = kNever;
    uint32_t item = kNone;
  };
  // The children of one key, in one cache line; those of key i are family i + 1.
  struct alignas(64) Family {
    std::array<Key, kArity> keys;
  };
  Key& key(size_t i) { return families_[(i + 3) / kArity].keys[(i + 3) % kArity]; }
  const Key& key(size_t i) const { return families_[(i + 3) / kArity].keys[(i + 3) % kArity]; }

  static bool older(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
  bool before(const Key& a, const Key& b) const {
    return a.when < b.when || (a.when == b.when && tied_before(a, b));
  }
  [[gnu::noinline]] bool tied_before(const Key& a, const Key& b) const {
    if (a.item == kNone || b.item == kNone) return b.item == kNone;
    const Item& one = items_[a.item];
    const Item& other = items_[b.item];
    return one.causes != other.causes ? one.causes < other.causes : older(one.order, other.order);
  }
  // Of a family, without a branch that nobody could foretell.
  size_t first_of(const Family& family) const {
    const auto& k = family.keys;
    const size_t a = k[1].when < k[0].when ? 1 : 0;
    const size_t b = k[3].when < k[2].when ? 3 : 2;
    const size_t first = k[b].when < k[a].when ? b : a;
    const Time when = k[first].when;
    const int same = (k[0].when == when) + (k[1].when == when) + (k[2].when == when) +
                     (k[3].when == when);
    return same == 1 ? first : first_of_tied(family);
  }
  [[gnu::noinline]] size_t first_of_tied(const Family& family) const {
    size_t first = 0;
    for (size_t i = 1; i < kArity; ++i) {
      if (before(family.keys[i], family.keys[first])) first = i;
    }
    return first;
  }
  // Ring entries were pushed now, those in the heap earlier.
  bool ring_first() const { return ring_head_ != ring_.size() && now_ < heap_time(); }
  Time heap_time() const {
    return open_ ? families_[1].keys[first_of(families_[1])].when : key(0).when;
  }
  uint32_t put(const Item& item, Time when) {
    DCHECK(when < kNever);
    if (open_) {  // most events are followed by one: it takes that one's place
      open_ = false;
      const uint32_t place = key(0).item;
      items_[place] = item;
      sift_down({when, place});
      return place;
    }
    uint32_t place;
    if (free_.empty()) {
      place = static_cast<uint32_t>(items_.size());
      items_.push_back(item);
    } else {
      place = free_.back();
      free_.pop_back();
      items_[place] = item;
    }
    if ((keys_ + 3) / kArity == families_.size()) families_.emplace_back();
    sift_up(keys_++, {when, place});
    return place;
  }
  // Nothing has taken the place of the event that was popped.
  void close_top() {
    open_ = false;
    free_.push_back(key(0).item);
    const Key last = std::exchange(key(--keys_), Key{});
    if (keys_ > 0) sift_down(last);
  }
  void sift_up(size_t at, const Key moving) {
    while (at > 0) {
      const size_t parent = (at - 1) / kArity;
      if (!before(moving, key(parent))) break;
      key(at) = key(parent);
      at = parent;
    }
    key(at) = moving;
  }
  // From the top, where nothing is.
  void sift_down(const Key moving) {
    const size_t parents = (keys_ + 2) / kArity;
    size_t at = 0;
    while (at < parents) {
      const Family& family = families_[at + 1];
      const size_t first = first_of(family);
      if (!before(family.keys[first], moving)) break;
      if (at == 0) risen_ = first;
      key(at) = family.keys[first];
      at = at * kArity + 1 + first;
    }
    key(at) = moving;
  }

  Time now_;
  Item popped_;            // the event that is being handled
  uint32_t sequence_ = 0;
  std::vector<Family> families_ = std::vector<Family>(2);  // a heap; key 0 is the last of the first
  size_t keys_ = 0;
  bool open_ = false;      // key 0 is that of an event that was popped
  size_t risen_ = 0;       // of its children, the one that came last from below
  std::vector<Item> items_;
  std::vector<uint32_t> free_;  // places there
  std::vector<Item> ring_;  // FIFO; entries before ring_head_ are gone
  size_t ring_head_ = 0;
};

}  // namespace towline::sim
