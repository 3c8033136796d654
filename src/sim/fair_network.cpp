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

void FairNetwork::progress(int64_t now) {
  const double seconds = static_cast<double>(now - last_) * 1e-9;
  for (Flow& flow : flows_) flow.left -= flow.rate * seconds;
  last_ = now;
}

void FairNetwork::share() {
  room_.resize(capacities_.size());
  growing_.resize(capacities_.size(), 0);  // all 0 between two calls
  used_.clear();
  for (Flow& flow : flows_) {
    flow.rate = -1;
    for (const int32_t r : flow.resources) {
      if (r == kNone) continue;
      if (growing_[r]++ > 0) continue;
      used_.push_back(r);
      room_[r] = capacities_[r];
    }
  }
  for (size_t fixed = 0; fixed < flows_.size();) {
    // The resource whose fair share is least is full first; its flows stop there.
    double least = std::numeric_limits<double>::infinity();
    for (const int32_t r : used_) {
      if (growing_[r] > 0) least = std::min(least, std::max(room_[r], 0.0) / growing_[r]);
    }
    const double limit = least * (1 + 1e-12);
    for (Flow& flow : flows_) {
      if (flow.rate >= 0) continue;
      const bool stops = std::any_of(
          flow.resources.begin(), flow.resources.end(), [&](int32_t r) {
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
  next_end_ = INT64_MAX;
  for (const Flow& flow : flows_) {
    if (flow.left <= kDone) {
      next_end_ = last_;
    } else if (flow.rate > 0) {
      const double ns = std::ceil(flow.left / flow.rate * 1e9);
      if (ns < 9e18) next_end_ = std::min(next_end_, last_ + static_cast<int64_t>(ns));
    }
  }
}

void FairNetwork::start(int64_t now, double bytes, std::array<int32_t, 3> resources, uint64_t tag) {
  progress(now);
  flows_.push_back({resources, std::max(bytes, 0.0), 0, tag});
  share();
}

void FairNetwork::set_capacity(int64_t now, int32_t resource, double bytes_per_second) {
  progress(now);
  capacities_[resource] = bytes_per_second;
  share();
}

void FairNetwork::finish(int64_t now, std::vector<uint64_t>& tags) {
  progress(now);
  const auto keep = std::stable_partition(flows_.begin(), flows_.end(), [](const Flow& flow) {
    return flow.left > kDone && flow.left > flow.rate * 1e-9;
  });
  for (auto it = keep; it != flows_.end(); ++it) tags.push_back(it->tag);
  flows_.erase(keep, flows_.end());
  share();
}

}  // namespace towline::sim
