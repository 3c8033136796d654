// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Several pools of KV blocks, and lanes through them, in one Batcher.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/for_seeds.hpp"
#include "policy/testing_batcher.hpp"

namespace towline::policy {
namespace {

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
    for (int32_t i = 0; i <= p; ++i) {
      h = mix64(h ^ static_cast<uint64_t>(log.at(static_cast<size_t>(i))));
    }
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
