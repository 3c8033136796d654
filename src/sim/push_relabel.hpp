// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Maximum flow by highest-label push-relabel with global relabelling and the gap rule (Goldberg and
// Tarjan, J. ACM 35, 1988; Cherkassky and Goldberg, Algorithmica 19, 1997), in the order of steps
// in which the published Helix system's solver takes them.
//
// Why a second solver beside plan/max_flow.hpp: where the optimum is degenerate the arc flows
// depend on the order of the steps, and Helix's scheduler divides its load by these very flows.
// Only the Helix mode of the simulator uses this one. What cannot be repeated is which
// of several active vertices of one height is taken (the reference asks a hash table
// of strings); here it is the one of lowest number. Where the result depends on that,
// the arc flows must be given (--flows).
#pragma once

#include <vector>

#include "plan/graph.hpp"
#include "plan/max_flow.hpp"

namespace towline::sim {

// Arcs of positive capacity must not be doubled, nor have an opposite. `source_side` of the result
// is left empty.
plan::MaxFlow push_relabel_flow(const plan::FlowGraph& graph, int32_t source, int32_t sink);

}  // namespace towline::sim
