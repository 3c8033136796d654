// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The Helix mode against the figures that its authors printed (artifact evaluation readme): decode
// tokens/s, and latencies as median (5th and 95th percentile), each to the digits printed. The
// population (offline) and the feed rate (online) of the swarm runs are not printed; those found to
// give the figures do so in all seven numbers at once.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "sim/helix_engine.hpp"
#include "sim/helix_load.hpp"

namespace towline::sim {
namespace {

std::string helix_data() {
  const char* shared = std::getenv("TOWLINE_SHARED");
  return std::string(shared != nullptr ? shared : "../shared") + "/data/helix";
}
#define NEEDS_SHARED_DATA()                                                         \
  if (!std::ifstream(helix_data() + "/README.md")) {                                \
    GTEST_SKIP() << "no shared data at " << helix_data() << "; set TOWLINE_SHARED"; \
  }

HelixReport run(const std::string& model, const std::string& folder, HelixOptions options) {
  const std::string layout = helix_data() + "/layouts/ae_single_cluster/" + folder;
  std::string solution = layout + "/ilp_sol.ini";
  if (!std::ifstream(solution)) solution = layout + "/swarm_sol.ini";
  const bool flow = options.router == HelixRouter::kMaxFlow;
  auto input = load_helix_input(
      {layout + "/simulator_cluster.ini", solution, model, helix_data() + "/profiles", "", ""},
      flow);
  EXPECT_TRUE(input) << (input ? "" : input.error().to_string());
  HelixTraffic traffic;
  traffic.lengths = load_lengths(helix_data() + "/traces/lengths_azure_conv.csv").value_or({});
  traffic.arrivals = load_arrival_bins(helix_data() + "/traces/arrivals_azure_conv.csv").value_or({});
  auto engine = HelixEngine::make(*std::move(input), options, std::move(traffic));
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

HelixOptions online_swarm(double rate) {
  HelixOptions o;
  o.router = HelixRouter::kSwarm;
  o.online = true;
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

TEST(HelixPublished, Swarm70bOffline) {
  NEEDS_SHARED_DATA();
  const HelixReport r = run("llama2-70b", "layout_llama70b/swarm", offline(HelixRouter::kSwarm, 180));
  EXPECT_NEAR(printed(r.decode_tps, 0.1), 124.7, 1e-9);
}

TEST(HelixPublished, Swarm70bOnline) {
  NEEDS_SHARED_DATA();
  const HelixReport r = run("llama2-70b", "layout_llama70b/swarm", online_swarm(350));
  EXPECT_NEAR(printed(r.decode_tps, 0.1), 69.8, 1e-9);
  expect_latency(r.prompt, 3.32, 0.95, 5.01, 0.01);
  expect_latency(r.decode, 1.04, 0.57, 2.51, 0.01);
}

TEST(HelixPublished, Swarm30bOffline) {
  NEEDS_SHARED_DATA();
  const HelixReport r = run("llama1-30b", "layout_llama30b/swarm", offline(HelixRouter::kSwarm, 50));
  EXPECT_NEAR(printed(r.decode_tps, 0.1), 151.6, 1e-9);
}

TEST(HelixPublished, Swarm30bOnline) {
  NEEDS_SHARED_DATA();
  const HelixReport r = run("llama1-30b", "layout_llama30b/swarm", online_swarm(450));
  EXPECT_NEAR(printed(r.decode_tps, 0.1), 104.9, 1e-9);
  expect_latency(r.prompt, 1.42, 0.42, 2.28, 0.01);
  expect_latency(r.decode, 0.26, 0.22, 0.47, 0.01);
}

// Three pipelines, a GPU type each; the published figure is their sum.
TEST(HelixPublished, Ilp30bOffline) {
  NEEDS_SHARED_DATA();
  double sum = 0;
  for (const char* type : {"a100", "l4", "t4"}) {
    sum += run("llama1-30b", std::string("layout_llama30b/ilp/") + type,
               offline(HelixRouter::kMaxFlow, 20))
               .decode_tps;
  }
  EXPECT_NEAR(printed(sum, 0.1), 339.6, 1e-9);
}

}  // namespace
}  // namespace towline::sim
