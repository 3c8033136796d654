// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a scenario's [serving] means for the coordinator. The running cluster and the simulator both
// begin here, so that one file sets the same limits for both.
#pragma once

#include "base/result.hpp"
#include "policy/coordinator.hpp"
#include "spec/scenario.hpp"

namespace towline::policy {

// Router, batching, steps in flight and queue; the rest is the default or the driver's. Fails if there
// is no such router ("iwrr" is the flow router; words may be joined by '_' or '-').
Result<CoordinatorOptions> coordinator_options(const spec::ScenarioServing& serving);

// Of these the part that its Host has.
HostOptions host_options(const CoordinatorOptions& options);

}  // namespace towline::policy
