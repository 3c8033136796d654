// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Churn: when machines go away and come back, from recorded traces. The format is recognised:
//   SkyPilot      {"metadata": {"gap_seconds": 300}, "data": [machines available at each tick]}
//   Bamboo        lines  milliseconds,add|remove,name
//                 lines  milliseconds,count          (spot requests that are filled)
//                 lines  date, time, count           (a managed group's size)
//   InfiniteHBD   [{"node_id", "event_time": days, "event_type": "fault_start"|"fault_end"}, ...]
// Traces that only count do not say which machine went: it is drawn from those that are there, by
// `seed`. Faults of one machine may overlap; it is back when the last of them ends.
// Pure; safe against hostile input; at most kMachines machines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace towline::spec {

struct ChurnEvent {
  double at = 0;        // seconds since the trace began
  int32_t machine = 0;  // from 0 up
  bool up = false;      // comes back (or for the first time); else goes away
  friend bool operator==(const ChurnEvent&, const ChurnEvent&) = default;
};

struct ChurnTrace {
  static constexpr int32_t kMachines = 100'000;
  int32_t machines = 0;
  double seconds = 0;              // length of the trace
  std::vector<bool> up_at_start;   // [machine]
  std::vector<ChurnEvent> events;  // in order of time; each changes its machine's state
};

Result<ChurnTrace> parse_churn(std::string_view text, std::string_view source, uint64_t seed);
Result<ChurnTrace> load_churn(const std::string& path, uint64_t seed);

}  // namespace towline::spec
