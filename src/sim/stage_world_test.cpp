// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What befalls machines and links in Towline's own simulator, and sessions.
#include <gtest/gtest.h>

#include "sim/stage_engine.hpp"
#include "sim/stage_grid.hpp"
#include "sim/testing_trial.hpp"

namespace towline::sim {
namespace {

std::vector<spec::TraceRequest> stream(int64_t count, int64_t every_ms, int32_t output) {
  std::vector<spec::TraceRequest> list;
  for (int64_t i = 0; i < count; ++i) list.push_back({i * every_ms * 1'000'000, 10, output});
  return list;
}

TEST(StageWorld, AWarningSavesWhatACrashLoses) {
  // Two ways; one machine goes at 30 s. Requests take about 4 s.
  StageOptions options;
  options.disturbances = {{30, DisturbanceKind::kReclaim, 0, 1}};
  const Trial crash = run(grid(1, 2), options, list_source(stream(200, 300, 1000)));
  EXPECT_EQ(crash.report.finished, 200);
  EXPECT_GT(crash.report.restarts, 0);
  options.disturbances = {{20, DisturbanceKind::kDrain, 0, 1},
                          {30, DisturbanceKind::kReclaim, 0, 1}};
  const Trial warned = run(grid(1, 2), options, list_source(stream(200, 300, 1000)));
  EXPECT_EQ(warned.report.finished, 200);
  EXPECT_EQ(warned.report.restarts, 0);
  EXPECT_EQ(warned.report.recomputed_tokens, 0);
}

TEST(StageWorld, AHangIsNoticedAndWhatItHeldIsComputedElsewhere) {
  StageOptions options;
  options.detect_seconds = 2;
  options.disturbances = {{10, DisturbanceKind::kHang, 0, 1}, {25, DisturbanceKind::kResume, 0, 1}};
  const Trial noticed = run(grid(1, 2), options, list_source(stream(100, 300, 500)));
  EXPECT_EQ(noticed.report.finished, 100);
  EXPECT_GT(noticed.report.restarts, 0);
  EXPECT_EQ(noticed.report.replans, 3);
  // One that ends before anybody noticed costs time only.
  options.disturbances[1].at = 11;
  const Trial brief = run(grid(1, 2), options, list_source(stream(100, 300, 500)));
  EXPECT_EQ(brief.report.finished, 100);
  EXPECT_EQ(brief.report.restarts, 0);
  EXPECT_GT(brief.report.itl.max, 0.9);
}

TEST(StageWorld, LinksChangeWithTime) {
  // 1 ms a link, then 100 ms: a token over three links takes 0.3 s more.
  StageOptions options;
  for (int32_t link = 0; link < 3; ++link) {
    options.disturbances.push_back({1, DisturbanceKind::kLatency, link, 100});
  }
  const Trial slow = run(grid(2, 1), options, list_source({{5'000'000'000, 10, 50}}));
  const Trial usual = run(grid(2, 1), {}, list_source({{5'000'000'000, 10, 50}}));
  EXPECT_NEAR(slow.report.tpot.mean - usual.report.tpot.mean, 0.297, 1e-6);
  // A prompt of 1000 tokens is a message of 1 MB: 1 ms at first, then 1 s.
  options.disturbances = {{1, DisturbanceKind::kBandwidth, 1, 1e-3}};
  HelixInput input = grid(2, 1);
  for (size_t i = 0; i < input.links.size(); ++i) {
    if (input.links[i].from == 0 && input.links[i].to == 1) {
      options.disturbances[0].target = static_cast<int32_t>(i);
    }
  }
  const Trial narrow = run(input, options, list_source({{5'000'000'000, 1000, 1}}));
  const Trial wide = run(input, {}, list_source({{5'000'000'000, 1000, 1}}));
  EXPECT_NEAR(narrow.report.ttft.mean - wide.report.ttft.mean, 1.002 * 0.999, 0.01);
}

TEST(StageWorld, MachinesCostWhileTheyAreThereAndTrafficByTheByte) {
  HelixInput input = grid(1, 2);
  input.nodes[0].price = 3600;  // 1 a second
  for (HelixLink& link : input.links) link.price = link.to < 0 ? 1e9 : 0;  // 1 a byte
  StageOptions options;
  options.disturbances = {{5, DisturbanceKind::kReclaim, 0, 1}};
  const Trial r = run(input, options, list_source({{0, 10, 1}, {20'000'000'000, 10, 1}}));
  EXPECT_NEAR(r.report.machine_cost, 5, 1e-6);
  EXPECT_NEAR(r.report.egress_cost, 4, 1e-9);  // two tokens of two bytes
}

TEST(StageWorld, ASessionGoesOnUntilTheClientHasNothingToAsk) {
  StageOptions options;
  options.follow_up = [](const RequestRecord& r) -> std::optional<FollowUp> {
    if (r.input >= 100) return std::nullopt;
    return FollowUp{7, r.input + r.output + 20, 5};
  };
  const Trial r = run(grid(1, 1), options, list_source({{0, 30, 5}}));
  ASSERT_EQ(r.records.size(), 4u);  // 30, 55, 80, 105
  for (size_t i = 1; i < r.records.size(); ++i) {
    EXPECT_EQ(r.records[i].input, r.records[i - 1].input + 25);
    EXPECT_EQ(r.records[i].arrival - r.records[i - 1].end, 7'000'000'000);
  }
}

TEST(StageWorld, EveryRouterServesEverything) {
  for (const policy::RouterKind router :
       {policy::RouterKind::kFlow, policy::RouterKind::kSwarm, policy::RouterKind::kRandom,
        policy::RouterKind::kShortestQueue}) {
    StageOptions options;
    options.router = router;
    const Trial r = run(grid(3, 3), options, list_source(stream(100, 20, 30)));
    EXPECT_EQ(r.report.finished, 100) << policy::router_name(router);
    const Trial again = run(grid(3, 3), options, list_source(stream(100, 20, 30)));
    EXPECT_EQ(r.report.events, again.report.events);
  }
}

}  // namespace
}  // namespace towline::sim
