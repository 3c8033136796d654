// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Many runs of `towline simulate --policy towline`: over seeds, and the search for the greatest
// rate that keeps the goals. Runs are independent and spread over threads; what is printed does
// not depend on how many there are.
#pragma once

#include "cli/simulate_workload.hpp"
#include "sim/helix_input.hpp"

namespace towline::cli {

Result<int> sweep_seeds(const SimulateOptions& o, const sim::HelixInput& input,
                        const sim::StageOptions& options, const Workload& work);
Result<int> find_max_rate(const SimulateOptions& o, const sim::HelixInput& input,
                          const sim::StageOptions& options, const Workload& work);

}  // namespace towline::cli
