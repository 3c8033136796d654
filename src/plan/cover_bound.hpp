// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Can nodes cover the layers of a model with a flow of F? In whole nodes a layer, which the sums of
// plan/bounds.hpp do not see: two nodes of 0.6 F cover a layer, and a fifth of them is wasted.
//
// A *hand* is a multiset of holders (a node of some kind that holds k layers passes at most T(k))
// whose rates sum up to F or more: what covers one layer. A node that holds k layers plays in k
// hands, so a hand uses 1/k of it. With y_h layers covered by hand h,
//   maximise sum_h y_h  subject to  sum_h use_h,r y_h <= supply_r  for each kind r of node, y >= 0
// is at least the number of layers that any placement passes F through, whichever way layers are
// arranged. Where it is known that some layers must be shared by two nodes or more, hands of one
// node alone are limited to the others: one more row.
//
// The programme has few rows and many columns: column generation (P. C. Gilmore, R. E. Gomory, "A
// linear programming approach to the cutting-stock problem", 1961), where pricing is a knapsack.
// For any prices u >= 0 the optimum is at most  supply * u / (price of the cheapest hand), so an
// answer of "no" rests on the prices and on a lower bound of one knapsack alone.
#pragma once

#include <cstdint>
#include <span>

namespace towline::plan {

// A layer on one node that holds k layers.
struct Holder {
  int32_t resource = 0;  // kind of node; rows of `supply`
  double use = 0;        // of the resource: 1/k (of machines with devices: devices/k)
  double rate = 0;       // tokens/s, > 0
};

// False only if it is proven that `layers` layers cannot be covered with `flow` each, `shared` of
// them by two nodes or more. flow > 0. Milliseconds; many kinds of nodes (48) are not looked at.
bool can_cover(std::span<const double> supply, std::span<const Holder> holders, double flow,
               double layers, double shared = 0);

}  // namespace towline::plan
