// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/objectives.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/for_seeds.hpp"
#include "plan/auto.hpp"
#include "plan/sample_instances.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

double obvious_n1(const Instance& instance, const Placement& placement, bool partial) {
  double least = static_flow(instance, placement, partial);
  for (size_t i = 0; i < placement.nodes.size(); ++i) {
    Placement without = placement;
    without.nodes[i] = {};
    least = std::min(least, static_flow(instance, without, partial));
  }
  return least;
}

TEST(Survival, IsTheLeastFlowWithoutOneNode) {
  for_seeds(80, [](Rng& rng) {
    const Instance instance = sample_instance(rng, {.nodes = 8, .layers = 5, .regions = 2});
    const Placement placement = sample_placement(rng, instance);
    const bool partial = rng.below(2) == 0;
    FlowEvaluator evaluator(instance, partial);
    const double flow = evaluator.flow(placement.nodes);
    EXPECT_NEAR(n_minus_1_flow(evaluator, placement.nodes, flow),
                obvious_n1(instance, placement, partial), 1e-6);
  });
}

// Six equal nodes of which any two hold the model: flow wants three pairs in a row of one layer
// each, survival wants them side by side.
TEST(Survival, IsWhatTheSearchMaximises) {
  Rng rng(4);
  Instance instance = sample_instance(rng, {.nodes = 6, .layers = 2, .longest = 2});
  for (std::vector<double>& rates : instance.rates) rates = {100, 50};
  SearchOptions options;
  options.steps = 40'000;
  options.spare_one = true;
  options.worth = worth_of({.goal = Goal::kSurvival});
  const SearchResult result = search_placement(instance, options);
  EXPECT_NEAR(obvious_n1(instance, result.placement, false), 250, 1e-6);
}

TEST(Survival, AsADemandIsMetWhereItCanBe) {
  for_seeds(6, [](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = 5, .layers = 3, .longest = 3, .regions = 1});
    // The best of all placements that keep half of what any placement can keep.
    double most = 0;
    Placement placement;
    placement.nodes.resize(instance.rates.size());
    std::vector<std::pair<double, double>> all;  // (n1, flow)
    const auto place_from = [&](auto&& self, int32_t node) -> void {
      if (node == instance.nodes()) {
        const double n1 = obvious_n1(instance, placement, false);
        most = std::max(most, n1);
        all.emplace_back(n1, static_flow(instance, placement, false));
        return;
      }
      placement.nodes[node] = {};
      for (int32_t size = 1; size <= instance.max_count(node); ++size) {
        for (int32_t begin = 0; begin + size <= instance.layers; ++begin) {
          placement.nodes[node] = {begin, begin + size};
          self(self, node + 1);
        }
      }
    };
    place_from(place_from, 0);
    if (most <= 0) return;
    double best = 0;
    for (const auto& [n1, flow] : all) {
      if (n1 >= 0.5 * most) best = std::max(best, flow);
    }
    SearchOptions options;
    options.steps = 60'000;
    options.spare_one = true;
    options.worth = worth_of({.least_n1 = 0.5 * most});
    const SearchResult result = search_placement(instance, options);
    EXPECT_GE(obvious_n1(instance, result.placement, false), 0.5 * most - 1e-6);
    EXPECT_GE(result.flow, best * (1 - 1e-6));
  });
}

// The cheapest nodes for a wanted flow, against every placement of small clusters.
TEST(Cost, IsTheLeastThatReachesTheTarget) {
  for_seeds(8, [](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = 4, .layers = 3, .longest = 3, .regions = 1});
    std::vector<double> prices;
    for (int i = 0; i < 4; ++i) prices.push_back(static_cast<double>(rng.between(1, 9)));
    const double most = brute_force_flow(instance, false);
    if (most <= 0) return;
    const double target = most * (0.3 + 0.6 * rng.unit());
    double least = 1e300;
    for (int subset = 1; subset < 16; ++subset) {  // nodes that may be used
      Instance part = instance;
      double price = 0;
      for (int i = 0; i < 4; ++i) {
        if ((subset >> i & 1) == 0) part.rates[i].clear();
        price += (subset >> i & 1) != 0 ? prices[i] : 0;
      }
      if (price < least && brute_force_flow(part, false) >= target) least = price;
    }
    SearchOptions options;
    options.steps = 60'000;
    options.worth = worth_of({.goal = Goal::kCost, .target_rate = target, .prices = prices});
    const SearchResult result = search_placement(instance, options);
    const Placement kept = without_unused(instance, result.placement, false);
    EXPECT_NEAR(static_flow(instance, kept, false), result.flow, 1e-6);
    EXPECT_GE(result.flow, target * (1 - 1e-9));
    double price = 0;
    for (int i = 0; i < 4; ++i) price += kept.nodes[i].empty() ? 0 : prices[i];
    EXPECT_EQ(price, least);
    EXPECT_LE(cost_bound(instance, prices, target), least + 1e-9);
  });
}

// Under every objective: at least as good as each start, and never more than flow and bound.
TEST(Objectives, AreNeverWorseThanTheStarts) {
  for_seeds(8, [](Rng& rng) {
    const PlanProblem problem = random_problem(rng, 6);
    const Instance instance = to_instance(problem);
    const ServingModel model = make_serving_model(problem, {}, {});
    for (const Goal goal : {Goal::kFlow, Goal::kServed, Goal::kGoodput, Goal::kSurvival}) {
      Objective objective{.goal = goal, .model = &model};
      if (goal == Goal::kGoodput) objective.latency = {.ttft = 30, .tpot = 2};
      SearchOptions options;
      options.steps = 2'000;
      options.worth = worth_of(objective);
      FlowEvaluator evaluator(instance, false);
      double best_start = 0;
      for (int i = 0; i < 10; ++i) {
        options.starts.push_back(sample_placement(rng, instance));
        const std::vector<LayerRange>& ranges = options.starts.back().nodes;
        const double flow = evaluator.flow(ranges);
        double worth = flow;
        if (options.worth) worth = flow > 0 ? options.worth()(evaluator, ranges, flow) : 0.0;
        EXPECT_LE(worth, flow * (1 + 1e-9));
        best_start = std::max(best_start, worth);
      }
      const SearchResult result = search_placement(instance, options);
      EXPECT_GE(result.worth, best_start * (1 - 1e-9));
      EXPECT_LE(result.worth, result.flow * (1 + 1e-9));
      EXPECT_LE(result.flow, result.bound * (1 + 1e-9));
    }
  });
}

TEST(LatencyGoals, AreReadOrRefused) {
  const auto both = parse_latency_goals("ttft=2,tpot=250ms");
  ASSERT_TRUE(both);
  EXPECT_EQ(both->ttft, 2);
  EXPECT_EQ(both->tpot, 0.25);
  EXPECT_EQ(parse_latency_goals("")->tpot, 0);
  for (const char* wrong : {"ttft", "x=1", "ttft=", "ttft=-1", "tpot=1h", "ttft=0", "=1", ",",
                            "tpot=nan", "ttft=1e99"}) {
    EXPECT_FALSE(parse_latency_goals(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace towline::plan
