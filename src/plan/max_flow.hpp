// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Maximum flow on a graph with real capacities: the textbook algorithm of Dinic (Soviet Math.
// Doklady 11, 1970) without tricks, because it is the judge. The search (local_search.hpp) has an
// evaluator of its own on a contracted graph; every plan that is reported is measured again here.
//
// The flow of an arc is kept, never its residual: capacities of 5e9 beside flows of 1e3 would cost
// the residual its last seven digits.
#pragma once

#include <vector>

#include "plan/graph.hpp"

namespace towline::plan {

struct MaxFlow {
  double value = 0;          // net flow out of the source
  std::vector<double> flow;  // [arc], 0 <= flow <= capacity
  // [vertex] on the source's side of the minimum cut nearest to the source. The arcs that leave
  // this side are saturated, and their capacities add up to `value`.
  std::vector<bool> source_side;
};

// `source` != `sink`, both vertices of the graph. Residual capacities up to `tolerance` (in the
// unit of the capacities) count as none. O(V^2 E); deterministic: arcs are tried in their order.
MaxFlow max_flow(const FlowGraph& graph, int32_t source, int32_t sink, double tolerance = 1e-9);

}  // namespace towline::plan
