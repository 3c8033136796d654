// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RegionLinks: what lies between two regions, from the matrices that Skyplane's authors measured.
// Files are CSV with a header that names the columns; which file it is shows in them:
//   latency      src_region, dst_region, avg_rtt (ms), mdev_rtt (ms)
//   throughput   src_region, dst_region, throughput_sent (bit/s)
//   egress       src, dest or dst, cost (USD/GB)
// Several rows of a pair (other tiers, other runs): the least latency, the greatest throughput and
// the least price count. Pairs are directed; a latency that is there only one way serves both.
// Pure; safe against hostile input.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::spec {

struct RegionLink {
  std::optional<Seconds> latency;         // one way: half of the round trip
  Seconds jitter;                         // mean deviation, one way
  std::optional<BytesPerSec> bandwidth;
  double price = 0;                       // USD a GB (10^9 bytes) that leaves; 0: not known
};

class RegionLinks {
 public:
  // Adds a file's pairs to those known.
  Result<void> read(std::string_view text, std::string_view source);
  Result<void> load(const std::string& path);

  bool knows(std::string_view region) const;
  // Everything that is known of the way; empty if nothing is.
  RegionLink between(std::string_view from, std::string_view to) const;
  size_t pairs() const { return links_.size(); }

 private:
  std::map<std::pair<std::string, std::string>, RegionLink> links_;
};

}  // namespace towline::spec
