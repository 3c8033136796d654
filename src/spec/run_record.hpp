// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RunRecord: what a worker's rank recorded of one run of its layers (worker/run_trace.hpp): when,
// how long, and all that its time depends on by a profile (spec/profile.hpp).
//
// Pure data and pure functions; values; thread-compatible.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "spec/profile.hpp"

namespace towline::spec {

struct RunRecord {
  double begin = 0, seconds = 0;  // begin: of the machine's steady clock
  int32_t lane = -1;              // of its first step, and that step's number
  int64_t step = -1;
  int32_t steps = 1;
  LayerRange layers;              // empty: its steps went through different layers
  LayerBatch batch;
  int32_t drawn = 0;              // rows that yielded a token
  double end() const { return begin + seconds; }
};

// The runs of a trace, in its order; failed runs are left out. `source` names it in errors.
// Fails on spans without layers or rows, or with numbers that no worker writes.
Result<std::vector<RunRecord>> parse_runs(const Json& trace, std::string_view source);

// Seconds that the profile has for it. Its layers must not be empty; the head counts where they are
// the model's last.
double run_seconds(const DeviceProfile& device, int32_t model_layers, const RunRecord& run);

// What messages take, seen from the workers: the time from a run's end to the run that
// follows from it, where the receiver was idle and waited for nothing else. One step
// a run, and generated tokens only.
struct MessageTimes {
  double between = 0;      // seconds from a worker's run of a step to the next worker's: the mean
  double coordinator = 0;  // from the last worker's run to the first worker's of the step after it,
                           // over the coordinator: two messages and a decision
  int64_t betweens = 0, coordinators = 0;  // of so many
  // A message, on the mean of a round through `workers` of them; 0: nothing is known.
  double mean(int32_t workers) const;
};
// Runs by rank, of one clock, each in the order of time; a node's rank 0 alone.
MessageTimes message_times(std::span<const std::vector<RunRecord>> ranks, int32_t model_layers);

}  // namespace towline::spec
