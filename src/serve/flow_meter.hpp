// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FlowMeter: tokens a second over the last seconds, from counters that only grow. A reading is kept
// every kSpacing, so memory is bounded and a busy caller may offer readings as often as it likes.
//
// A counter that is new or has shrunk (its node was started again) counts from zero from then on.
// Single-threaded, pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>

#include "base/units.hpp"

namespace towline::serve {

class FlowMeter {
 public:
  using Key = int32_t;
  static constexpr Key kTotal = -1;  // by convention: the whole cluster
  static constexpr Duration kWindow = seconds(10);
  static constexpr Duration kSpacing = milliseconds(500);

  bool wants_reading(Instant now) const {
    return readings_.empty() || now >= readings_.back().at + kSpacing;
  }
  void read(Instant now, std::map<Key, int64_t> counters) {
    for (auto& [key, value] : counters) {
      const int64_t last = last_[key];
      grown_[key] += value >= last ? value - last : value;
      last_[key] = value;
    }
    readings_.push_back({now, grown_});
    while (readings_.size() > 2 && readings_[1].at + kWindow <= now) readings_.pop_front();
  }

  // Over the time between the oldest and the newest reading kept; 0 before there are two.
  double per_second(Key key) const {
    const double span = window_seconds();
    if (span <= 0) return 0;
    return static_cast<double>(of(readings_.back(), key) - of(readings_.front(), key)) / span;
  }
  double window_seconds() const {
    return readings_.size() < 2 ? 0 : to_seconds(readings_.back().at - readings_.front().at);
  }

 private:
  struct Reading {
    Instant at;
    std::map<Key, int64_t> grown;
  };
  static int64_t of(const Reading& reading, Key key) {
    const auto at = reading.grown.find(key);
    return at == reading.grown.end() ? 0 : at->second;
  }

  std::deque<Reading> readings_;
  std::map<Key, int64_t> last_, grown_;
};

}  // namespace towline::serve
