// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Profiles of machines that nobody has measured: the time of a layer is the longer of
// its arithmetic and its memory traffic (S. Williams et al., "Roofline", CACM 52(4),
// 2009), plus a fixed start-up.
//
// Of each peak only a share is reached: kArithmeticShare for prompts, kBandwidthShare for decoding.
// Compared with Helix's measurements of T4, L4, V100 and A100 the tables are right within a factor
// of about two; a measured profile always wins (`towline profile` writes one).
//
// Pure; values.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/model_desc.hpp"
#include "spec/profile.hpp"

namespace towline::spec {

inline constexpr double kArithmeticShare = 0.45;
inline constexpr double kBandwidthShare = 0.7;

struct DeviceSpeed {
  std::string type;
  Bytes memory;                  // for weights and KV cache
  double flops = 0;              // peak operations/s on 2-byte floats; an addition counts as one
  BytesPerSec memory_bandwidth;  // peak
};

// Published figures of well-known devices: "T4", "L4", "V100", "A100", "A100-80", "H100", ... in
// any letter case. Their memory is that of the product; a cluster file may say less.
std::optional<DeviceSpeed> known_device(std::string_view type);

// Tables of one device type, or of `group` such devices as one tensor-parallel group ("T4x2"), for
// every number of layers whose weights fit into half of the memory. `bytes_per_weight` is 2 for
// 2-byte floats, 0.5625 for Q4_0. Fails if not even one layer fits, or a figure is not positive.
Result<DeviceProfile> roofline_device(const ModelDesc& model, const DeviceSpeed& speed,
                                      int32_t group = 1, double bytes_per_weight = 2);

// Tables for every type of the cluster, groups of 2, 4, 8 .. devices included where machines have
// them (up to `largest_group`). A type's arithmetic and bandwidth come from the cluster file, else
// from known_device(); a type with neither is an error that says so. Types on which no layer fits
// are left out if another remains.
Result<Profile> roofline_profile(const ModelDesc& model, const ClusterDesc& cluster,
                                 double bytes_per_weight = 2, int32_t largest_group = 8);

}  // namespace towline::spec
