// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FairNetwork: transfers as fluid flows that share NICs and links max-min fairly.
//
// A transfer passes over up to three resources (the sender's NIC, the link, the receiver's NIC).
// Rates are those of progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2): all rates
// grow together, a flow stops growing when one of its resources is full. They are computed anew
// whenever a transfer begins, ends or a capacity changes. Latency is the caller's business.
//
// Time is integer nanoseconds; bytes and rates are doubles; transfers end rounded up to the next
// nanosecond. Deterministic: flows are walked in the order in which they began. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace towline::sim {

class FairNetwork {
 public:
  static constexpr int32_t kNone = -1;

  explicit FairNetwork(std::vector<double> capacities) : capacities_(std::move(capacities)) {}

  // Begins a transfer of `bytes` over the resources (kNone: not used); `tag` comes back at its end.
  void start(int64_t now, double bytes, std::array<int32_t, 3> resources, uint64_t tag);
  void set_capacity(int64_t now, int32_t resource, double bytes_per_second);

  bool idle() const { return flows_.empty(); }
  // When the first of the transfers ends if nothing changes; INT64_MAX if none ever does.
  int64_t next_end() const { return next_end_; }
  // Ends the transfers that are due at `now` and appends their tags, in order of their beginning.
  void finish(int64_t now, std::vector<uint64_t>& tags);
  // bytes/s of the i-th transfer under way, for tests.
  double rate(size_t i) const { return flows_[i].rate; }

 private:
  struct Flow {
    std::array<int32_t, 3> resources;
    double left = 0;   // bytes
    double rate = 0;   // bytes/s
    uint64_t tag = 0;
  };
  void progress(int64_t now);
  void share();

  std::vector<double> capacities_;
  std::vector<Flow> flows_;
  int64_t last_ = 0;
  int64_t next_end_ = INT64_MAX;
  std::vector<double> room_;      // scratch of share(), [resource]
  std::vector<int32_t> growing_;  // scratch of share(), [resource] flows still growing
  std::vector<int32_t> used_;     // scratch of share(), resources of any flow
};

}  // namespace towline::sim
