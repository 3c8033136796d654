// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The Helix mode against the figures that its authors printed (artifact evaluation readme): decode
// tokens/s, and latencies as median (5th and 95th percentile), each to the digits printed.
// Populations (offline) and feed rates (online) are those of the artifact's
// scripts (step3_simulation.py).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "sim/helix_engine.hpp"
#include "sim/testing_helix.hpp"

namespace towline::sim {
namespace {

// `layout` is a folder of layouts/ and, of a plan made by hand, the beginning of its files' names.
HelixReport run(const std::string& model, const std::string& layout, HelixOptions options,
                const std::string& machines = "") {
  const std::string begin = helix_data() + "/layouts/" + layout;
  std::string solution = begin + "solution_file.ini";
  for (const char* name : {"ilp_sol.ini", "swarm_sol.ini"}) {
    if (std::ifstream(begin + name)) solution = begin + name;
  }
  const bool flow = options.router == HelixRouter::kMaxFlow;
  auto input = load_helix_input({begin + "simulator_cluster.ini", solution, model,
                                 helix_data() + "/profiles", "", machines},
                                flow);
  EXPECT_TRUE(input) << (input ? "" : input.error().to_string());
  auto engine = HelixEngine::make(*std::move(input), options, azure_traffic());
  EXPECT_TRUE(engine) << (engine ? "" : engine.error().to_string());
  auto report = engine->run(nullptr, nullptr);
  EXPECT_TRUE(report) << (report ? "" : report.error().to_string());
  return *std::move(report);
}

HelixOptions offline(HelixRouter router, int32_t queries) {
  HelixOptions o;
  o.router = router;
  o.initial_queries = queries;
  o.estimator.high_water = 0.85;
  o.estimator.output_ratio = 1.0;
  o.warm_up = 60;
  o.duration = 600;
  return o;
}

HelixOptions online(HelixRouter router, double rate) {
  HelixOptions o;
  o.router = router;
  o.online = true;
  o.estimator.high_water = 0.9;
  o.estimator.output_ratio = 0.6;
  o.feed_rate = rate;
  o.warm_up = 0;
  o.duration = 1800;
  return o;
}

double printed(double value, double digit) { return std::round(value / digit) * digit; }

void expect_latency(const LatencySummary& s, double p50, double p5, double p95, double digit) {
  EXPECT_NEAR(printed(s.p50, digit), p50, 1e-9);
  EXPECT_NEAR(printed(s.p5, 0.01), p5, 1e-9);
  EXPECT_NEAR(printed(s.p95, 0.01), p95, 1e-9);
}

constexpr const char* kOne = "ae_single_cluster/layout_llama";
constexpr const char* kGeo = "ae_distributed_clusters/layout_llama";

TEST(HelixPublished, SwarmLatencies) {
  NEEDS_SHARED_DATA();
  const HelixReport big =
      run("llama2-70b", std::string(kOne) + "70b/swarm/", online(HelixRouter::kSwarm, 350));
  EXPECT_NEAR(printed(big.decode_tps, 0.1), 69.8, 1e-9);
  expect_latency(big.prompt, 3.32, 0.95, 5.01, 0.01);
  expect_latency(big.decode, 1.04, 0.57, 2.51, 0.01);
  const HelixReport small =
      run("llama1-30b", std::string(kOne) + "30b/swarm/", online(HelixRouter::kSwarm, 450));
  EXPECT_NEAR(printed(small.decode_tps, 0.1), 104.9, 1e-9);
  expect_latency(small.prompt, 1.42, 0.42, 2.28, 0.01);
  expect_latency(small.decode, 0.26, 0.22, 0.47, 0.01);
  const HelixReport far =
      run("llama1-30b", std::string(kGeo) + "30b/swarm/", online(HelixRouter::kSwarm, 380));
  EXPECT_NEAR(printed(far.decode_tps, 0.1), 82.1, 1e-9);
  expect_latency(far.prompt, 3.25, 0.98, 7.32, 0.01);
  expect_latency(far.decode, 0.48, 0.38, 1.12, 0.01);
}

TEST(HelixPublished, SwarmOffline) {
  NEEDS_SHARED_DATA();
  const auto tps = [](const char* model, const std::string& layout, int32_t queries) {
    return printed(run(model, layout, offline(HelixRouter::kSwarm, queries)).decode_tps, 0.1);
  };
  EXPECT_NEAR(tps("llama2-70b", std::string(kOne) + "70b/swarm/", 180), 124.7, 1e-9);
  EXPECT_NEAR(tps("llama1-30b", std::string(kOne) + "30b/swarm/", 50), 151.6, 1e-9);
  EXPECT_NEAR(tps("llama1-30b", std::string(kGeo) + "30b/swarm/", 60), 98.7, 1e-9);
}

// Three pipelines, a GPU type each, simulated apart; the published figure is their sum.
struct Apart {
  const char* cluster;
  const char* model;       // "30b"
  const char* plan;        // "ilp/%/", "separate/%_"
  HelixRouter router;
  bool online;
  double feed[3];          // queries (offline) or tokens/s of A100, L4, T4
  double published;
};

TEST(HelixPublished, PipelinesApart) {
  NEEDS_SHARED_DATA();
  const Apart cells[] = {
      {kOne, "30b", "ilp/%/", HelixRouter::kMaxFlow, false, {20, 20, 20}, 339.6},
      {kOne, "30b", "ilp/%/", HelixRouter::kMaxFlow, true, {600, 200, 170}, 216.7},
      {kOne, "30b", "separate/%_", HelixRouter::kRandom, false, {30, 25, 25}, 309.0},
      {kOne, "30b", "separate/%_", HelixRouter::kRandom, true, {500, 150, 150}, 189.8},
      {kOne, "70b", "separate/%_", HelixRouter::kRandom, false, {18, 40, 3}, 124.3},
      {kOne, "70b", "separate/%_", HelixRouter::kRandom, true, {240, 120, 10}, 84.0},
      {kGeo, "30b", "ilp/%/", HelixRouter::kMaxFlow, false, {20, 20, 20}, 232.7},
      {kGeo, "30b", "ilp/%/", HelixRouter::kMaxFlow, true, {560, 140, 140}, 183.5},
      {kGeo, "30b", "separate/%_", HelixRouter::kRandom, false, {35, 40, 40}, 223.2},
      {kGeo, "30b", "separate/%_", HelixRouter::kRandom, true, {520, 100, 140}, 173.8},
  };
  const char* const types[] = {"a100", "l4", "t4"};
  const char* const machines[] = {"A100=4", "L4=8", "T4=12"};
  for (const Apart& cell : cells) {
    SCOPED_TRACE(std::string(cell.cluster) + cell.model + " " + cell.plan +
                 (cell.online ? " online" : " offline"));
    double sum = 0;
    for (int i = 0; i < 3; ++i) {
      std::string layout = std::string(cell.cluster) + cell.model + "/" + cell.plan;
      layout.replace(layout.find('%'), 1, types[i]);
      const HelixOptions options =
          cell.online ? online(cell.router, cell.feed[i])
                      : offline(cell.router, static_cast<int32_t>(cell.feed[i]));
      sum += run(cell.model == std::string("30b") ? "llama1-30b" : "llama2-70b", layout, options,
                 machines[i])
                 .decode_tps;
    }
    EXPECT_NEAR(printed(sum, 0.1), cell.published, 1e-9);
  }
}

TEST(HelixPublished, OnePlanForAll) {
  NEEDS_SHARED_DATA();
  const auto tps = [](const HelixOptions& options) {
    return printed(run("llama2-70b", std::string(kOne) + "70b/ilp/", options).decode_tps, 0.1);
  };
  EXPECT_NEAR(tps(offline(HelixRouter::kMaxFlow, 20)), 252.1, 1e-9);
  EXPECT_NEAR(tps(online(HelixRouter::kMaxFlow, 700)), 141.6, 1e-9);
}

}  // namespace
}  // namespace towline::sim
