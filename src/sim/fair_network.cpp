// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/fair_network.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace towline::sim {
namespace {

constexpr double kDone = 1e-6;  // bytes; less than this is rounding

}  // namespace

// Fills members_ with the flows that share resources, directly or through others, with `from`.
void FairNetwork::connected(const std::array<int32_t, 3>& from) {
  members_.clear();
  touched_.clear();
  const auto touch = [&](int32_t resource) {
    if (resource == kNone || growing_[resource] != 0) return;
    growing_[resource] = 1;  // as a mark; reset below
    touched_.push_back(resource);
  };
  for (const int32_t resource : from) touch(resource);
  for (size_t i = 0; i < touched_.size(); ++i) {
    for (const int32_t slot : through_[touched_[i]]) {
      if (flows_[slot].marked) continue;
      flows_[slot].marked = true;
      members_.push_back(slot);
      for (const int32_t resource : flows_[slot].resources) touch(resource);
    }
  }
  for (const int32_t resource : touched_) growing_[resource] = 0;
  for (const int32_t slot : members_) flows_[slot].marked = false;
  std::sort(members_.begin(), members_.end(),
            [&](int32_t a, int32_t b) { return flows_[a].order < flows_[b].order; });
}

// New rates for members_, which are all that use touched_.
void FairNetwork::share(int64_t now) {
  for (const int32_t resource : touched_) room_[resource] = capacities_[resource];
  for (const int32_t slot : members_) {
    Flow& flow = flows_[slot];
    flow.left -= flow.rate * (static_cast<double>(now - flow.since) * 1e-9);
    flow.since = now;
    flow.rate = -1;
    for (const int32_t r : flow.resources) {
      if (r != kNone) ++growing_[r];
    }
  }
  for (size_t fixed = 0; fixed < members_.size();) {
    // The resource whose fair share is least is full first; its flows stop there.
    double least = std::numeric_limits<double>::infinity();
    for (const int32_t r : touched_) {
      if (growing_[r] > 0) least = std::min(least, std::max(room_[r], 0.0) / growing_[r]);
    }
    const double limit = least * (1 + 1e-12);
    for (const int32_t slot : members_) {
      Flow& flow = flows_[slot];
      if (flow.rate >= 0) continue;
      const bool stops =
          std::any_of(flow.resources.begin(), flow.resources.end(), [&](int32_t r) {
            return r != kNone && std::max(room_[r], 0.0) / growing_[r] <= limit;
          });
      if (!stops) continue;
      flow.rate = least;
      ++fixed;
      for (const int32_t r : flow.resources) {
        if (r == kNone) continue;
        room_[r] -= least;
        --growing_[r];
      }
    }
  }
  for (const int32_t slot : members_) {
    Flow& flow = flows_[slot];
    flow.end = INT64_MAX;
    if (flow.left <= kDone) {
      flow.end = now;
    } else if (flow.rate > 0) {
      const double ns = std::ceil(flow.left / flow.rate * 1e9);
      if (ns < 9e18) flow.end = now + static_cast<int64_t>(ns);
    }
    if (flow.end == INT64_MAX) continue;
    ends_.push_back({flow.end, flow.order, slot});
    std::push_heap(ends_.begin(), ends_.end());
  }
}

void FairNetwork::start(int64_t now, double bytes, std::array<int32_t, 3> resources, uint64_t tag) {
  int32_t slot;
  if (free_.empty()) {
    slot = static_cast<int32_t>(flows_.size());
    flows_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  Flow& flow = flows_[slot];
  flow = {.resources = resources,
          .left = std::max(bytes, 0.0),
          .rate = 0,
          .since = now,
          .end = 0,
          .tag = tag,
          .order = next_order_++,
          .active = true,
          .marked = false};
  ++active_;
  for (const int32_t r : resources) {
    if (r != kNone) through_[r].push_back(slot);
  }
  connected(resources);
  share(now);
}

void FairNetwork::set_capacity(int64_t now, int32_t resource, double bytes_per_second) {
  connected({resource, kNone, kNone});
  capacities_[resource] = bytes_per_second;
  share(now);
}

int64_t FairNetwork::next_end() {
  while (!ends_.empty() && stale(ends_.front())) {
    std::pop_heap(ends_.begin(), ends_.end());
    ends_.pop_back();
  }
  return ends_.empty() ? INT64_MAX : ends_.front().when;
}

void FairNetwork::remove(int32_t slot) {
  Flow& flow = flows_[slot];
  flow.active = false;
  --active_;
  for (const int32_t r : flow.resources) {
    if (r == kNone) continue;
    std::vector<int32_t>& list = through_[r];
    *std::find(list.begin(), list.end(), slot) = list.back();
    list.pop_back();
  }
  free_.push_back(slot);
}

void FairNetwork::finish(int64_t now, std::vector<uint64_t>& tags) {
  std::vector<std::pair<uint64_t, int32_t>> due;  // order, slot
  while (next_end() <= now) {
    due.emplace_back(ends_.front().order, ends_.front().slot);
    flows_[ends_.front().slot].end = INT64_MAX;  // not found again
  }
  std::sort(due.begin(), due.end());
  for (const auto& [order, slot] : due) {
    const std::array<int32_t, 3> resources = flows_[slot].resources;
    tags.push_back(flows_[slot].tag);
    remove(slot);
    connected(resources);
    share(now);
  }
}

}  // namespace towline::sim
