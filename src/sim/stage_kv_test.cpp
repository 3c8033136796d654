// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// KV caches on the network: prompt and decode nodes, replicas, swapping.
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "base/for_seeds.hpp"
#include "obs/journal.hpp"
#include "sim/replay.hpp"
#include "sim/stage_grid.hpp"
#include "sim/stage_report.hpp"
#include "sim/testing_trial.hpp"

namespace towline::sim {
namespace {

constexpr double kHost = 1000 * (1 / 4e9 + 1 / 5e9);  // a row's, on a node

// Four layers twice: `prompts` nodes that process prompts, `decodes`
// that decode, each side a chain.
HelixInput split_chains(int32_t prompts, int32_t decodes) {
  HelixInput input = grid(2, 1);
  const HelixNode like = input.nodes[0];
  input.nodes.clear();
  input.links.clear();
  input.kv_bytes = 1e5;
  const auto chain = [&](int32_t nodes, policy::NodeRole role) {
    for (int32_t i = 0; i < nodes; ++i) {
      HelixNode node = like;
      node.name = (role == policy::NodeRole::kPrompt ? "p" : "d") + std::to_string(i);
      node.layers = {4 * i / nodes, 4 * (i + 1) / nodes};
      node.role = role;
      const auto me = static_cast<int32_t>(input.nodes.size());
      input.links.push_back({i == 0 ? policy::kSourceNode : me - 1, me, 0.001, 1e9});
      if (i + 1 == nodes) input.links.push_back({me, policy::kSinkNode, 0.001, 1e9});
      input.nodes.push_back(node);
    }
  };
  chain(prompts, policy::NodeRole::kPrompt);
  chain(decodes, policy::NodeRole::kDecode);
  for (int32_t p = 0; p < prompts; ++p) {
    for (int32_t d = 0; d < decodes; ++d) {
      HelixLink link{p, prompts + d, 0.002, 1e8};
      link.kv_only = true;
      input.links.push_back(link);
    }
  }
  return input;
}

TEST(StageKv, OneRequestTakesItsPromptItsMoveAndItsDecodes) {
  const HelixInput input = split_chains(1, 1);
  StageOptions options;
  options.stream_layers = false;
  const Trial r = run(input, options, list_source({{0, 100, 3}}));
  ASSERT_EQ(r.report.finished, 1);
  const double prompt = 4 * 0.1 + 100 * kHost + 0.002 + 202 / 1e9;
  EXPECT_NEAR(r.report.ttft.mean, prompt, 1e-6);
  const double bytes = 100 * 4 * 1e5;
  EXPECT_DOUBLE_EQ(r.report.kv_moved_bytes, bytes);
  EXPECT_EQ(r.report.kv_moves, 1);
  EXPECT_NEAR(r.report.kv_wait.mean, bytes / 1e8 + 0.002, 1e-6);
  const double step = 4 * 0.001 + kHost + 0.002 + 4 / 1e9;
  EXPECT_NEAR(r.report.e2e.mean, prompt + bytes / 1e8 + 0.002 + 2 * step, 1e-5);
  EXPECT_DOUBLE_EQ(r.report.node_busy[1] * (r.report.ended - r.report.started),
                   2 * (r.report.node_busy[1] > 0 ? 4 * 0.001 + kHost : 1))
      << "no row of the prompt was computed on the decode node";
}

TEST(StageKv, LayersLeaveWhileTheNextAreComputed) {
  const HelixInput input = split_chains(1, 1);
  const Trial r = run(input, {}, list_source({{0, 100, 3}}));
  ASSERT_EQ(r.report.finished, 1);
  EXPECT_DOUBLE_EQ(r.report.kv_moved_bytes, 100 * 4 * 1e5);
  // Of 0.4 s of sending, three layers' share was behind 0.3 s of computing; the last 0.1 s begin
  // when the node is done, a millisecond before the coordinator knows.
  EXPECT_NEAR(r.report.kv_wait.mean, 0.1 + 0.002 - 0.001, 1e-4);
}

TEST(StageKv, UnequalChainsExchangeTheLayersThatBothHold) {
  for (const auto& [prompts, decodes] : {std::pair(3, 2), {2, 4}, {1, 3}}) {
    for (const bool layers : {false, true}) {
      StageOptions options;
      options.stream_layers = layers;
      const Trial r = run(split_chains(prompts, decodes), options, list_source({{0, 60, 5}}));
      EXPECT_EQ(r.report.finished, 1);
      EXPECT_DOUBLE_EQ(r.report.kv_moved_bytes, 60 * 4 * 1e5);
      EXPECT_EQ(r.report.recomputed_tokens, 0);
    }
  }
}

TEST(StageKv, DisturbancesLoseNobodyAndReplayBitForBit) {
  for_seeds(30, [](Rng& rng) {
    HelixInput input = split_chains(static_cast<int32_t>(rng.between(1, 3)),
                                    static_cast<int32_t>(rng.between(1, 3)));
    for (HelixNode& node : input.nodes) node.kv_capacity = 2000 * node.layers.size();
    const auto nodes = static_cast<int64_t>(input.nodes.size());
    const auto links = static_cast<int64_t>(input.links.size());
    StageOptions options;
    options.stream_layers = rng.below(2) == 0;
    options.detect_seconds = 0.2;
    double at = 0;
    for (int i = 0; i < 6; ++i) {
      const auto node = static_cast<int32_t>(rng.below(static_cast<uint64_t>(nodes)));
      const auto link = static_cast<int32_t>(rng.below(static_cast<uint64_t>(links)));
      at += 0.2 + 2 * rng.unit();
      const bool of_node = rng.below(2) == 0;
      options.disturbances.push_back(
          {at, of_node ? DisturbanceKind::kCrash : DisturbanceKind::kLinkDown,
           of_node ? node : link, 1});
      at += 0.05 + 3 * rng.unit();
      options.disturbances.push_back({at,
                                      of_node ? DisturbanceKind::kRejoin : DisturbanceKind::kLinkUp,
                                      of_node ? node : link, 1});
    }
    std::vector<spec::TraceRequest> list;
    int64_t tokens = 0;
    for (int64_t i = 0; i < 40; ++i) {
      list.push_back({i * 200'000'000, static_cast<int32_t>(rng.between(1, 300)),
                      static_cast<int32_t>(rng.between(1, 30))});
      tokens += list.back().output;
    }
    const Trial r = run(input, options, list_source(list));
    EXPECT_EQ(r.report.finished, 40) << stage_text(input, r.report);
    EXPECT_EQ(r.report.output_tokens, tokens);
    const Trial again = run(input, options, list_source(list));
    EXPECT_EQ(stage_summary(input, again.report).dump(), stage_summary(input, r.report).dump());
  });
}

TEST(StageKv, AJournalWithRolesIsReplayed) {
  const std::string path = ::testing::TempDir() + "/roles.journal";
  {
    auto journal = obs::JournalWriter::create(path);
    ASSERT_TRUE(journal);
    StageOptions options;
    options.journal = &*journal;
    options.disturbances = {{2, DisturbanceKind::kCrash, 1, 1},
                            {4, DisturbanceKind::kRejoin, 1, 1}};
    std::vector<spec::TraceRequest> list;
    for (int64_t i = 0; i < 20; ++i) list.push_back({i * 300'000'000, 80, 10});
    const Trial r = run(split_chains(1, 2), options, list_source(list));
    EXPECT_EQ(r.report.finished, 20);
    ASSERT_TRUE(journal->close());
  }
  auto reader = obs::JournalReader::open(path);
  ASSERT_TRUE(reader);
  const auto report = replay(*reader);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->equal);
  EXPECT_GT(report->compared, 0);
}

TEST(StageKv, ReplicasGetEveryRowAndLagBehind) {
  HelixInput input = grid(2, 1);
  input.kv_bytes = 1000;
  input.nodes[0].replica = 1;
  input.nodes[1].replica = 0;
  HelixLink back{1, 0, 0.003, 1e6};
  back.kv_only = true;
  input.links.push_back(back);
  const Trial r = run(input, {}, list_source({{0, 100, 61}}));
  EXPECT_EQ(r.report.finished, 1);
  EXPECT_DOUBLE_EQ(r.report.replica_bytes, 160 * 4 * 1000.0) << "160 rows on four layers";
  EXPECT_GE(r.report.replica_lag.p50, 0.001);
  EXPECT_GT(r.report.replica_lag.max, 0.2) << "200 kB at 1 MB/s";
  input.nodes[1].replica = 1;
  EXPECT_FALSE(StageEngine::make(input, {}, list_source({}))) << "a copy on the node itself";
}

TEST(StageKv, SwappingTakesTheLongerOfComputingAndFetching) {
  HelixInput input = grid(1, 1);
  input.kv_bytes = 1e5;
  const Trial plain = run(input, {}, list_source({{0, 1000, 11}}));
  input.nodes[0].swap_bandwidth = 1e12;
  const Trial hidden = run(input, {}, list_source({{0, 1000, 11}}));
  EXPECT_NEAR(hidden.report.tpot.mean, plain.report.tpot.mean, 1e-9);
  input.nodes[0].swap_bandwidth = 1e9;  // 1000 to 1009 tokens of 200 kB: 0.2 s
  const Trial slow = run(input, {}, list_source({{0, 1000, 11}}));
  EXPECT_NEAR(slow.report.tpot.mean, 0.2009 + 0.002 + kHost, 1e-4);
}

TEST(StageKv, WhatCannotBeMovedIsRefused) {
  HelixInput input = split_chains(1, 1);
  input.kv_bytes = 0;
  EXPECT_FALSE(StageEngine::make(input, {}, list_source({})));
  input = split_chains(1, 2);
  input.links.pop_back();
  const auto engine = StageEngine::make(input, {}, list_source({}));
  ASSERT_FALSE(engine);
  EXPECT_NE(engine.error().message().find("from p0 to d1"), std::string::npos);
}

}  // namespace
}  // namespace towline::sim
