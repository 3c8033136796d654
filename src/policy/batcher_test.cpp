// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/batcher.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/for_seeds.hpp"
#include "policy/testing_batcher.hpp"

namespace towline::policy {
namespace {

TEST(Batcher, PrefillsInChunksThenDecodes) {
  Batcher batcher({.step_tokens = 8, .sequences = 4, .chunk_tokens = 8}, 10);
  ASSERT_TRUE(batcher.add(spec(1, 20, 3)));
  std::vector<std::pair<int32_t, int32_t>> spans;
  while (!batcher.idle()) {
    const Step step = batcher.next_step();
    ASSERT_EQ(step.entries.size(), 1u);
    spans.emplace_back(step.entries[0].from, step.entries[0].to);
    EXPECT_EQ(step.entries[0].samples, step.entries[0].to >= 20);
    batcher.complete(step, answers(step));
  }
  const std::vector<std::pair<int32_t, int32_t>> expected = {
      {0, 8}, {8, 16}, {16, 20}, {20, 21}, {21, 22}};
  EXPECT_EQ(spans, expected);
  const auto ended = batcher.take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].reason, EndReason::kLength);
  EXPECT_TRUE(batcher.take_ended().empty());
}

TEST(Batcher, DecodesBeforePrompts) {
  Batcher batcher({.step_tokens = 16, .sequences = 4}, 100);
  ASSERT_TRUE(batcher.add(spec(1, 4, 10)));
  Step step = batcher.next_step();
  batcher.complete(step, answers(step));
  ASSERT_TRUE(batcher.add(spec(2, 100, 10)));
  for (int i = 0; i < 3; ++i) {
    step = batcher.next_step();
    ASSERT_EQ(step.entries.size(), 2u);
    EXPECT_EQ(step.entries[0].seq, SeqId(1));
    EXPECT_EQ(step.entries[0].to - step.entries[0].from, 1);
    EXPECT_EQ(step.rows(), 16);
    batcher.complete(step, answers(step));
  }
}

TEST(Batcher, ReusesAFinishedPromptButAlwaysEvaluatesTheLastToken) {
  Batcher batcher({.step_tokens = 64, .sequences = 4}, 20);
  SequenceSpec first = spec(1, 32, 1), second = spec(2, 32, 1);
  second.prompt = first.prompt;
  ASSERT_TRUE(batcher.add(first));
  Step step = batcher.next_step();
  batcher.complete(step, answers(step));
  ASSERT_TRUE(batcher.add(second));
  step = batcher.next_step();
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].from, 16) << "the second block holds the last token";
  EXPECT_EQ(batcher.cached_tokens(SeqId(2)), 16);
  EXPECT_EQ(batcher.counters().prefix_hits, 16);
  batcher.complete(step, answers(step));
  // A request that must see every row takes nothing from the cache, another salt neither.
  SequenceSpec third = spec(3, 32, 1), fourth = spec(4, 32, 1);
  third.prompt = fourth.prompt = first.prompt;
  third.every_row = true;
  fourth.cache_salt = 1;
  ASSERT_TRUE(batcher.add(third));
  ASSERT_TRUE(batcher.add(fourth));
  step = batcher.next_step();
  ASSERT_EQ(step.entries.size(), 2u);
  EXPECT_EQ(step.entries[0].from, 0);
  EXPECT_EQ(step.entries[0].logits_from, 0);
  EXPECT_EQ(step.entries[1].from, 0);
}

TEST(Batcher, PreemptsTheLatestWhenBlocksRunOut) {
  Batcher batcher({.step_tokens = 64, .sequences = 4, .prefix_cache = false}, 6);
  ASSERT_TRUE(batcher.add(spec(1, 16, 40)));
  ASSERT_TRUE(batcher.add(spec(2, 16, 40)));
  bool second_ran = false;
  while (!batcher.idle()) {
    const Step step = batcher.next_step();
    ASSERT_FALSE(step.empty());
    for (const StepEntry& e : step.entries) second_ran |= e.seq == SeqId(2);
    batcher.complete(step, answers(step));
    batcher.check_invariants();
  }
  EXPECT_TRUE(second_ran);
  EXPECT_GT(batcher.counters().preemptions, 0);
  const auto ended = batcher.take_ended();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].seq, SeqId(1));
}

// Two that fill the memory to the last block: with spare blocks the second
// waits for the first to end.
TEST(Batcher, SpareBlocksDecideWhoIsAdmitted) {
  for (const int32_t spare : {0, 1}) {
    Batcher batcher(
        {.step_tokens = 64, .sequences = 4, .prefix_cache = false, .spare_blocks = spare}, 2);
    ASSERT_TRUE(batcher.add(spec(1, 16, 2)));
    ASSERT_TRUE(batcher.add(spec(2, 16, 2)));
    Step step = batcher.next_step();
    EXPECT_EQ(step.entries.size(), spare == 0 ? 2u : 1u);
    batcher.complete(step, answers(step));
    while (!batcher.idle()) {
      step = batcher.next_step();
      ASSERT_FALSE(step.empty());
      batcher.complete(step, answers(step));
      batcher.check_invariants();
    }
    // The first takes the second's block for its 17th row.
    EXPECT_EQ(batcher.counters().preemptions, spare == 0 ? 1 : 0);
  }
}

TEST(Batcher, BetterPriorityTakesTheOnlyPlace) {
  Batcher batcher({.step_tokens = 64, .sequences = 1}, 20);
  ASSERT_TRUE(batcher.add(spec(1, 16, 40, 5)));
  Step step = batcher.next_step();
  batcher.complete(step, answers(step));
  ASSERT_TRUE(batcher.add(spec(2, 16, 1, 0)));
  step = batcher.next_step();
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].seq, SeqId(2));
  EXPECT_EQ(step.dropped, std::vector<SeqId>{SeqId(1)});
  batcher.complete(step, answers(step));
  step = batcher.next_step();
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].seq, SeqId(1));
  EXPECT_TRUE(step.entries[0].fresh);
}

TEST(Batcher, CancelInFlightEndsWhenTheStepCompletes) {
  Batcher batcher({}, 20);
  ASSERT_TRUE(batcher.add(spec(1, 4, 10)));
  ASSERT_TRUE(batcher.add(spec(2, 4, 10)));
  const Step step = batcher.next_step();
  batcher.cancel(SeqId(1));
  EXPECT_TRUE(batcher.take_ended().empty());
  batcher.complete(step, answers(step));
  auto ended = batcher.take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].reason, EndReason::kCancelled);
  batcher.cancel(SeqId(2));
  batcher.cancel(SeqId(2));
  batcher.cancel(SeqId(77));
  ended = batcher.take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_TRUE(batcher.idle());
  EXPECT_EQ(batcher.ledger().held(), 0);
}

TEST(Batcher, RefusesWhatCouldNeverRun) {
  Batcher batcher({}, 2);
  EXPECT_FALSE(batcher.add(spec(1, 0, 1)));
  EXPECT_FALSE(batcher.add(spec(1, 30, 4)));  // 33 places, 32 exist
  EXPECT_TRUE(batcher.add(spec(1, 30, 3)));
  EXPECT_FALSE(batcher.add(spec(1, 3, 3))) << "duplicate id";
  EXPECT_FALSE(batcher.add(spec(2, 3, -1)));
}

// Follows the steps as an engine would: keeps block tables from the deltas alone, "computes" each
// row by writing (prefix, position) into the block, and checks that what a row would attend to is
// exactly its own prefix. Catches aliasing, stale tables and wrong cache hits.
class Mirror {
 public:
  Mirror(int32_t blocks, std::map<SeqId, std::vector<int32_t>>& logs)
      : cells_(static_cast<size_t>(blocks) * kBlockTokens), logs_(logs) {}

  void run(const Step& step) {
    for (const SeqId seq : step.dropped) ASSERT_EQ(tables_.erase(seq), 1u);
    for (const StepEntry& e : step.entries) {
      ASSERT_EQ(e.fresh, !tables_.contains(e.seq));
      auto& table = tables_[e.seq];
      table.insert(table.end(), e.blocks.begin(), e.blocks.end());
      const std::vector<int32_t>& log = logs_.at(e.seq);
      ASSERT_LE(e.to, static_cast<int32_t>(log.size()));
      for (int32_t p = e.from; p < e.to; ++p) {
        ASSERT_EQ(e.tokens[static_cast<size_t>(p - e.from)], log[static_cast<size_t>(p)]);
        cell(table, p) = prefix_id(log, p);
      }
      for (int32_t p = 0; p < e.to; ++p) ASSERT_EQ(cell(table, p), prefix_id(log, p)) << p;
    }
  }

 private:
  uint64_t& cell(const std::vector<BlockId>& table, int32_t p) {
    const int32_t block = table.at(static_cast<size_t>(p / kBlockTokens)).value;
    return cells_[static_cast<size_t>(block * kBlockTokens + p % kBlockTokens)];
  }
  static uint64_t prefix_id(const std::vector<int32_t>& log, int32_t p) {
    uint64_t h = 1;
    for (int32_t i = 0; i <= p; ++i) {
      h = mix64(h ^ static_cast<uint64_t>(log[static_cast<size_t>(i)]));
    }
    return h;
  }
  std::vector<uint64_t> cells_;
  std::map<SeqId, std::vector<BlockId>> tables_;
  std::map<SeqId, std::vector<int32_t>>& logs_;
};

// Arrivals, cancels, forced preemptions, up to three steps in flight. What costs more than the
// event itself (a copy, which must form the same step; all invariants) is done at every tenth.
TEST(Batcher, RandomScriptsLoseNothing) {
  for_events(kMillionEvents, [&](Rng& rng, int64_t& events) {
    const auto blocks = static_cast<int32_t>(rng.between(4, 24));
    const BatcherLimits limits{.step_tokens = static_cast<int32_t>(rng.between(1, 48)),
                               .sequences = static_cast<int32_t>(rng.between(1, 8)),
                               .chunk_tokens = static_cast<int32_t>(rng.between(1, 48)),
                               .prefix_cache = rng.below(3) != 0,
                               .spare_blocks = static_cast<int32_t>(rng.below(3))};
    Batcher batcher(limits, blocks);
    std::map<SeqId, std::vector<int32_t>> logs;
    std::map<SeqId, int32_t> budgets;
    Mirror mirror(blocks, logs);
    std::map<SeqId, EndReason> ended;
    std::vector<Step> flying;
    const auto depth = rng.between(1, 3);
    int64_t added = 0;
    const auto finish_one = [&](size_t i) {
      std::vector<Sampled> sampled;
      for (const StepEntry& e : flying[i].entries) {
        if (!e.samples) continue;
        sampled.push_back({e.seq, static_cast<int32_t>(rng.below(3)), rng.below(40) == 0,
                           rng.below(400) == 0});
        logs[e.seq].push_back(sampled.back().token);
      }
      batcher.complete(flying[i], sampled);
      flying.erase(flying.begin() + static_cast<int64_t>(i));
    };
    for (int i = 0; i < 2600; ++i, ++events) {
      const bool closely = rng.below(10) == 0;
      const uint64_t what = i < 2400 ? rng.below(10) : 9;
      if (what == 0 && batcher.waiting() < 30) {
        SequenceSpec s;
        s.id = SeqId(added++);
        const int64_t room = int64_t{blocks} * kBlockTokens;
        const int64_t length = rng.between(1, std::min<int64_t>(room, 100));
        // Few distinct tokens, so that prefixes repeat.
        for (int64_t k = 0; k < length; ++k) s.prompt.push_back(static_cast<int32_t>(k / 24));
        if (rng.below(2) != 0) s.prompt.back() = static_cast<int32_t>(rng.below(5));
        s.max_tokens = static_cast<int32_t>(rng.between(0, std::min<int64_t>(40, room - length)));
        s.priority = static_cast<int32_t>(rng.below(3));
        s.every_row = rng.below(8) == 0;
        s.cache_salt = rng.below(2);
        logs[s.id] = s.prompt;
        budgets[s.id] = s.max_tokens;
        ASSERT_TRUE(batcher.add(s));
      } else if (what == 1 && added > 0 && rng.below(6) == 0) {
        batcher.cancel(SeqId(static_cast<int64_t>(rng.below(static_cast<uint64_t>(added)))));
      } else if (what == 2 && added > 0) {
        batcher.preempt(SeqId(static_cast<int64_t>(rng.below(static_cast<uint64_t>(added)))));
      } else if (static_cast<int64_t>(flying.size()) == depth || (what == 3 && !flying.empty())) {
        finish_one(rng.below(flying.size()));
      } else {
        std::optional<Batcher> twin;
        if (closely) twin = batcher;
        Step step = batcher.next_step();
        if (twin) {
          ASSERT_TRUE(twin->next_step() == step) << "not deterministic";
        }
        ASSERT_LE(step.rows(), limits.step_tokens);
        std::set<SeqId> once;
        for (const StepEntry& e : step.entries) ASSERT_TRUE(once.insert(e.seq).second);
        if (flying.empty() && !batcher.idle()) {
          ASSERT_FALSE(step.empty()) << "no progress";
        }
        mirror.run(step);
        if (::testing::Test::HasFatalFailure()) return;
        if (!step.empty()) flying.push_back(std::move(step));
      }
      if (closely) batcher.check_invariants();
      for (const Ended& e : batcher.take_ended()) {
        ASSERT_TRUE(ended.emplace(e.seq, e.reason).second) << "ended twice";
      }
    }
    batcher.check_invariants();
    while (!batcher.idle()) {
      if (!flying.empty()) {
        finish_one(0);
      } else {
        Step step = batcher.next_step();
        ASSERT_FALSE(step.empty());
        mirror.run(step);
        flying.push_back(std::move(step));
      }
      for (const Ended& e : batcher.take_ended()) {
        ASSERT_TRUE(ended.emplace(e.seq, e.reason).second);
      }
    }
    ASSERT_EQ(static_cast<int64_t>(ended.size()), added);
    ASSERT_EQ(batcher.ledger().held(), 0) << "leaked blocks";
  });
}

}  // namespace
}  // namespace towline::policy
