// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The Helix mode on small clusters that can be reckoned by hand, and against the published runs.
#include "sim/helix_engine.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/for_seeds.hpp"
#include "base/json.hpp"
#include "plan/max_flow.hpp"
#include "sim/helix_report.hpp"
#include "sim/push_relabel.hpp"
#include "sim/testing_helix.hpp"

namespace towline::sim {
namespace {

// `nodes` in a chain, two layers each; a layer takes 10 ms a prompt token and 1 ms a decode.
HelixInput chain(int32_t nodes) {
  HelixInput input;
  input.total_layers = 2 * nodes;
  input.token_bytes = 2;
  input.activation_bytes = 1000;
  input.layer_bytes = 1e9;
  input.coordinator_nic_in = input.coordinator_nic_out = 1e9;
  LayerTimes times;
  for (int i = 0; i <= 5000; ++i) times.prompt.push_back(0.01 * i);
  for (int i = 0; i <= 500; ++i) times.decode.push_back(i == 1 ? 0.0005 : 0.001 * i);
  input.times.push_back(times);
  for (int32_t i = 0; i < nodes; ++i) {
    HelixNode node;
    node.name = "n" + std::to_string(i);
    node.layers = {2 * i, 2 * i + 2};
    node.nic_in = node.nic_out = node.disk = 1e9;
    node.kv_capacity = 1'000'000;
    node.rate = 100;
    node.limits = {4, 4000, 100, 100'000};
    input.nodes.push_back(node);
    input.links.push_back({i - 1, i, 0.001, 1e9});  // node -1 is the source
  }
  input.links.push_back({nodes - 1, policy::kSinkNode, 0.001, 1e9});
  plan_flow(input);
  return input;
}

HelixReport run(HelixInput input, HelixOptions options, HelixTraffic traffic) {
  options.finished_limit = 1'000'000;
  auto engine = HelixEngine::make(std::move(input), options, std::move(traffic));
  EXPECT_TRUE(engine) << (engine ? "" : engine.error().to_string());
  auto report = engine->run(nullptr, nullptr);
  EXPECT_TRUE(report) << (report ? "" : report.error().to_string());
  return *std::move(report);
}

TEST(HelixEngine, OneQueryTakesWhatItsPartsTake) {
  HelixOptions options;
  options.initial_queries = 1;
  options.feed_high_water = 0;  // nothing else comes
  options.warm_up = 0;
  const HelixReport r = run(chain(2), options, {{{100, 3}}, {}});
  // Models: 2 GB at 1 GB/s, then a whole second. The feeder waits for a bottleneck of 0: it feeds
  // one more when the first has ended.
  EXPECT_EQ(r.started, 3);
  ASSERT_GE(r.finished.size(), 4u);
  const double host = 100 * 1000 / 4e9 + 100 * 1000 / 5e9;        // copies of a prompt
  const double hops = 3 * 0.001 + 200 / 1e9 * 2 + 100'200 / 1e9;  // latency and bytes
  EXPECT_NEAR(r.finished[0].latency, 4 * 1.0 + 2 * host + hops, 1e-9);
  EXPECT_TRUE(r.finished[0].prompt);
  for (int i = 1; i <= 3; ++i) {
    EXPECT_FALSE(r.finished[i].prompt);
    EXPECT_EQ(r.finished[i].previous_tokens, 99 + i);
    // A single decode costs twice the interpolated time.
    EXPECT_NEAR(r.finished[i].latency, 4 * 0.001 + 2 * (1000 / 4e9 + 1000 / 5e9) + 0.003 + 1e-6,
                2e-6);
  }
}

TEST(HelixEngine, EveryQueryEndsOnceAndTokensAddUp) {
  for_seeds(12, [](Rng& rng) {
    HelixOptions options;
    options.seed = rng.below(1000);
    options.router = static_cast<HelixRouter>(rng.below(4));
    options.online = rng.below(2) == 0;
    options.feed_rate = 60;
    options.initial_queries = 12;
    options.warm_up = 0;
    options.duration = 60;
    HelixInput input = chain(3);
    // A second replica of the middle node, so that routers have something to choose.
    input.nodes.push_back(input.nodes[1]);
    input.nodes[3].name = "n3";
    input.links.push_back({0, 3, 0.002, 5e8});
    input.links.push_back({3, 2, 0.002, 5e8});
    plan_flow(input);
    const HelixTraffic traffic{{{50, 5}, {7, 30}, {120, 12}}, {1, 2, 3}};
    const HelixReport r = run(input, options, traffic);
    int64_t tokens = 0, prompts = 0;
    std::map<int64_t, int32_t> position;  // by query
    double last = 0;
    for (const FinishedIteration& f : r.finished) {
      ASSERT_GE(f.finish_time, last);
      last = f.finish_time;
      ASSERT_GT(f.latency, 0);
      ASSERT_EQ(f.previous_tokens, position[f.query]);  // iterations in order, none twice
      position[f.query] += f.tokens;
      tokens += f.tokens;
      prompts += f.prompt;
    }
    ASSERT_EQ(tokens, r.total_tokens);
    ASSERT_EQ(r.last_finished, last);
    ASSERT_GT(prompts, 0);
    if (options.online) {
      ASSERT_EQ(r.active, 0);
      ASSERT_EQ(prompts, r.finished_queries);
    }
    // The same seed gives the same run, to the last bit.
    const HelixReport again = run(input, options, traffic);
    ASSERT_EQ(helix_report_json(input, options, r).dump(),
              helix_report_json(input, options, again).dump());
    ASSERT_EQ(finished_csv(r), finished_csv(again));
  });
}

TEST(HelixEngine, RefusesInputThatCannotBeSimulated) {
  const HelixTraffic traffic{{{10, 10}}, {}};
  HelixInput gap = chain(3);
  gap.nodes[1].layers = {3, 4};
  EXPECT_FALSE(HelixEngine::make(gap, {}, traffic));
  HelixInput dead_end = chain(2);
  dead_end.links.pop_back();
  HelixOptions random;
  random.router = HelixRouter::kRandom;
  EXPECT_FALSE(HelixEngine::make(dead_end, random, traffic));
  HelixInput slow = chain(2);
  slow.links[1].bandwidth = 0;
  EXPECT_FALSE(HelixEngine::make(slow, {}, traffic));
  EXPECT_FALSE(HelixEngine::make(chain(2), {}, {}));
  HelixOptions online;
  online.online = true;
  EXPECT_FALSE(HelixEngine::make(chain(2), online, traffic));
}

TEST(HelixEngine, SaysWhichNodeOverflows) {
  HelixInput input = chain(2);
  input.nodes[1].kv_capacity = 300;
  HelixOptions options;
  options.router = HelixRouter::kRandom;
  options.initial_queries = 4;
  auto engine = HelixEngine::make(input, options, {{{100, 10}}, {}});
  ASSERT_TRUE(engine);
  const auto report = engine->run(nullptr, nullptr);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code(), Code::kExhausted);
  EXPECT_NE(report.error().to_string().find("n1"), std::string::npos);
}

TEST(HelixEngine, StopsWhenAskedAndSaysSo) {
  const std::atomic<bool> stop{true};
  HelixOptions options;
  options.duration = 6000;
  auto engine = HelixEngine::make(chain(3), options, {{{10, 100}}, {}});
  ASSERT_TRUE(engine);
  const auto report = engine->run(nullptr, &stop);
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->interrupted);
}

TEST(PushRelabel, FindsTheValueOfDinic) {
  for_seeds(300, [](Rng& rng) {
    plan::FlowGraph graph;
    graph.vertices = static_cast<int32_t>(2 + rng.below(12));
    for (int32_t a = 0; a < graph.vertices; ++a) {
      for (int32_t b = a + 1; b < graph.vertices; ++b) {
        if (rng.below(3) != 0) continue;
        const bool forward = rng.below(4) != 0;
        graph.add_arc(forward ? a : b, forward ? b : a, static_cast<double>(rng.below(100)));
      }
    }
    const int32_t sink = graph.vertices - 1;
    const plan::MaxFlow flow = push_relabel_flow(graph, 0, sink);
    EXPECT_DOUBLE_EQ(flow.value, plan::max_flow(graph, 0, sink).value);
    std::vector<double> excess(graph.vertices);
    for (size_t i = 0; i < graph.arcs.size(); ++i) {
      EXPECT_GE(flow.flow[i], 0);
      EXPECT_LE(flow.flow[i], graph.arcs[i].capacity);
      excess[graph.arcs[i].from] -= flow.flow[i];
      excess[graph.arcs[i].to] += flow.flow[i];
    }
    for (int32_t v = 1; v < sink; ++v) EXPECT_NEAR(excess[v], 0, 1e-9);
    EXPECT_NEAR(excess[sink], flow.value, 1e-9);
  });
}

struct Layout {
  const char* flows;       // runs/flows/<flows>.json
  const char* folder;      // of layouts/
  const char* solution;
  const char* model;
  const char* machines;
  bool unique;             // the arc flows do not depend on the order of the solver's steps
};

// Every published flow: the value, and where it is unique every arc, to the last digit.
TEST(HelixGolden, FlowsOfThePublishedLayouts) {
  NEEDS_SHARED_DATA();
  const char* const k24 = "A100=4,L4=8,T4=12";
  const Layout layouts[] = {
      {"example_single24_70b_ilp", "example_single24_70b/ilp", "ilp_sol.ini", "llama2-70b", k24,
       true},
      {"example_single24_70b_petals", "example_single24_70b/petals", "petals_sol.ini",
       "llama2-70b", k24, true},
      {"example_single24_70b_swarm", "example_single24_70b/swarm", "swarm_sol.ini", "llama2-70b",
       k24, true},
      {"example_single24_70b_homogeneous", "example_single24_70b/homogeneous",
       "homogeneous_sol.ini", "llama2-70b", k24, true},
      {"ae_single_cluster_70b_ilp", "ae_single_cluster/layout_llama70b/ilp", "ilp_sol.ini",
       "llama2-70b", k24, true},
      {"ae_single_cluster_70b_petals", "ae_single_cluster/layout_llama70b/petals",
       "petals_sol.ini", "llama2-70b", k24, true},
      {"ae_single_cluster_70b_swarm", "ae_single_cluster/layout_llama70b/swarm", "swarm_sol.ini",
       "llama2-70b", k24, true},
      {"ae_single_cluster_30b_ilp_a100", "ae_single_cluster/layout_llama30b/ilp/a100",
       "ilp_sol.ini", "llama1-30b", "A100=4", true},
      {"ae_single_cluster_30b_ilp_l4", "ae_single_cluster/layout_llama30b/ilp/l4", "ilp_sol.ini",
       "llama1-30b", "L4=8", true},
      {"ae_single_cluster_30b_ilp_t4", "ae_single_cluster/layout_llama30b/ilp/t4", "ilp_sol.ini",
       "llama1-30b", "T4=12", true},
      {"ae_single_cluster_30b_petals", "ae_single_cluster/layout_llama30b/petals",
       "petals_sol.ini", "llama1-30b", k24, false},
      {"ae_single_cluster_30b_swarm", "ae_single_cluster/layout_llama30b/swarm", "swarm_sol.ini",
       "llama1-30b", k24, false},
  };
  for (const Layout& layout : layouts) {
    SCOPED_TRACE(layout.flows);
    const std::string folder = helix_data() + "/layouts/" + layout.folder + "/";
    const std::string flows = helix_data() + "/runs/flows/" + layout.flows + ".json";
    HelixFiles files{folder + "simulator_cluster.ini", folder + layout.solution, layout.model,
                     helix_data() + "/profiles", "", layout.machines};
    const auto solved = load_helix_input(files, true);
    ASSERT_TRUE(solved) << solved.error().to_string();
    const auto golden = load_json(flows);
    ASSERT_TRUE(golden);
    EXPECT_NEAR(solved->max_flow, (*golden)["max_flow"].as_double(), 1e-6);
    EXPECT_NEAR(solved->max_compute, (*golden)["upper_bound"].as_double(), 1e-9);
    files.flows = flows;
    const auto given = load_helix_input(files, true);
    ASSERT_TRUE(given) << given.error().to_string();
    if (!layout.unique) continue;
    for (size_t i = 0; i < solved->flow.size(); ++i) {
      EXPECT_NEAR(solved->flow[i], given->flow[i], 1e-6) << "link " << i;
    }
  }
}

// A published run: all statistics and the first 2000 finished iterations, to the last digit.
void expect_published_run(const std::string& name, const std::string& folder,
                          const std::string& solution, HelixRouter router, int32_t queries,
                          double warm_up, double duration, bool stage_grain) {
  const std::string data = helix_data();
  const HelixFiles files{data + "/layouts/" + folder + "/simulator_cluster.ini",
                         data + "/layouts/" + folder + "/" + solution,
                         "llama2-70b",
                         data + "/profiles",
                         "",
                         ""};
  auto input = load_helix_input(files, router == HelixRouter::kMaxFlow);
  ASSERT_TRUE(input) << input.error().to_string();
  HelixOptions options;
  options.router = router;
  options.initial_queries = queries;
  options.warm_up = warm_up;
  options.duration = duration;
  options.stage_grain = stage_grain;
  const HelixReport r = run(*input, options, azure_traffic());
  const auto golden = load_json(data + "/runs/" + name + ".json");
  ASSERT_TRUE(golden);
  const Json& want = (*golden)["res"];
  const Json got = helix_report_json(*input, options, r);
  for (const char* key :
       {"max_compute", "decode_tps", "prompt_lat", "decode_lat", "n_prompt", "n_decode",
        "prompt_p50", "prompt_p99", "decode_p50", "decode_p99", "last_finished", "total_tokens",
        "total_tps", "finished_queries", "active"}) {
    EXPECT_EQ(got[key].as_double(), want[key].as_double()) << key;
  }
  if (stage_grain) {
    const double share = router == HelixRouter::kMaxFlow ? 0.33 : 0.7;
    EXPECT_LT(got["events"].as_double(), share * want["events"].as_double());
  } else {
    EXPECT_EQ(got["events"].as_double(), want["events"].as_double());
  }
  if (router == HelixRouter::kMaxFlow) {
    EXPECT_EQ(got["max_flow"].as_double(), want["max_flow"].as_double());
  }
  std::ifstream csv(data + "/runs/" + name + ".finished.csv");
  std::string line;
  std::getline(csv, line);
  size_t i = 0;
  for (; std::getline(csv, line); ++i) {
    std::vector<std::string> cells;
    std::stringstream words(line);
    for (std::string cell; std::getline(words, cell, ',');) cells.push_back(cell);
    ASSERT_EQ(cells.size(), 8u);
    const FinishedIteration& f = r.finished.at(i);
    ASSERT_EQ(f.request, std::stoll(cells[1])) << i;
    ASSERT_EQ(f.query, std::stoll(cells[2])) << i;
    ASSERT_EQ(f.tokens, std::stoi(cells[4])) << i;
    ASSERT_EQ(f.previous_tokens, std::stoi(cells[5])) << i;
    ASSERT_EQ(f.finish_time, std::stod(cells[6])) << i;
    ASSERT_EQ(f.latency, std::stod(cells[7])) << i;
  }
  EXPECT_GT(i, 1000u);
}

// [stage grain]
class HelixGoldenRun : public testing::TestWithParam<bool> {};

TEST_P(HelixGoldenRun, OfflineMaxFlow) {
  NEEDS_SHARED_DATA();
  expect_published_run("single24_ilp_offline_maxflow", "example_single24_70b/ilp", "ilp_sol.ini",
                       HelixRouter::kMaxFlow, 20, 60, 600, GetParam());
}

TEST_P(HelixGoldenRun, OfflineRandom) {
  NEEDS_SHARED_DATA();
  expect_published_run("single24_ilp_offline_random", "example_single24_70b/ilp", "ilp_sol.ini",
                       HelixRouter::kRandom, 240, 60, 600, GetParam());
}

TEST_P(HelixGoldenRun, ShortAsShipped) {
  NEEDS_SHARED_DATA();
  expect_published_run("asshipped_short60", "example_single24_70b/ilp", "ilp_sol.ini",
                       HelixRouter::kMaxFlow, 20, 10, 30, GetParam());
}

TEST_P(HelixGoldenRun, ChainOfAllNodes) {
  NEEDS_SHARED_DATA();
  expect_published_run("ours_chain_single24_offline_maxflow", "ours_chain_single24_70b",
                       "chain_sol.ini", HelixRouter::kMaxFlow, 20, 60, 600, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Grain, HelixGoldenRun, testing::Bool(),
                         [](const auto& run) { return run.param ? "Stage" : "Layer"; });

}  // namespace
}  // namespace towline::sim
