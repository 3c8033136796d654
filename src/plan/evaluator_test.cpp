// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/evaluator.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "plan/objective.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

SampleShape any_shape(Rng& rng) {
  return {.nodes = static_cast<int32_t>(rng.between(1, 14)),
          .layers = static_cast<int32_t>(rng.between(4, 8)),
          .longest = 4,
          .regions = static_cast<int32_t>(rng.between(1, 3)),
          .link_percent = static_cast<int>(rng.between(30, 100))};
}

// The contracted network has the value of the full one, strict and partial.
TEST(FlowEvaluator, AgreesWithThePlainMaxFlow) {
  int positive = 0;
  for_seeds(300, [&](Rng& rng) {
    const Instance instance = sample_instance(rng, any_shape(rng));
    for (const bool partial : {false, true}) {
      FlowEvaluator evaluator(instance, partial);
      for (int i = 0; i < 20; ++i) {
        const Placement placement = sample_placement(rng, instance);
        const double expected = static_flow(instance, placement, partial);
        EXPECT_NEAR(evaluator.flow(placement.nodes), expected, 1e-6);
        positive += expected > 0 ? 1 : 0;
      }
    }
  });
  EXPECT_GT(positive, 300);  // the comparison is not of zeros
}

TEST(FlowEvaluator, NodeFlowsAreConservedAndTheCutExplainsTheValue) {
  for_seeds(200, [&](Rng& rng) {
    const Instance instance = sample_instance(rng, any_shape(rng));
    FlowEvaluator evaluator(instance, false);
    const Placement placement = sample_placement(rng, instance);
    const double value = evaluator.flow(placement.nodes);
    double first = 0;
    double last = 0;
    for (int32_t node = 0; node < instance.nodes(); ++node) {
      const LayerRange range = placement.nodes[node];
      const double flow = evaluator.node_flow(node);
      if (range.empty()) {
        EXPECT_EQ(flow, 0);
        EXPECT_FALSE(evaluator.in_cut(node));
        continue;
      }
      const double rate = instance.rate(node, range.size());
      EXPECT_LE(flow, rate * (1 + 1e-9));
      if (evaluator.in_cut(node)) {
        EXPECT_NEAR(flow, rate, 1e-6);
      }
      if (range.begin == 0) first += flow;
      if (range.end == instance.layers) last += flow;
    }
    EXPECT_NEAR(first, value, 1e-6);
    EXPECT_NEAR(last, value, 1e-6);
  });
}

TEST(FlowEvaluator, UniformLinksMakeOneGroup) {
  Rng rng(1);
  EXPECT_EQ(FlowEvaluator(sample_instance(rng, {.nodes = 9}), false).groups(), 1);
  EXPECT_EQ(FlowEvaluator(sample_instance(rng, {.nodes = 9, .regions = 3}), false).groups(), 3);
}

}  // namespace
}  // namespace towline::plan
