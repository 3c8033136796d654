// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The grain of a stage against that of a layer: the same statistics and the same finished
// iterations, to the last digit. (helix_engine_test.cpp holds both against the published runs.)
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/for_seeds.hpp"
#include "base/json.hpp"
#include "sim/helix_engine.hpp"
#include "sim/helix_report.hpp"
#include "sim/testing_helix.hpp"

namespace towline::sim {
namespace {

// All that is printed but the events: the results, or why there are none. Both grains must agree.
std::string outcome(const HelixInput& input, HelixOptions options, const HelixTraffic& traffic,
                    int64_t& events) {
  options.finished_limit = 1'000'000;
  auto engine = HelixEngine::make(input, options, traffic);
  if (!engine) return engine.error().to_string();
  auto report = engine->run(nullptr, nullptr);
  if (!report) return report.error().to_string();
  events = report->events.total();
  report->events = {};
  return helix_report_json(input, options, *report).dump() + finished_csv(*report);
}

void expect_same_in_both_grains(const HelixInput& input, HelixOptions options,
                                const HelixTraffic& traffic) {
  int64_t layer_events = 0, stage_events = 0;
  options.stage_grain = false;
  const std::string layers = outcome(input, options, traffic, layer_events);
  options.stage_grain = true;
  const std::string stages = outcome(input, options, traffic, stage_events);
  const auto apart =
      static_cast<size_t>(std::ranges::mismatch(layers, stages).in1 - layers.begin());
  const size_t from = apart < 200 ? 0 : apart - 200;
  ASSERT_TRUE(layers == stages) << "..." << layers.substr(from, 400) << "\nbut with stages\n..."
                                << stages.substr(from, 400);
  ASSERT_LE(stage_events, layer_events);
}

// A ladder of nodes whose layers overlap, so that many enter a node in the midst of its layers.
// Each is of another kind: of equal ones that go in step, stages may not find out who came first.
HelixInput ladder(Rng& rng) {
  HelixInput input;
  input.total_layers = 12;
  input.token_bytes = 2;
  input.activation_bytes = 1000;
  input.layer_bytes = 1e9;
  input.coordinator_nic_in = input.coordinator_nic_out = 1e9;
  const LayerRange layers[] = {{0, 5}, {0, 4}, {3, 8}, {4, 9}, {6, 12}, {8, 12}, {5, 12}};
  const auto nodes = static_cast<int32_t>(std::size(layers));
  for (int32_t i = 0; i < nodes; ++i) {
    HelixNode node;
    node.name = "n" + std::to_string(i);
    node.layers = layers[i];
    node.machine = i;
    const double slow = 1 + 0.07 * i;
    LayerTimes times;
    for (int k = 0; k <= 5000; ++k) {
      times.prompt.push_back(slow * (0.3e-4 * k + 0.7e-5 * std::sqrt(k)));
    }
    for (int k = 0; k <= 500; ++k) {
      times.decode.push_back(slow * (0.9e-4 * k + 1e-4 * std::sqrt(k)));
    }
    input.times.push_back(std::move(times));
    node.nic_in = node.nic_out = node.disk = 1e9;
    node.kv_capacity = rng.below(6) == 0 ? 3'000 : 1'000'000;
    node.rate = 100;
    node.limits = {1 + static_cast<int32_t>(rng.below(4)), 400,
                   2 + static_cast<int32_t>(rng.below(20)), 100'000};
    input.nodes.push_back(node);
  }
  const double latency = 0.0003 * static_cast<double>(1 + rng.below(4));
  const auto link = [&](int32_t from, int32_t to) {
    input.links.push_back({from, to, latency, 1e6 * static_cast<double>(1 << rng.below(8))});
  };
  for (int32_t a = 0; a < nodes; ++a) {
    if (layers[a].begin == 0) link(policy::kSourceNode, a);
    if (layers[a].end == 12) link(a, policy::kSinkNode);
    for (int32_t b = 0; b < nodes; ++b) {
      if (layers[b].begin <= layers[a].end && layers[b].end > layers[a].end) link(a, b);
    }
  }
  plan_flow(input);
  return input;
}

TEST(HelixGrain, StagesGiveWhatLayersGive) {
  for_seeds(60, [](Rng& rng) {
    const HelixInput input = ladder(rng);
    HelixOptions options;
    options.seed = rng.below(1000);
    options.router = static_cast<HelixRouter>(rng.below(4));
    options.online = rng.below(2) == 0;
    options.feed_rate = 100 * static_cast<double>(1 + rng.below(8));
    options.initial_queries = 1 + static_cast<int32_t>(rng.below(40));
    options.hop_seconds = rng.below(3) == 0 ? 0.00021 : 0;
    options.compute = rng.below(3) == 0 ? 1.1 : 1;
    options.warm_up = 0;
    options.duration = 60;
    const HelixTraffic traffic{{{50, 5}, {7, 30}, {120, 12}, {64, 1}}, {1, 2, 3}};
    expect_same_in_both_grains(input, options, traffic);
  });
}

struct Case {
  const char* layout;
  const char* solution;
  HelixRouter router;
  bool online;
};

TEST(HelixGrain, StagesGiveWhatLayersGiveOnPublishedLayouts) {
  NEEDS_SHARED_DATA();
  const std::string data = helix_data();
  const HelixTraffic traffic = azure_traffic();
  const Case cases[] = {
      {"example_single24_70b/ilp", "ilp_sol.ini", HelixRouter::kMaxFlow, false},
      {"example_single24_70b/ilp", "ilp_sol.ini", HelixRouter::kMaxFlow, true},
      {"example_single24_70b/ilp", "ilp_sol.ini", HelixRouter::kRandom, false},
      {"example_single24_70b/petals", "petals_sol.ini", HelixRouter::kMaxFlow, false},
      {"example_single24_70b/petals", "petals_sol.ini", HelixRouter::kShortestQueue, false},
      {"example_single24_70b/swarm", "swarm_sol.ini", HelixRouter::kSwarm, false},
      {"example_single24_70b/swarm", "swarm_sol.ini", HelixRouter::kSwarm, true},
      {"example_single24_70b/swarm", "swarm_sol.ini", HelixRouter::kShortestQueue, true},
      {"ours_chain_single24_70b", "chain_sol.ini", HelixRouter::kMaxFlow, false},
  };
  uint64_t seed = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.layout) + " " + std::to_string(static_cast<int>(c.router)) +
                 (c.online ? " online" : " offline"));
    const std::string folder = data + "/layouts/" + c.layout + "/";
    const auto input = load_helix_input({folder + "simulator_cluster.ini", folder + c.solution,
                                         "llama2-70b", data + "/profiles", "", ""},
                                        true);
    ASSERT_TRUE(input) << input.error().to_string();
    HelixOptions options;
    options.router = c.router;
    options.online = c.online;
    options.seed = seed++;
    options.feed_rate = c.router == HelixRouter::kMaxFlow ? 500 : 300;
    options.initial_queries = c.router == HelixRouter::kMaxFlow ? 20 : 150;
    if (c.online) options.estimator = {0.9, 240, 0.6};
    options.warm_up = 30;
    options.duration = 150;
    expect_same_in_both_grains(*input, options, traffic);
  }
}

}  // namespace
}  // namespace towline::sim
