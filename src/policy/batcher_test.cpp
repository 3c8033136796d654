// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/batcher.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

SequenceSpec spec(int64_t id, int32_t prompt, int32_t max_tokens, int32_t priority = 0) {
  SequenceSpec s;
  s.id = SeqId(id);
  s.prompt.resize(static_cast<size_t>(prompt));
  std::iota(s.prompt.begin(), s.prompt.end(), static_cast<int32_t>(id) * 1000);
  s.max_tokens = max_tokens;
  s.priority = priority;
  return s;
}

std::vector<Sampled> answers(const Step& step, int32_t token = 1) {
  std::vector<Sampled> sampled;
  for (const StepEntry& e : step.entries) {
    if (e.samples) sampled.push_back({e.seq, token, false, false});
  }
  return sampled;
}

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

// Two that fill the memory to the last block: with spare blocks the second waits for the first to
// end.
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
    for (int32_t i = 0; i <= p; ++i)
      h = mix64(h ^ static_cast<uint64_t>(log[static_cast<size_t>(i)]));
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
      for (const Ended& e : batcher.take_ended())
        ASSERT_TRUE(ended.emplace(e.seq, e.reason).second);
    }
    ASSERT_EQ(static_cast<int64_t>(ended.size()), added);
    ASSERT_EQ(batcher.ledger().held(), 0) << "leaked blocks";
  });
}

// --- pools and lanes ----------------------------------------------------------------------------

TEST(BatcherLanes, ASequenceHoldsBlocksInEveryPoolOfItsLane) {
  Batcher batcher(BatcherLimits{.prefix_cache = false});
  const int32_t a = batcher.add_pool(8), b = batcher.add_pool(4);
  const LaneId both = batcher.open_lane({{.pool = a}, {.pool = b}});
  const LaneId only_a = batcher.open_lane({{.pool = a}});
  SequenceSpec s = spec(1, 40, 2), t = spec(2, 20, 1), large = spec(3, 70, 1);
  s.lane = large.lane = both;
  t.lane = only_a;
  ASSERT_TRUE(batcher.add(s));
  ASSERT_TRUE(batcher.add(t));
  EXPECT_FALSE(batcher.add(large)) << "fits pool a, not b";
  const Step first = batcher.next_step(both);
  ASSERT_EQ(first.entries.size(), 1u);
  EXPECT_EQ(first.entries[0].blocks.size(), 6u) << "three blocks in each of two pools";
  const Step second = batcher.next_step(only_a);
  EXPECT_EQ(batcher.ledger(a).held(), 5);
  EXPECT_EQ(batcher.ledger(b).held(), 3);
  batcher.complete(second, answers(second));
  batcher.complete(first, answers(first));
  EXPECT_EQ(batcher.ledger(a).held(), 3);
  batcher.check_invariants();
}

TEST(BatcherLanes, AnAbortedStepIsFormedAgainAndAClosedLanesSequencesMove) {
  Batcher batcher(BatcherLimits{.step_tokens = 16, .chunk_tokens = 16, .prefix_cache = false});
  const int32_t a = batcher.add_pool(8), b = batcher.add_pool(8);
  const LaneId first = batcher.open_lane({{.pool = a}});
  SequenceSpec s = spec(1, 20, 2);
  s.lane = first;
  ASSERT_TRUE(batcher.add(s));
  Step step = batcher.next_step(first);
  batcher.complete(step, answers(step));
  step = batcher.next_step(first);
  EXPECT_EQ(step.entries[0].from, 16);
  batcher.abort(step);
  EXPECT_EQ(batcher.counters().aborted, 4);
  step = batcher.next_step(first);
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].from, 16);
  EXPECT_FALSE(step.entries[0].fresh);
  EXPECT_TRUE(step.entries[0].blocks.empty()) << "the nodes know its blocks already";
  batcher.abort(step);
  EXPECT_EQ(batcher.close_lane(first), std::vector<SeqId>{SeqId(1)});
  EXPECT_EQ(batcher.ledger(a).held(), 0);
  const LaneId second = batcher.open_lane({{.pool = b}});
  ASSERT_TRUE(batcher.move(SeqId(1), second));
  step = batcher.next_step(second);
  EXPECT_EQ(step.dropped, std::vector<SeqId>{SeqId(1)});
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].from, 0);
  EXPECT_TRUE(step.entries[0].fresh);
  batcher.check_invariants();
}

TEST(BatcherLanes, AnOlderSequenceThatWaitsForAPoolIsNotOvertakenThroughAnotherLane) {
  Batcher batcher(BatcherLimits{.prefix_cache = false});
  const int32_t pool = batcher.add_pool(10);
  const LaneId one = batcher.open_lane({{.pool = pool}}), two = batcher.open_lane({{.pool = pool}});
  SequenceSpec holder = spec(1, 64, 30), large = spec(2, 128, 1), small = spec(3, 16, 1);
  holder.lane = small.lane = one;
  large.lane = two;
  ASSERT_TRUE(batcher.add(holder));
  ASSERT_TRUE(batcher.add(large));
  Step step = batcher.next_step(one);
  batcher.complete(step, answers(step));
  EXPECT_TRUE(batcher.next_step(two).empty()) << "no room yet, but it asked first";
  ASSERT_TRUE(batcher.add(small));
  step = batcher.next_step(one);
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].seq, SeqId(1));
  batcher.cancel(SeqId(2));
  batcher.complete(step, answers(step));
  step = batcher.next_step(one);
  EXPECT_EQ(step.entries.size(), 2u);
}

TEST(BatcherLanes, StepsAheadUsePlaceholdersAndStopAtTheLimit) {
  Batcher batcher(BatcherLimits{.ahead = 1, .placeholders = true}, 8);
  ASSERT_TRUE(batcher.add(spec(1, 4, 3)));
  const Step one = batcher.next_step();
  const Step two = batcher.next_step();
  ASSERT_EQ(two.entries.size(), 1u);
  EXPECT_EQ(two.entries[0].tokens, std::vector<int32_t>{kPlaceholder});
  EXPECT_TRUE(batcher.next_step().empty()) << "two steps at most";
  batcher.complete(one, answers(one, 7));
  const Step three = batcher.next_step();
  ASSERT_EQ(three.entries.size(), 1u);
  EXPECT_EQ(three.entries[0].from, 5);
  batcher.complete(two, answers(two, 8));
  EXPECT_TRUE(batcher.next_step().empty()) << "the last token is never evaluated";
  batcher.complete(three, answers(three, 9));
  ASSERT_EQ(batcher.take_ended().size(), 1u);
  // A stop token voids the step ahead.
  ASSERT_TRUE(batcher.add(spec(2, 4, 30)));
  const Step a = batcher.next_step(), b = batcher.next_step();
  batcher.complete(a, std::vector<Sampled>{{SeqId(2), 1, true, false}});
  EXPECT_TRUE(batcher.take_ended().empty());
  batcher.complete(b, answers(b));
  const auto ended = batcher.take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].reason, EndReason::kStop);
  EXPECT_EQ(batcher.ledger().held(), 0);
}

// Many pools, lanes over random subsets of them, several steps in flight for each lane, aborts,
// lanes that close and sequences that move: a memory model of every pool, written only from what
// the steps say, must show each row exactly its own prefix.
struct LaneScript {
  Rng& rng;
  Batcher batcher;
  std::vector<std::vector<uint64_t>> cells{};     // [pool][block * 16 + offset]
  std::vector<int32_t> blocks{};                  // [pool]
  std::map<LaneId, std::vector<LanePool>> lanes{};
  std::map<LaneId, std::vector<Step>> flying{};
  struct Held {
    LaneId lane;
    std::vector<std::vector<BlockId>> tables;
  };
  std::map<SeqId, Held> held{};
  std::map<SeqId, std::vector<int32_t>> logs{};
  std::map<SeqId, int> ended{};
  std::set<SeqId> ending{};
  int64_t added = 0, aborts = 0, moves = 0;

  static uint64_t prefix_id(const std::vector<int32_t>& log, int32_t p, const LanePool& pool) {
    uint64_t h = pool.salt + 1;
    for (int32_t i = 0; i <= p; ++i)
      h = mix64(h ^ static_cast<uint64_t>(log.at(static_cast<size_t>(i))));
    return h;
  }
  void form(LaneId lane) {
    Step step = batcher.next_step(lane, static_cast<int32_t>(rng.between(1, 6)));
    for (const SeqId seq : step.dropped) ASSERT_EQ(held.erase(seq), 1u);
    std::set<SeqId> once;
    for (const StepEntry& e : step.entries) {
      ASSERT_TRUE(once.insert(e.seq).second);
      ASSERT_EQ(e.fresh, !held.contains(e.seq));
      Held& h = held[e.seq];
      h.lane = lane;
      const size_t pools = lanes.at(lane).size(), each = e.blocks.size() / pools;
      ASSERT_EQ(e.blocks.size(), pools * each);
      h.tables.resize(pools);
      for (size_t i = 0; i < e.blocks.size(); ++i) h.tables[i / each].push_back(e.blocks[i]);
    }
    if (!step.empty()) flying[lane].push_back(std::move(step));
  }
  void complete(LaneId lane) {
    const Step step = flying[lane].front();
    flying[lane].erase(flying[lane].begin());
    std::vector<Sampled> sampled;
    for (const StepEntry& e : step.entries) {
      std::vector<int32_t>& log = logs.at(e.seq);
      if (!ending.contains(e.seq)) run(e, lane, log);
      if (!e.samples) continue;
      const Sampled s{e.seq, static_cast<int32_t>(rng.below(3)), rng.below(40) == 0,
                      rng.below(300) == 0};
      if (!ending.contains(e.seq) && !s.failed) log.push_back(s.token);
      if (s.stop || s.failed) ending.insert(e.seq);
      sampled.push_back(s);
    }
    batcher.complete(step, sampled);
  }
  void run(const StepEntry& e, LaneId lane, const std::vector<int32_t>& log) {
    ASSERT_LE(e.to, static_cast<int32_t>(log.size()));
    for (int32_t p = e.from; p < e.to; ++p) {
      const int32_t token = e.tokens[static_cast<size_t>(p - e.from)];
      ASSERT_TRUE(token == kPlaceholder || token == log[static_cast<size_t>(p)]);
    }
    const Held& h = held.at(e.seq);
    for (size_t i = 0; i < h.tables.size(); ++i) {
      const LanePool& pool = lanes.at(lane)[i];
      std::vector<uint64_t>& memory = cells[static_cast<size_t>(pool.pool)];
      const auto at = [&](int32_t p) -> uint64_t& {
        const int32_t block = h.tables[i].at(static_cast<size_t>(p / kBlockTokens)).value;
        return memory.at(static_cast<size_t>(block * kBlockTokens + p % kBlockTokens));
      };
      for (int32_t p = e.from; p < e.to; ++p) at(p) = prefix_id(log, p, pool);
      for (int32_t p = 0; p < e.to; ++p) ASSERT_EQ(at(p), prefix_id(log, p, pool)) << p;
    }
  }
  void abort_lane(LaneId lane) {
    for (const Step& step : flying[lane]) batcher.abort(step);
    aborts += static_cast<int64_t>(flying[lane].size());
    flying[lane].clear();
  }
  LaneId open() {
    std::vector<LanePool> pools;
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (rng.below(2) != 0) pools.push_back({static_cast<int32_t>(i), rng.below(2)});
    }
    if (pools.empty()) pools.push_back({0, 0});
    const LaneId lane = batcher.open_lane(pools);
    lanes[lane] = pools;
    return lane;
  }
  LaneId any_lane() {
    auto lane = lanes.begin();
    std::advance(lane, static_cast<int64_t>(rng.below(lanes.size())));
    return lane->first;
  }
  void take_ended() {
    for (const Ended& e : batcher.take_ended()) {
      ASSERT_EQ(++ended[e.seq], 1);
      ending.insert(e.seq);
    }
  }
};

TEST(BatcherLanes, RandomScriptsOverPoolsAndLanesLoseNothing) {
  int64_t aborts = 0, moves = 0;
  for_seeds(60, [&](Rng& rng) {
    const bool ahead = rng.below(2) != 0;
    LaneScript t{.rng = rng,
                 .batcher = Batcher({.step_tokens = static_cast<int32_t>(rng.between(2, 40)),
                                     .sequences = static_cast<int32_t>(rng.between(1, 12)),
                                     .chunk_tokens = static_cast<int32_t>(rng.between(2, 40)),
                                     .prefix_cache = rng.below(3) != 0,
                                     .ahead = static_cast<int32_t>(ahead ? rng.between(1, 3) : 0),
                                     .placeholders = ahead && rng.below(3) != 0,
                                     .spare_blocks = static_cast<int32_t>(rng.below(3))})};
    for (int64_t i = rng.between(1, 4); i > 0; --i) {
      t.blocks.push_back(static_cast<int32_t>(rng.between(4, 16)));
      t.batcher.add_pool(t.blocks.back());
      t.cells.emplace_back(static_cast<size_t>(t.blocks.back() * kBlockTokens));
    }
    const int32_t least = *std::ranges::min_element(t.blocks);
    t.open();
    for (int i = 0; i < 900 && !::testing::Test::HasFatalFailure(); ++i) {
      const LaneId lane = t.any_lane();
      const uint64_t what = rng.below(12);
      if (what <= 1 && t.batcher.waiting() < 20) {
        SequenceSpec s;
        s.id = SeqId(t.added++);
        const int64_t room = int64_t{least} * kBlockTokens;
        const int64_t length = rng.between(1, std::min<int64_t>(room, 80));
        for (int64_t k = 0; k < length; ++k) s.prompt.push_back(static_cast<int32_t>(k / 24));
        if (rng.below(2) != 0) s.prompt.back() = static_cast<int32_t>(rng.below(5));
        s.max_tokens = static_cast<int32_t>(rng.between(0, std::min<int64_t>(30, room - length)));
        s.priority = static_cast<int32_t>(rng.below(3));
        s.every_row = rng.below(8) == 0;
        s.lane = lane;
        t.logs[s.id] = s.prompt;
        ASSERT_TRUE(t.batcher.add(s));
      } else if (what == 2 && t.added > 0 && rng.below(5) == 0) {
        const SeqId seq(static_cast<int64_t>(rng.below(static_cast<uint64_t>(t.added))));
        t.batcher.cancel(seq);
        t.ending.insert(seq);
      } else if (what == 3 && t.lanes.size() < 5 && rng.below(4) == 0) {
        t.open();
      } else if (what == 4 && rng.below(8) == 0) {  // a lane is lost: a node died
        t.abort_lane(lane);
        t.take_ended();
        const std::vector<SeqId> orphans = t.batcher.close_lane(lane);
        t.lanes.erase(lane);
        const LaneId other = t.lanes.empty() ? t.open() : t.any_lane();
        for (const SeqId seq : orphans) ASSERT_TRUE(t.batcher.move(seq, other));
        t.moves += static_cast<int64_t>(orphans.size());
      } else if (what == 5 && rng.below(6) == 0) {
        t.abort_lane(lane);
      } else if (!t.flying[lane].empty() && (what >= 9 || t.flying[lane].size() >= 3)) {
        t.complete(lane);
      } else {
        t.form(lane);
      }
      t.batcher.check_invariants();
      t.take_ended();
    }
    while (!t.batcher.idle() && !::testing::Test::HasFatalFailure()) {
      for (const auto& [lane, pools] : t.lanes) {
        while (!t.flying[lane].empty()) t.complete(lane);
      }
      if (t.batcher.idle()) break;
      bool any = false;
      for (const auto& [lane, pools] : t.lanes) {
        t.form(lane);
        any = any || !t.flying[lane].empty();
      }
      ASSERT_TRUE(any) << "no progress";
      t.batcher.check_invariants();
      t.take_ended();
    }
    t.take_ended();
    ASSERT_EQ(static_cast<int64_t>(t.ended.size()), t.added);
    for (int32_t i = 0; i < t.batcher.pools(); ++i) ASSERT_EQ(t.batcher.ledger(i).held(), 0);
    aborts += t.aborts;
    moves += t.moves;
  });
  if (std::getenv("TOWLINE_SEED") == nullptr) {
    EXPECT_GT(aborts, 100);
    EXPECT_GT(moves, 100);
  }
}

// The same script with and without token vectors takes the same decisions.
TEST(BatcherLanes, LengthsAloneGiveTheSameSteps) {
  for_seeds(20, [](Rng& rng) {
    const BatcherLimits limits{.step_tokens = 24, .sequences = 6, .prefix_cache = false};
    Batcher with(limits, 12), without(limits, 12);
    for (int64_t i = 0; i < 30; ++i) {
      SequenceSpec s = spec(i, static_cast<int32_t>(rng.between(1, 90)),
                            static_cast<int32_t>(rng.between(0, 30)));
      ASSERT_TRUE(with.add(s));
      s.prompt_length = static_cast<int32_t>(s.prompt.size());
      s.prompt.clear();
      ASSERT_TRUE(without.add(s));
    }
    while (!with.idle()) {
      Step a = with.next_step();
      const Step b = without.next_step();
      with.complete(a, answers(a));
      without.complete(b, answers(b));
      for (StepEntry& e : a.entries) e.tokens.clear();
      ASSERT_TRUE(a == b);
    }
    ASSERT_TRUE(without.idle());
  });
}

}  // namespace
}  // namespace towline::policy
