// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FlowGraph: a directed graph with capacities, as plain data; the input of max_flow().
//
// Vertices are 0..vertices-1. Arcs keep the order in which they were added; an arc's number is its
// index. Capacities are in whatever unit the caller flows (tokens/s in this folder); they are
// finite and not negative. Parallel arcs and loops are allowed.
#pragma once

#include <cstdint>
#include <vector>

namespace towline::plan {

struct FlowArc {
  int32_t from = 0;
  int32_t to = 0;
  double capacity = 0;
};

struct FlowGraph {
  int32_t vertices = 0;
  std::vector<FlowArc> arcs;

  int32_t add_vertex() { return vertices++; }
  int32_t add_arc(int32_t from, int32_t to, double capacity) {
    arcs.push_back({from, to, capacity});
    return static_cast<int32_t>(arcs.size()) - 1;
  }
};

}  // namespace towline::plan
