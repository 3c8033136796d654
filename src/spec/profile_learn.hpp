// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A profile learned in serving: the tables of a machine, corrected by what its workers' runs took.
//
// A profile is measured on a machine that does nothing else; a worker has other processes beside
// it, waits between runs, and finds its memory where the kernel put it. So the shape of the tables
// is kept where it was not seen in serving, and their heights are those of the recorded runs.
//
// Method. Every row of the decode table, and of the prompt table, has a factor:
// the sum of what the runs near it took, over the sum of what the profile has for them;
// a run between two rows counts for both, the nearer one more, as interpolation goes.
// Rows with few runs near them lean on the factor of all runs of their kind: half a second of runs
// weighs as much as that. The head and the context's costs move with their kind's factor. Sums,
// not means of ratios: what is simulated is time.
//
// Pure functions; values; thread-compatible.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spec/profile.hpp"
#include "spec/run_record.hpp"

namespace towline::spec {

// A row of a table before and after, and how much was seen near it.
struct LearnedRow {
  double rows = 0;
  double before = 0, after = 0;    // seconds a layer
  double runs = 0, seconds = 0;    // by the shares that count here
};

struct LearnedTimes {
  DeviceProfile device;
  std::vector<LearnedRow> decode, prompt;
  int64_t runs = 0;                // that were learned from
  int64_t left_out = 0;            // steps through different layers
  double factor = 1;               // of all runs, measured over profile
  // The record in ten parts of equal time: the slowest part's factor over the fastest one's, by the
  // times learned. What is beyond 1 the machine did meanwhile, and no profile can know.
  double drift = 1;
};

// Fails if no run can be compared, or if the device has no tables.
Result<LearnedTimes> learn_times(const DeviceProfile& device, int32_t model_layers,
                                 std::span<const RunRecord> runs);

}  // namespace towline::spec
