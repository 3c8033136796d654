// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/serving.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "plan/sample_instances.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

// `nodes` equal nodes for `layers` layers, links for nothing.
struct Toy {
  Instance instance;
  ServingModel model;

  Toy(int32_t nodes, int32_t layers, double kv_tokens) {
    instance.layers = layers;
    model.layers = layers;
    model.requests = {.input = 100, .output = 50, .input_spread = 1};
    for (int32_t i = 0; i < nodes; ++i) {
      std::vector<double> rates;
      ServingNode node;
      for (int32_t k = 1; k <= layers; ++k) {
        rates.push_back(1e6 / k);
        node.kv_tokens.push_back(kv_tokens / k);
      }
      node.decode_seconds.assign(512, 0.001);
      node.prompt_seconds = 0.010;
      instance.rates.push_back(std::move(rates));
      model.nodes.push_back(std::move(node));
      instance.links.push_back({kSource, i, 1e9});
      instance.links.push_back({i, kSink, 1e9});
      for (int32_t j = 0; j < nodes; ++j) {
        if (i != j) instance.links.push_back({i, j, 1e9});
      }
    }
    model.nearest.resize(nodes);
    model.between.resize(static_cast<size_t>(nodes) * nodes);
  }

  ServingEstimate of(const std::vector<LayerRange>& ranges, const LatencyGoals& goals = {}) const {
    FlowEvaluator evaluator(instance, false);
    const double flow = evaluator.flow(ranges);
    return ServingEstimator(model).estimate(evaluator, ranges, flow, goals);
  }
};

// With so little KV that requests hardly meet, latencies are those of an idle machine.
TEST(ServingEstimate, IsLittlesLawOnAnIdleMachine) {
  const Toy toy(1, 4, 4 * 150 / 0.72 * 0.01);  // a hundredth of a request fits
  const ServingEstimate e = toy.of({{0, 4}});
  EXPECT_NEAR(e.in_flight, 0.01, 1e-5);
  EXPECT_NEAR(e.decode_latency, 1.5 * 4 * 0.001, 1e-4);
  EXPECT_NEAR(e.prompt_latency, 4 * 0.010 + 0.5 * 4 * 0.001, 1e-4);
  EXPECT_NEAR(e.requests, 0.01 / (e.prompt_latency + 50 * e.decode_latency), 1e-5);
  EXPECT_NEAR(e.decode_tps, 50 * e.requests, 1e-9);
  EXPECT_NEAR(e.tokens, 150 * e.requests, 1e-9);
}

TEST(ServingEstimate, LittlesLawHoldsAtEveryLoadAndMoreKvServesMore) {
  double before = 0;
  for (const double kv : {1e3, 1e4, 1e5, 1e6}) {
    const ServingEstimate e = Toy(2, 4, kv).of({{0, 2}, {2, 4}});
    EXPECT_NEAR(e.in_flight, e.requests * (e.prompt_latency + 50 * e.decode_latency), 1e-9);
    EXPECT_GT(e.decode_tps, before);
    before = e.decode_tps;
  }
}

// Two chains side by side share no convoys: their decodes are quicker than those of one chain of
// the same nodes and load.
TEST(ServingEstimate, ParallelBranchesMeetFewerConvoys) {
  const Toy toy(4, 4, 1e5);
  const ServingEstimate chain = toy.of({{0, 1}, {1, 2}, {2, 3}, {3, 4}});
  const ServingEstimate branches = toy.of({{0, 2}, {0, 2}, {2, 4}, {2, 4}});
  EXPECT_GT(chain.decode_latency, branches.decode_latency);
}

TEST(ServingEstimate, GoalsLowerTheRateUntilTheyAreMet) {
  const Toy toy(2, 4, 1e5);
  const std::vector<LayerRange> ranges = {{0, 2}, {2, 4}};
  const ServingEstimate free = toy.of(ranges);
  const LatencyGoals goals{.ttft = 0, .tpot = 0.5 * free.decode_latency};
  const ServingEstimate bound = toy.of(ranges, goals);
  EXPECT_LT(bound.decode_tps, free.decode_tps);
  EXPECT_GT(bound.decode_tps, 0);
  EXPECT_LE(bound.decode_latency, goals.tpot * (1 + 1e-9));
  EXPECT_EQ(toy.of(ranges, {.ttft = 0, .tpot = 1e-6}).decode_tps, 0);
}

// Copies of the KV cache: they halve its room, and what they need of the links bounds the rate.
TEST(ServingEstimate, CopiesOfTheKvCacheTakeMemoryAndLinks) {
  const std::vector<LayerRange> ranges = {{0, 2}, {2, 4}};
  const auto copying = [&](double link, double nic, double copies) {
    Toy toy(2, 4, 1e5);
    ServingModel::Replication& r = toy.model.replication;
    r = {copies, 100, 40, {nic, nic}, {nic, nic}, {0, link, link, 0}};
    return toy.of(ranges);
  };
  const double free = copying(1e12, 1e12, 0).requests;
  EXPECT_EQ(copying(1e12, 1e12, 1).requests, free);  // memory is replicate()'s part
  // A request is 150 tokens; a token's copy of two layers is 200 bytes, its activation 40.
  EXPECT_NEAR(copying(1500, 1e12, 1).requests, 1500 / (150 * 240.0), 1e-9);
  EXPECT_NEAR(copying(1500, 1e12, 2).requests, 1500 / (150 * 440.0), 1e-9);
  EXPECT_NEAR(copying(1e12, 1200, 1).requests, 1200 / (150 * 240.0), 1e-9);
  EXPECT_LT(copying(1500, 1e12, 2).requests, free);

  Rng rng(9);
  const PlanProblem problem = random_problem(rng, 6);
  ServingModel model = make_serving_model(problem, {}, {});
  const double alone = model.nodes[0].kv_tokens[0];
  replicate(model, problem, 1, 1000);
  EXPECT_EQ(model.nodes[0].kv_tokens[0], alone / 2);
  EXPECT_EQ(model.replication.links.size(), model.between.size());
  EXPECT_GT(model.replication.links[1], 0);
}

// Behind a hub every pair of nodes shares what passes; of one node nothing can be copied away.
TEST(ServingEstimate, CopiesGoToWhoeverTakesOver) {
  Toy toy(4, 4, 1e5);
  std::vector<double> links(16, 900.0);
  toy.model.replication = {1, 100, 40, std::vector<double>(4, 1e12), std::vector<double>(4, 1e12),
                           links};
  // Two nodes before the hub, two behind: a quarter of the tokens takes each of the four links, and
  // the copies of the last two go back the same way, without activations.
  const ServingEstimate e = toy.of({{0, 2}, {0, 2}, {2, 4}, {2, 4}});
  EXPECT_NEAR(e.requests, 900 / (150 * 240.0 / 4), 1e-6);
  Toy one(1, 4, 1e5);
  one.model.replication = {1, 100, 40, {1e12}, {1e12}, {0}};
  EXPECT_EQ(one.of({{0, 4}}).requests, 0);
}

// It ranks Helix's published plan above the plan of the greatest flow, as simulation does.
TEST(ServingEstimate, RanksAsTheSimulatorDoes) {
  NEEDS_SHARED_DATA();
  const auto problem = helix_problem("single24", "llama2-70b");
  ASSERT_TRUE(problem) << problem.error().to_string();
  const ServingModel model = make_serving_model(*problem, *spec::builtin_profile("llama2-70b"), {});
  const Instance instance = to_instance(*problem);
  FlowEvaluator evaluator(instance, false);
  const auto estimate = [&](const std::string& file) {
    const auto solution = spec::load_helix_solution(helix_folder() + "/layouts/" + file);
    const Placement placement = *placement_of(*solution, *problem);
    const double flow = evaluator.flow(placement.nodes);
    return ServingEstimator(model).estimate(evaluator, placement.nodes, flow).decode_tps;
  };
  const double published = estimate("example_single24_70b/ilp/ilp_sol.ini");      // 248 simulated
  const double chain = estimate("ours_chain_single24_70b/chain_sol.ini");         // 224
  const double swarm = estimate("example_single24_70b/swarm/swarm_sol.ini");      // 128
  EXPECT_GT(published, chain);
  EXPECT_GT(chain, swarm);
}

// Arcs of the last flow: conserved at every station, listed after those that lead there.
TEST(VertexFlows, AreConservedAndInOrder) {
  for_seeds(60, [](Rng& rng) {
    const Instance instance = sample_instance(
        rng, {.nodes = 9, .layers = 7, .longest = 5,
              .regions = static_cast<int32_t>(rng.between(1, 3))});
    const bool partial = rng.below(2) == 0;
    FlowEvaluator evaluator(instance, partial);
    const Placement placement = sample_placement(rng, instance);
    const double value = evaluator.flow(placement.nodes);
    std::vector<VertexFlow> list;
    evaluator.flows(list);
    std::vector<double> balance(200, 0);
    std::vector<bool> left(200, false);
    double out = 0, in = 0;
    for (const VertexFlow& arc : list) {
      if (arc.from == kSource) out += arc.flow;
      if (arc.to == kSink) in += arc.flow;
      if (arc.from >= 0) {
        balance[arc.from] -= arc.flow;
        left[arc.from] = true;
      }
      if (arc.to < 0) continue;
      balance[arc.to] += arc.flow;
      EXPECT_FALSE(left[arc.to]);
    }
    EXPECT_NEAR(out, value, 1e-6);
    EXPECT_NEAR(in, value, 1e-6);
    for (const double rest : balance) EXPECT_NEAR(rest, 0, 1e-6);
  });
}

}  // namespace
}  // namespace towline::plan
