// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The workload of `towline simulate --policy towline`: a trace file, which is streamed anew for every
// run and never held whole, or lengths to draw from with an arrival process.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/simulate_options.hpp"
#include "sim/stage_engine.hpp"

namespace towline::cli {

struct Workload {
  std::string trace;
  double trace_rate = 0;                             // requests/s of the trace; 0: not counted
  std::vector<std::pair<int32_t, int32_t>> lengths;  // (input, output), of --lengths
};

// Reads the trace through once if a rate must be scaled. Const and safe to share afterwards.
Result<Workload> load_workload(const SimulateOptions& o);

// The requests from the beginning. `rate`: requests/s, 0: as the trace has them. `work` outlives it.
Result<sim::StageEngine::Source> open_source(const Workload& work, const SimulateOptions& o,
                                             double rate, uint64_t seed);

}  // namespace towline::cli
