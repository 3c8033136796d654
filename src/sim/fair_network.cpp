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

FairNetwork::FairNetwork(const std::vector<double>& capacities) : resources_(capacities.size()) {
  for (size_t i = 0; i < capacities.size(); ++i) resources_[i].capacity = capacities[i];
}

// Fills members_ with the flows that share resources, directly or through others, with `from`.
void FairNetwork::connected(const std::array<int32_t, 3>& from) {
  members_.clear();
  touched_.clear();
  const auto touch = [&](int32_t resource) {
    if (resource == kNone || resources_[resource].growing != 0) return;
    resources_[resource].growing = 1;  // as a mark; reset below
    touched_.push_back(resource);
  };
  for (const int32_t resource : from) touch(resource);
  for (size_t i = 0; i < touched_.size(); ++i) {
    for (int32_t use = resources_[touched_[i]].first; use != kNone;) {
      const int32_t slot = use / 3;
      use = flows_[slot].next[use % 3];
      if (flows_[slot].marked) continue;
      flows_[slot].marked = true;
      members_.push_back(slot);
      for (const int32_t resource : flows_[slot].resources) touch(resource);
    }
  }
  for (const int32_t resource : touched_) resources_[resource].growing = 0;
  for (const int32_t slot : members_) flows_[slot].marked = false;
  std::sort(members_.begin(), members_.end(),
            [&](int32_t a, int32_t b) { return flows_[a].order < flows_[b].order; });
}

// New rates for members_, which are all that use touched_.
void FairNetwork::share(int64_t now) {
  for (const int32_t r : touched_) resources_[r].room = resources_[r].capacity;
  for (const int32_t slot : members_) {
    Flow& flow = flows_[slot];
    flow.left -= flow.rate * (static_cast<double>(now - flow.since) * 1e-9);
    flow.since = now;
    flow.rate = -1;
    for (const int32_t r : flow.resources) {
      if (r != kNone) ++resources_[r].growing;
    }
  }
  for (size_t fixed = 0; fixed < members_.size();) {
    // The resource whose fair share is least is full first; its flows stop there.
    double least = std::numeric_limits<double>::infinity();
    for (const int32_t r : touched_) {
      if (resources_[r].growing > 0) least = std::min(least, resources_[r].share());
    }
    const double limit = least * (1 + 1e-12);
    for (const int32_t slot : members_) {
      Flow& flow = flows_[slot];
      if (flow.rate >= 0) continue;
      const bool stops =
          std::any_of(flow.resources.begin(), flow.resources.end(), [&](int32_t r) {
            return r != kNone && resources_[r].share() <= limit;
          });
      if (!stops) continue;
      flow.rate = least;
      ++fixed;
      for (const int32_t r : flow.resources) {
        if (r == kNone) continue;
        resources_[r].room -= least;
        --resources_[r].growing;
      }
    }
  }
  for (const int32_t slot : members_) set_end(now, slot);
}

// When it ends at its rate.
void FairNetwork::set_end(int64_t now, int32_t slot) {
  Flow& flow = flows_[slot];
  flow.end = INT64_MAX;
  if (flow.left <= kDone) {
    flow.end = now;
  } else if (flow.rate > 0) {
    const double ns = std::ceil(flow.left / flow.rate * 1e9);
    if (ns < 9e18) flow.end = now + static_cast<int64_t>(ns);
  }
  if (flow.end == INT64_MAX) return;
  ends_.push_back({flow.end, flow.order, slot});
  std::push_heap(ends_.begin(), ends_.end());
}

// Does any flow use one of them?
bool FairNetwork::used(const std::array<int32_t, 3>& resources) const {
  return std::any_of(resources.begin(), resources.end(), [&](int32_t r) {
    return r != kNone && resources_[r].first != kNone;
  });
}

// Puts the flow's uses into the lists of its resources.
void FairNetwork::join(int32_t slot) {
  Flow& flow = flows_[slot];
  for (int32_t i = 0; i < 3; ++i) {
    const int32_t r = flow.resources[i], use = 3 * slot + i;
    if (r == kNone) continue;
    flow.before[i] = kNone;
    flow.next[i] = std::exchange(resources_[r].first, use);
    if (flow.next[i] != kNone) flows_[flow.next[i] / 3].before[flow.next[i] % 3] = use;
  }
}

// A flow that shares nothing: what share() would give it.
void FairNetwork::start_alone(int64_t now, int32_t slot) {
  Flow& flow = flows_[slot];
  flow.rate = std::numeric_limits<double>::infinity();
  for (const int32_t r : flow.resources) {
    if (r != kNone) flow.rate = std::min(flow.rate, std::max(resources_[r].capacity, 0.0));
  }
  set_end(now, slot);
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
          .next = {},
          .before = {},
          .left = std::max(bytes, 0.0),
          .rate = 0,
          .since = now,
          .end = 0,
          .tag = tag,
          .order = next_order_++,
          .active = true,
          .marked = false};
  ++active_;
  const bool alone = !used(resources);
  join(slot);
  if (alone) return start_alone(now, slot);
  connected(resources);
  share(now);
}

void FairNetwork::set_capacity(int64_t now, int32_t resource, double bytes_per_second) {
  connected({resource, kNone, kNone});
  resources_[resource].capacity = bytes_per_second;
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
  for (int32_t i = 0; i < 3; ++i) {
    if (flow.resources[i] == kNone) continue;
    const int32_t next = flow.next[i], before = flow.before[i];
    (before == kNone ? resources_[flow.resources[i]].first : flows_[before / 3].next[before % 3]) =
        next;
    if (next != kNone) flows_[next / 3].before[next % 3] = before;
  }
  free_.push_back(slot);
}

void FairNetwork::finish(int64_t now, std::vector<uint64_t>& tags) {
  due_.clear();
  while (next_end() <= now) {
    due_.emplace_back(ends_.front().order, ends_.front().slot);
    flows_[ends_.front().slot].end = INT64_MAX;  // not found again
  }
  std::sort(due_.begin(), due_.end());
  for (const auto& [order, slot] : due_) {
    const std::array<int32_t, 3> resources = flows_[slot].resources;
    tags.push_back(flows_[slot].tag);
    remove(slot);
    if (!used(resources)) continue;  // it shared nothing
    connected(resources);
    share(now);
  }
}

}  // namespace towline::sim
