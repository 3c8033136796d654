// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Admission: who is let in, who waits, and who is turned away, with the reason.
//
// Online, requests arrive when they like: one is queued unless the queue is full. Offline, there is
// more work than time: wants_more() says when to take another from the pile, which is while nobody
// waits and the KV caches are expected to stay below the feeding mark (the feeder of Helix, ASPLOS'25).
// Either way the requests that wait are placed in order of rank (priority, then arrival). The first
// in line waits until the cluster has room for it; it is turned away only when nothing under way
// could ever make that room. So nothing is lost and nobody starves: every request that arrives is
// placed, rejected or withdrawn, once. A request that was placed and lost its place (its node died)
// goes back to its old rank.
//
// A pure machine: no clock, no I/O; copyable. Calls about ids that are not in the state named are
// bugs and CHECK.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/ids.hpp"

namespace towline::policy {

struct AdmissionLimits {
  int64_t waiting = 1'000'000;  // requests without a place, beyond those for which one is free
  int64_t placed = std::numeric_limits<int64_t>::max();  // requests with a place
  double feed_high_water = 0.8;  // offline: expected KV use, 0..1, above which nobody is fed
  bool offline = false;          // the host itself feeds: those that wait are placed by that mark
};

inline constexpr std::string_view kQueueFull = "queue full";

// Whether one more request than these must be turned away. For drivers that keep no queue of their
// own, such as one process's engine, whose batcher holds those that wait.
bool queue_full(const AdmissionLimits& limits, int64_t waiting, int64_t placed);

class Admission {
 public:
  explicit Admission(AdmissionLimits limits) : limits_(limits) {}

  // False: turned away with kQueueFull, and not known any more.
  bool arrive(RequestId id, int32_t priority = 0);
  // Offline: should the driver let another one arrive now? `pressure`: the expected KV use.
  bool wants_more(double pressure) const;

  // Who is to be placed now; nothing while nobody waits, all places are taken, or the first in line
  // is known not to fit.
  std::optional<RequestId> next() const;
  // next() has its place.
  void place(RequestId id);
  // next() found no room. True: it waits until something ends or changes. False: nothing that is
  // under way could make room; it is turned away and not known any more.
  bool refuse(RequestId id);

  void end(RequestId id);       // one that was placed ended
  void displace(RequestId id);  // one that was placed waits again
  void withdraw(RequestId id);  // one that waits is cancelled
  void changed() { stuck_ = false; }  // the cluster may have room that it had not

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t placed() const { return static_cast<int64_t>(known_.size()) - waiting(); }

 private:
  struct Rank {
    int32_t priority = 0;
    int64_t arrival = 0;
    RequestId id;
    friend auto operator<=>(const Rank&, const Rank&) = default;
  };
  const Rank& rank_of(RequestId id) const;

  AdmissionLimits limits_;
  std::set<Rank> waiting_;
  std::map<RequestId, Rank> known_;
  int64_t next_arrival_ = 0;
  bool stuck_ = false;  // the first in line was refused and nothing has changed since
};

}  // namespace towline::policy
