// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Probes: what this machine could do at best, measured in the same run as what it did.
//
// Decoding reads every weight once a token, so it is bounded by read_bandwidth; prefill multiplies
// many rows with each weight, so it is bounded by int8_peak (or fma_peak for float types). Memory
// bandwidth of a virtual machine may drift by a factor of two within minutes: probe right before
// and after what you compare with it.
#pragma once

#include "base/result.hpp"
#include "engine/kernel/compute_team.hpp"
#include "engine/kernel/kernel_table.hpp"

namespace towline::engine {

// Bytes a second that the team reads from memory: `bytes` (larger than the last-level cache, e.g.
// 256 MiB) of huge-page memory, split evenly, the best of several passes within `seconds`.
Result<double> measure_read_bandwidth(ComputeTeam& team, const KernelTable& table, int64_t bytes,
                                      double seconds);

// Operations a second (a multiply and an add count as two) of the instruction that the table uses
// for int8 products, and for float32 products, all operands in registers.
double measure_int8_peak(ComputeTeam& team, const KernelTable& table, double seconds);
double measure_fma_peak(ComputeTeam& team, const KernelTable& table, double seconds);

}  // namespace towline::engine
