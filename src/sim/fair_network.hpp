// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FairNetwork: transfers as fluid flows that share NICs and links max-min fairly.
//
// A transfer passes over up to three resources (the sender's NIC, the link, the receiver's NIC).
// Rates are those of progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2): all rates
// grow together, a flow stops growing when one of its resources is full. When a transfer begins or
// ends or a capacity changes, only the flows connected with it through shared resources are shared
// out anew: in a large cluster these are few. Latency is the caller's business.
//
// Time is integer nanoseconds; bytes and rates are doubles; transfers end rounded up to the next
// nanosecond. Deterministic: flows are walked in the order in which they began. Not thread-safe.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace towline::sim {

class FairNetwork {
 public:
  static constexpr int32_t kNone = -1;

  explicit FairNetwork(const std::vector<double>& capacities);

  // Begins a transfer of `bytes` over the resources (kNone: not used; none twice);
  // `tag` comes back at its end.
  void start(int64_t now, double bytes, std::array<int32_t, 3> resources, uint64_t tag);
  void set_capacity(int64_t now, int32_t resource, double bytes_per_second);

  // A transfer over this resource may begin soon.
  void prefetch(int32_t resource) const { __builtin_prefetch(&resources_[resource]); }

  bool idle() const { return active_ == 0; }
  // When the first of the transfers ends if nothing changes; INT64_MAX if none ever does.
  int64_t next_end();
  // Ends the transfers that are due at `now` and appends their tags, in order of their beginning.
  void finish(int64_t now, std::vector<uint64_t>& tags);
  // bytes/s of the flow in this slot (slots are given out from 0 up and used again), for tests.
  double rate(size_t slot) const { return flows_[slot].rate; }

 private:
  struct Flow {
    std::array<int32_t, 3> resources{};
    std::array<int32_t, 3> next{}, before{};  // uses of the same resource
    double left = 0;       // bytes, at `since`
    double rate = 0;       // bytes/s
    int64_t since = 0;     // ns
    int64_t end = 0;       // ns, at this rate
    uint64_t tag = 0;
    uint64_t order = 0;    // of its beginning
    bool active = false, marked = false;
  };
  struct End {
    int64_t when;
    uint64_t order;        // which flow of the slot, by the time of its beginning...
    int32_t slot;
    friend bool operator<(const End& a, const End& b) {  // a max-heap: the earliest on top
      return a.when != b.when ? a.when > b.when : a.order > b.order;
    }
  };
  struct Resource {
    double capacity = 0;
    double room = 0;         // scratch of share()
    int32_t growing = 0;     // flows still growing, or a mark; 0 between calls
    int32_t first = kNone;   // use of it; a flow's use number i (of its resources) is 3 * slot + i
    double share() const { return std::max(room, 0.0) / growing; }
  };
  bool stale(const End& end) const {
    const Flow& flow = flows_[end.slot];
    return !flow.active || flow.order != end.order || flow.end != end.when;
  }
  void connected(const std::array<int32_t, 3>& from);
  void share(int64_t now);
  bool used(const std::array<int32_t, 3>& resources) const;
  void join(int32_t slot);
  void start_alone(int64_t now, int32_t slot);
  void set_end(int64_t now, int32_t slot);
  void remove(int32_t slot);

  std::vector<Resource> resources_;
  std::vector<Flow> flows_;
  std::vector<int32_t> free_;
  std::vector<End> ends_;                      // heap; entries of changed flows go stale
  uint64_t next_order_ = 0;
  int64_t active_ = 0;
  // Scratch of connected() and share().
  std::vector<int32_t> members_;               // slots, by order of beginning
  std::vector<int32_t> touched_;               // resources of the members
  std::vector<std::pair<uint64_t, int32_t>> due_;  // order, slot; scratch of finish()
};

}  // namespace towline::sim
