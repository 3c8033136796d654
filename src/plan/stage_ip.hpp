// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Aligned stages: the best pipeline in which every stage is a set of nodes that hold the same
// layers.
//
// For a target flow F a multiset c of node types forms a stage of depth
//   k_c(F) = max { k : sum over t in c of T_t(k) >= F },
// and F is reached if disjoint stages of total depth >= L can be formed:
//   max sum_c k_c(F) z_c   subject to   sum_c count_t(c) z_c <= N_t for each type t,  z integer.
// The best F is one of the finitely many sums of T_t(k), found by bisection over their sorted list;
// each integer programme has a row per type, however many nodes there are, and is solved by our own
// simplex and depth-first branch and bound.
//
// Links are ignored: the result is exact where every node reaches every other freely, and a start
// for the local search elsewhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/instance.hpp"

namespace towline::plan {

struct StagePlan {
  double flow = 0;                           // what the stages can pass; 0: no plan
  std::vector<std::vector<int32_t>> stages;  // node indices, in pipeline order
  std::vector<LayerRange> ranges;            // [stage]
};

struct StageLimits {
  int32_t max_width = 3;  // nodes per stage; lowered while there are too many multisets
  int32_t max_columns = 1500;
  int32_t max_branches = 400;  // branch-and-bound nodes per target flow
};

// The best stage plan of `nodes` (a subset of the instance's) for layers [0, L).
StagePlan best_stages(const Instance& instance, std::span<const int32_t> nodes,
                      const StageLimits& limits = {});

// The stages' ranges per node; nodes outside the plan are idle.
Placement place(const StagePlan& plan, const Instance& instance);

// Nodes with equal tables T form a type; returns the type of each of `nodes`, numbered by first
// occurrence.
std::vector<int32_t> node_types(const Instance& instance, std::span<const int32_t> nodes);

}  // namespace towline::plan
