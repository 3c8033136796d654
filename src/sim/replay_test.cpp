// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/replay.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"
#include "policy/host_journal.hpp"
#include "sim/stage_grid.hpp"

namespace towline::sim {
namespace {

// A disturbed run of a small cluster with its journal.
struct Recorded {
  std::string bytes;
  StageReport report;
};

Recorded record(Rng& rng, bool fast_forward = true, bool tokens = false) {
  const std::string path =
      (std::filesystem::temp_directory_path() / format("replay_test_{}", ::getpid())).string();
  auto writer = obs::JournalWriter::create(path);
  EXPECT_TRUE(writer);
  HelixInput input = grid(2, 2);
  for (HelixNode& node : input.nodes) node.kv_capacity = 6'000;
  StageOptions options;
  options.journal = &*writer;
  options.fast_forward = fast_forward;
  options.queue_limit = 20;
  options.chunk_tokens = 64;
  options.disturbances = {{1, DisturbanceKind::kCrash, 3, 1}, {4, DisturbanceKind::kRejoin, 3, 1}};
  std::vector<spec::TraceRequest> list;
  for (int i = 0; i < 80; ++i) {
    list.push_back({i * 60'000'000ll, static_cast<int32_t>(rng.between(1, 300)),
                    static_cast<int32_t>(rng.between(1, 40))});
  }
  if (tokens) {  // prompts begin alike, and some are equal
    options.prefix_cache = true;
    options.spare_blocks = static_cast<int32_t>(rng.below(2));
    for (spec::TraceRequest& request : list) {
      spec::TraceTokens known;
      known.prompt.assign(static_cast<size_t>(request.input), 7);
      if (rng.below(2) != 0) known.prompt.back() = static_cast<int32_t>(rng.below(1000));
      known.output.assign(rng.below(3), 9);
      request.tokens = std::make_shared<const spec::TraceTokens>(std::move(known));
    }
  }
  auto engine = StageEngine::make(input, options, list_source(list));
  EXPECT_TRUE(engine);
  Recorded recorded{{}, *engine->run()};
  EXPECT_TRUE(writer->close());
  recorded.bytes = *read_file(path);
  std::filesystem::remove(path);
  return recorded;
}

Result<ReplayReport> replay_bytes(const std::string& bytes) {
  auto journal = obs::JournalReader::from_bytes(bytes, "test");
  if (!journal) return std::move(journal).error();
  return replay(*journal);
}

TEST(Replay, RepeatsEveryDecision) {
  for_seeds(5, [](Rng& rng) {
    const Recorded run = record(rng);
    const auto again = replay_bytes(run.bytes);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_TRUE(again->equal);
    EXPECT_TRUE(again->ended);
    EXPECT_GT(again->compared, 1);
    EXPECT_GT(again->actions, 80);
    EXPECT_EQ(again->digest, run.report.digest);
  });
}

TEST(Replay, RepeatsWhatThePrefixCacheDecided) {
  for_seeds(5, [](Rng& rng) {
    const Recorded run = record(rng, true, true);
    EXPECT_GT(run.report.cached_tokens, 0);
    EXPECT_EQ(run.report.arrived, run.report.finished + run.report.rejected + run.report.failed);
    const auto again = replay_bytes(run.bytes);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_TRUE(again->equal);
    EXPECT_EQ(again->digest, run.report.digest);
  });
}

// Steps that go round again in one move are the steps that would have been formed: the journal, its
// digests of every action, the blocks and the step numbers, is the same to the byte.
TEST(Replay, FastForwardLeavesNoTrace) {
  for_seeds(5, [](Rng& rng) {
    Rng same = rng;
    const Recorded fast = record(rng), slow = record(same, false);
    EXPECT_GT(fast.report.forwarded, 100);
    EXPECT_EQ(slow.report.forwarded, 0);
    EXPECT_EQ(fast.report.digest, slow.report.digest);
    EXPECT_TRUE(fast.bytes == slow.bytes);
  });
}

// A journal of other decisions, made by leaving one event out, is found to differ or impossible.
TEST(Replay, FindsADifference) {
  for_seeds(10, [](Rng& rng) {
    const Recorded run = record(rng);
    auto journal = obs::JournalReader::from_bytes(run.bytes, "whole");
    const std::string path =
        (std::filesystem::temp_directory_path() / format("replay_cut_{}", ::getpid())).string();
    auto writer = obs::JournalWriter::create(path);
    const int64_t leave_out = 3 + rng.between(0, 50);
    for (int64_t i = 0;; ++i) {
      const auto next = journal->next();
      ASSERT_TRUE(next);
      if (!next->has_value()) break;
      if (i == leave_out) continue;
      ASSERT_TRUE(writer->append(**next));
    }
    ASSERT_TRUE(writer->close());
    const auto again = replay_bytes(*read_file(path));
    std::filesystem::remove(path);
    EXPECT_TRUE(!again || !again->equal);
  });
}

TEST(Replay, ATornJournalReplaysAsFarAsItGoes) {
  Rng rng(1);
  const Recorded run = record(rng);
  const auto part = replay_bytes(run.bytes.substr(0, run.bytes.size() * 2 / 3));
  ASSERT_TRUE(part) << part.error().to_string();
  EXPECT_TRUE(part->equal);
  EXPECT_TRUE(part->torn);
  EXPECT_FALSE(part->ended);
  EXPECT_GT(part->compared, 0);
}

TEST(HostJournal, EventsRoundTrip) {
  for_seeds(100, [](Rng& rng) {
    policy::HostPlan plan;
    for (uint64_t i = 3 + rng.below(5); i > 0; --i) {
      policy::HostNode node;
      node.layers = {static_cast<int32_t>(rng.below(4)), static_cast<int32_t>(4 + rng.below(9))};
      node.kv_capacity = rng.between(0, int64_t{1} << 40);
      node.incarnation = static_cast<int32_t>(rng.below(7));
      plan.nodes.push_back(node);
    }
    for (int32_t i = 0; i < 4; ++i) plan.links.push_back({3 * i, i - 1, -2, rng.unit() * 1e4});
    plan.links[3].from = 0;
    const auto back = policy::decode_event(policy::encode_event(plan));
    ASSERT_TRUE(back);
    EXPECT_EQ(std::get<policy::HostPlan>(back->event), plan);
    std::vector<policy::Sampled> sampled;
    for (uint64_t i = rng.below(6); i > 0; --i) {
      sampled.push_back({SeqId(static_cast<int64_t>(rng())), static_cast<int32_t>(rng()),
                         rng.below(2) == 0, rng.below(2) == 0});
    }
    const std::string bytes = policy::encode_event(policy::StepDone{7, sampled});
    const auto done = policy::decode_event(bytes);
    ASSERT_TRUE(done);
    ASSERT_EQ(done->sampled.size(), sampled.size());
    for (size_t i = 0; i < sampled.size(); ++i) {
      EXPECT_EQ(done->sampled[i].seq, sampled[i].seq);
      EXPECT_EQ(done->sampled[i].token, sampled[i].token);
      EXPECT_EQ(done->sampled[i].stop, sampled[i].stop);
    }
    EXPECT_FALSE(policy::decode_event(bytes.substr(0, bytes.size() - 1)));
    EXPECT_FALSE(policy::decode_event(bytes + "x"));
  });
  policy::HostOptions options;
  options.total_layers = 80;
  options.depth = 3;
  options.estimator.high_water = 0.7;
  const auto again = policy::parse_host_setup(policy::host_setup_json(options));
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->depth, 3);
  EXPECT_EQ(again->estimator.high_water, 0.7);
  EXPECT_FALSE(policy::parse_host_setup(Json::object({{"schema", 2}})));
}

}  // namespace
}  // namespace towline::sim
