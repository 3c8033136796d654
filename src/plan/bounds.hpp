// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Upper bounds of the static flow of any placement of an instance.
//
// U0, trivial (Helix): a flow of F uses F * L layer-tokens a second and node i supplies at most
//   max_k k T_i(k), so F <= (1/L) sum_i max_k k T_i(k).
// U1, truncated capacity: each layer is used exactly F times, and a node that holds k layers adds
//   at most min(T_i(k), F) to each of them, so F * L <= sum_i g_i(F), g_i(u) = max_k k min(T_i(k),
//   u). The right side divided by F does not increase in F: bisection.
// U2, link-aware, U2 <= U1. For a target F call two nodes near if a link of capacity >= F joins
//   them, and consider the connected groups of near nodes.
//   (a) No more tokens pass a node than links carry into it or out of it, nor than links carry into
//       or out of its group: T_i(k) is cut down to that.
//   (b) Strict inference only. If every layer is in use on a single node, all F tokens go from each
//       node to the next over one link: the nodes are of one group, and the numbers of layers that
//       each of its nodes holds at a rate of F or more sum up to L. If no group has that, some
//       layer is shared by two nodes i and j whose tokens are different ones, u_i + u_j <= F, and
//       F * L <= sum g(F) - min over pairs i, j and over u of [g_i(F) - g_i(u) + g_j(F) - g_j(F -
//       u)].
//   (c) Every layer needs whole nodes whose rates sum up to F, at least one of them two nodes or
//       more if (b) says that a layer is shared (plan/cover_bound.hpp).
//   A placement that passes a flow also passes every smaller one, so any F that fails is a bound.
//
// The alternatives of a machine with several devices (Instance::machines) count as the best subset
// that its devices allow.
#pragma once

#include "plan/instance.hpp"

namespace towline::plan {

// tokens/s, from loosest to tightest.
double capacity_bound(const Instance& instance);                    // U0
double truncated_capacity_bound(const Instance& instance);          // U1 <= U0
double link_aware_bound(const Instance& instance, bool partial);    // U2 <= U1

}  // namespace towline::plan
