// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Another maximum flow of the same value that goes along few ways.
//
// Where many flows are greatest, a solver's choice is arbitrary and tends to spread: in a large
// cluster nearly every request then has a way of its own, and steps of one token. Here every node
// keeps the flow that the solver gave it, and ways are peeled off one by one, from each node to the
// neighbour with the most flow left (links that carried flow in the plan before are preferred, so
// that a small change of the cluster changes few ways). That is the decomposition of a flow into
// paths (Ahuja, Magnanti, Orlin, Network Flows, 3.5) with the next arc chosen freely among those
// that have capacity. Equal machines are paired off; a request stays on its pipeline.
#pragma once

#include <span>

#include "sim/helix_input.hpp"

namespace towline::sim {

// Replaces input.flow, a maximum flow, if that can be done without losing more than a millionth of
// its value; else nothing changes. `before` [link]: the flow of the plan before; may be empty.
void keep_to_few_ways(HelixInput& input, std::span<const double> before);

}  // namespace towline::sim
