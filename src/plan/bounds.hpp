// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Upper bounds of the static flow of any placement of an instance, strict or partial.
//
// U0, trivial (Helix): a flow of F uses F * L layer-tokens a second and node i supplies at most
//   max_k k T_i(k), so F <= (1/L) sum_i max_k k T_i(k).
// U1, truncated capacity: each layer is used exactly F times, and a node that holds k layers adds
// at
//   most min(T_i(k), F) to each of them, so F * L <= sum_i max_k k min(T_i(k), F). The right side
//   divided by F does not increase in F: bisection.
#pragma once

#include "plan/instance.hpp"

namespace towline::plan {

// tokens/s, from loosest to tightest.
double capacity_bound(const Instance& instance);            // U0
double truncated_capacity_bound(const Instance& instance);  // U1 <= U0

}  // namespace towline::plan
