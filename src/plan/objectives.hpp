// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a search may maximise beside static flow. All are in tokens/s (prompt and output) and never
// exceed the flow, so bounds of the flow hold for them too.
//
//   served    what a full cluster serves: the lesser of the flow and what KV capacity and latency
//             allow by Little's law (plan/serving.hpp)
//   goodput   the same, as far as goals of latency are met
//   cost      what a fleet for a wanted flow costs: half of the lesser of flow and target, and as
//             much again times the share of the prices saved once the target is met
//   n1        the flow that remains after the worst failure of one node (and a hundredth of the
//             flow, to break ties)
// With `least_n1` above 0, any of them only counts in full where the flow after the worst failure
// is at least that; below, it shrinks, so that a search is led towards plans that comply.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "plan/serving.hpp"
#include "plan/worth.hpp"

namespace towline::plan {

enum class Goal { kFlow, kServed, kGoodput, kSurvival, kCost };

struct Objective {
  Goal goal = Goal::kFlow;
  LatencyGoals latency = {};            // kGoodput
  double least_n1 = 0;                  // tokens/s
  const ServingModel* model = nullptr;  // kServed, kGoodput; outlives the search
  double stretch = 1;                   // see ServingEstimator::estimate()
  double target_rate = 0;               // kCost: tokens/s, above 0
  std::vector<double> prices = {};      // kCost: [node]; nodes without flow cost nothing

  bool is_flow() const { return goal == Goal::kFlow && least_n1 <= 0; }
};

// Empty for the flow itself.
WorthMaker worth_of(const Objective& objective);

// The least flow that remains when one node fails. Nodes without flow cannot lower it, so the work
// is a maximum flow for each node that carries some.
double n_minus_1_flow(FlowEvaluator& evaluator, std::span<const LayerRange> ranges, double flow);

// Nodes that carry no flow become idle; the flow stays.
Placement without_unused(const Instance& instance, const Placement& placement, bool partial);

// No nodes that pass `rate` tokens/s cost less: the cheapest fractions of nodes whose layer-tokens
// suffice (plan/bounds.hpp, U1). Infinite if all together do not suffice.
double cost_bound(const Instance& instance, const std::vector<double>& prices, double rate);

// "ttft=2,tpot=0.25" in seconds, either of them alone, or "ttft=800ms".
Result<LatencyGoals> parse_latency_goals(std::string_view text);

}  // namespace towline::plan
