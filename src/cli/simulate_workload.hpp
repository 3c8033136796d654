// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The workload of `towline simulate --policy towline`: a trace file, which is streamed anew
// for every run and never held whole; the arrivals in a journal (what if?); ServeGen's clients;
// or lengths to draw from with an arrival process. Each may begin sessions of several turns.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/simulate_options.hpp"
#include "sim/stage_engine.hpp"
#include "spec/servegen.hpp"

namespace towline::cli {

struct Workload {
  std::string trace;
  std::vector<spec::TraceRequest> recorded;          // of --arrivals-of
  std::vector<spec::ServeGenClient> clients;
  double servegen_rate = 0;                          // their mean requests/s
  double trace_rate = 0;                             // requests/s of the trace; 0: not counted
  std::vector<std::pair<int32_t, int32_t>> lengths;  // (input, output), of --lengths
};

// Reads the trace through once if a rate must be scaled. Const and safe to share afterwards.
Result<Workload> load_workload(const SimulateOptions& o);

// The requests from the beginning. `rate`: requests/s, 0: as the trace
// has them. `work` outlives it.
Result<sim::StageEngine::Source> open_source(const Workload& work, const SimulateOptions& o,
                                             double rate, uint64_t seed);

// The rows of these options.
void add_workload_options(OptionTable& table, SimulateOptions& o);

// With --turns above 1: what the client of a request that finished asks next. A pure
// function of the request and the seed. Lengths of a turn are drawn from `work`'s lengths,
// or else are those of the request before.
std::function<std::optional<sim::FollowUp>(const sim::RequestRecord&)> follow_up_of(
    const Workload& work, const SimulateOptions& o);

}  // namespace towline::cli
