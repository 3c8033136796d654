// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What befalls the machines of `towline simulate --policy towline`: disturbances, churn,
// the networks between regions, prices.
#pragma once

#include <vector>

#include "cli/simulate_options.hpp"
#include "sim/stage_engine.hpp"

namespace towline::cli {

// The rows of these options.
void add_world_options(OptionTable& table, SimulateOptions& o);

// --disturb and --churn, in order of time.
Result<std::vector<sim::Disturbance>> load_disturbances(const SimulateOptions& o,
                                                        const sim::HelixInput& input);

// --network, --regions and --prices change the machines and links of the input.
Result<void> apply_world(const SimulateOptions& o, sim::HelixInput& input);

}  // namespace towline::cli
