// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a placement is worth.
#pragma once

#include "plan/instance.hpp"

namespace towline::plan {

// The placement's maximum flow in tokens/s on the full network with every link as an arc: the judge
// of what the search found, by max_flow.hpp and none of the search's code.
double static_flow(const Instance& instance, const Placement& placement, bool partial);

}  // namespace towline::plan
