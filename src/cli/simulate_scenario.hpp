// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline simulate --scenario FILE`: the machines, links, limits and workload of a scenario
// (spec/scenario.hpp) as the simulator takes them. The same file starts real processes with
// `towline up`, so that the two can be held against each other.
#pragma once

#include <string>

#include "base/result.hpp"
#include "cli/simulate_options.hpp"
#include "sim/stage_engine.hpp"
#include "spec/scenario.hpp"

namespace towline::cli {

// Nodes and links. Times of a layer come from `profile` (a file of `towline profile`, or a built-in
// name), else from the scenario's, else from the built-in profile called like its model, else from
// the model's shape and what is known of the machines (spec/roofline.hpp). A worker without a
// type is of the profile's only one. Layers: the worker's, else the plan's, else divided by speed.
// A link that the scenario does not name takes no time; a share of lost messages makes it slower by
// that share, jitter longer by its half.
// With [emulation] plan_workers, `prompt_machines` of the cluster process
// prompts and the others decode.
Result<sim::HelixInput> scenario_input(const spec::Scenario& scenario, const std::string& profile,
                                       int prompt_machines = 0);

// The coordinator's limits, router and steps in flight, as `towline up` has them; --depth,
// --kv-high-water and --output-ratio count more.
Result<void> adopt_serving(const spec::Scenario& scenario, const SimulateOptions& o,
                           sim::StageOptions& options);

// Trace, rate, number and seed of requests, where the command line gives none. With a trace or a
// rate the mode is online.
void adopt_workload(const spec::Scenario& scenario, SimulateOptions& o);

}  // namespace towline::cli
