// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/step_delta.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "policy/testing_step_script.hpp"

namespace towline::policy {
namespace {

StepScriptOptions random_options(Rng& rng) {
  StepScriptOptions o;
  o.lanes = static_cast<int32_t>(rng.between(1, 3));
  o.in_flight = rng.below(3) + 1;
  o.fed = rng.below(2) == 0;
  o.async = o.fed && rng.below(2) == 0;
  o.embeds = rng.below(3) != 0;
  o.samples = rng.below(3) != 0;
  return o;
}

// What a node evaluates: lane step, rows, and the tokens of the rows.
struct RanRow {
  StepRow row;
  std::vector<int32_t> tokens;
  friend bool operator==(const RanRow&, const RanRow&) = default;
};
using Ran = std::map<LaneStep, std::vector<RanRow>>;

// One node that runs whatever is pending, oldest first.
void run_oldest(StepMirror& mirror, LaneStep step, Ran& ran) {
  ASSERT_NE(mirror.pending(step), nullptr);
  ASSERT_TRUE(mirror.tokens_ready(step));
  std::vector<RanRow> rows;
  for (StepRow row : *mirror.pending(step)) {
    const SlotState& s = *mirror.slot_at(row.slot);
    RanRow r{row, {}};
    if (!s.tokens.empty()) {
      const std::vector<int32_t> known = s.tokens.all();
      r.tokens.assign(known.begin() + row.from, known.begin() + row.to());
    }
    r.row.flags &= StepRow::kSamples | StepRow::kEveryRow;  // how a token comes is no difference
    r.row.token = 0;
    rows.push_back(std::move(r));
  }
  EXPECT_TRUE(ran.emplace(step, std::move(rows)).second) << "evaluated twice";
  mirror.retire(step);
}

// Completes the script's oldest step and tells everybody what it sampled.
void complete_oldest(StepScript& script, StepSender& sender, StepMirror& node, Ran& ran) {
  const LaneStep step = script.in_flight().front();
  run_oldest(node, step, ran);
  sender.completed(step);
  for (const StepScript::Sample& s : script.complete()) {
    ASSERT_TRUE(sender.learn(s.slot, s.position, s.token));
    ASSERT_TRUE(node.feed(s.slot, s.position, s.token));
  }
}

TEST(StepDelta, MirrorFollowsRandomScriptsInEveryForm) {
  for (const DeltaForm form : {DeltaForm::kImplied, DeltaForm::kExplicit, DeltaForm::kFull}) {
    for_events(kMillionEvents / 3, [&](Rng& rng, int64_t& events) {
      StepScriptOptions options = random_options(rng);
      if (form == DeltaForm::kFull) options.in_flight = 1;  // a full form forgets what was not run
      StepScript script(options, rng());
      StepSender sender(script.limits(), Epoch(3), form);
      StepMirror node(script.limits());
      Ran ran;
      for (int i = 0; i < 120 && !testing::Test::HasFatalFailure(); ++i) {
        Result<NodeStep> message = sender.next(script.draft());
        ASSERT_TRUE(message) << message.error().to_string();
        const Result<void> applied = node.apply(*message);
        // The ablation arm counts its two halves; only the whole is sent.
        ASSERT_TRUE(applied) << applied.error().to_string();
        ASSERT_EQ(script.compare(node), "") << "message " << i;
        ASSERT_EQ(node.hash(), sender.mirror().hash());
        events += 1 + static_cast<int64_t>(message->rows.size());
        while (script.in_flight().size() >= options.in_flight ||
               (!script.in_flight().empty() && rng.below(2) == 0)) {
          complete_oldest(script, sender, node, ran);
        }
      }
    });
  }
}

TEST(StepDelta, SnapshotIsTheWholeState) {
  for_seeds(60, [&](Rng& rng) {
    const StepScriptOptions options = random_options(rng);
    StepScript script(options, rng());
    StepSender sender(script.limits(), Epoch(1));
    StepMirror node(script.limits());
    Ran ran;
    for (int i = 0; i < 60; ++i) {
      ASSERT_TRUE(node.apply(*sender.next(script.draft())));
      while (!script.in_flight().empty()) complete_oldest(script, sender, node, ran);
      StepMirror other(script.limits());
      const NodeStep full = sender.snapshot();
      ASSERT_TRUE(other.apply(full));
      ASSERT_EQ(script.compare(other), "");
      StepMirror third(script.limits());
      ASSERT_TRUE(third.apply(full));
      ASSERT_EQ(other.hash(), third.hash());
    }
  });
}

// Whatever is lost, doubled or garbled on the way, the node evaluates exactly what it would have.
TEST(StepDelta, ResyncGivesTheUndisturbedRun) {
  for_seeds(120, [&](Rng& rng) {
    StepScriptOptions options = random_options(rng);
    const uint64_t seed = rng();
    Ran expected;
    Ran got;
    for (const bool disturbed : {false, true}) {
      Ran& ran = disturbed ? got : expected;
      StepScript script(options, seed);
      Rng timing(seed + 1);
      StepSender sender(script.limits(), Epoch(1));
      StepMirror node(script.limits());
      for (int i = 0; i < 80 && !testing::Test::HasFatalFailure(); ++i) {
        Result<NodeStep> message = sender.next(script.draft());
        ASSERT_TRUE(message);
        const uint64_t accident = disturbed ? rng.below(12) : 99;
        if (accident == 0) {  // lost; the next one tells
        } else if (accident == 1) {
          (void)node.apply(*message);
          ASSERT_EQ(node.apply(*message).error().code(), Code::kAlreadyExists);
        } else if (accident == 2) {
          message->finished.push_back({7000, 1});  // garbled: void until a full form
          EXPECT_FALSE(node.apply(*message));
        } else if (accident == 3) {
          message->base_hash ^= 1;
          if (!message->full) {
            EXPECT_EQ(node.apply(*message).error().code(), Code::kUnavailable);
          }
        } else {
          const Result<void> applied = node.apply(*message);
          if (!disturbed) {
            ASSERT_TRUE(applied);
          }
        }
        // The node asks for the full form as soon as it notices; a lost last message is noticed
        // here by the lane step that never runs.
        if (node.number() != sender.mirror().number() || node.needs_full()) {
          Result<std::vector<NodeStep>> again = sender.resync();
          ASSERT_TRUE(again) << again.error().to_string();
          for (const NodeStep& m : *again) {
            const Result<void> applied = node.apply(m);
            ASSERT_TRUE(applied) << applied.error().to_string();
          }
        }
        ASSERT_EQ(script.compare(node), "");
        ASSERT_EQ(node.hash(), sender.mirror().hash());
        while (script.in_flight().size() >= options.in_flight ||
               (!script.in_flight().empty() && timing.below(2) == 0)) {
          complete_oldest(script, sender, node, ran);
        }
      }
    }
    EXPECT_EQ(got, expected);
  });
}

// A node with one lane that embeds and samples, and `count` sequences
// of `length` tokens, generating.
struct Decoding {
  Decoding(int32_t count, int32_t length, DeltaForm form)
      : sender(limits(), Epoch(1), form), node(limits()) {
    NodeStep step;
    step.opened.push_back({LaneId(0), {0, 4}, NodeId(-1), NodeId(-1), NodeId(0)});
    for (int32_t i = 0; i < count; ++i) {
      FreshSlot fresh;
      fresh.slot = {static_cast<uint32_t>(i), 1};
      fresh.lane = LaneId(0);
      fresh.spec.prompt_length = length;
      fresh.tokens.assign(static_cast<size_t>(length), i);
      fresh.computed = 0;
      for (int32_t b = 0; b <= length / 16; ++b) fresh.blocks.push_back(b);
      step.fresh.push_back(fresh);
      step.rows.push_back({fresh.slot.slot, 0, length, StepRow::kSamples, 0});
    }
    step.lane = LaneId(0);
    step.step = 0;
    EXPECT_TRUE(node.apply(*sender.next(step)));
  }
  static MirrorLimits limits() { return {}; }
  // Every sequence generates one more token.
  NodeStep next() {
    NodeStep step;
    step.lane = LaneId(0);
    step.step = ++number;
    for (uint32_t i = 0; const SlotState& s : node.slots()) {
      step.rows.push_back({i++, s.computed, 1, StepRow::kSamples | StepRow::kFed, 0});
    }
    Result<NodeStep> message = sender.next(step);
    EXPECT_TRUE(message);
    EXPECT_TRUE(node.apply(*message));
    return *message;
  }
  StepSender sender;
  StepMirror node;
  int64_t number = 0;
};

TEST(StepDelta, ContinuingRowsAreImplied) {
  Decoding d(100, 40, DeltaForm::kImplied);
  for (int i = 0; i < 5; ++i) {
    const NodeStep message = d.next();
    EXPECT_TRUE(message.rows.empty());
    EXPECT_EQ(message.implied.size(), 4u);
    EXPECT_EQ(message.implied_step, i);
    ASSERT_EQ(d.node.pending({LaneId(0), i + 1})->size(), 100u);
    EXPECT_EQ(d.node.pending({LaneId(0), i + 1})->at(99).from, 40 + i);
  }
}

TEST(StepDelta, MiddleNodeGetsNoTokens) {
  StepSender sender(MirrorLimits{}, Epoch(1));
  NodeStep step;
  step.opened.push_back({LaneId(0), {2, 4}, NodeId(0), NodeId(2), NodeId(0)});
  FreshSlot fresh{{0, 1}, LaneId(0), {}, 0, {5, 6, 7}, {0}};
  fresh.spec.prompt_length = 3;
  step.fresh.push_back(fresh);
  step.lane = LaneId(0);
  step.step = 0;
  step.rows.push_back({0, 0, 3, StepRow::kSamples, 0});
  Result<NodeStep> message = sender.next(step);
  ASSERT_TRUE(message);
  EXPECT_TRUE(message->fresh[0].tokens.empty());
  NodeStep more;
  more.lane = LaneId(0);
  more.step = 1;
  more.rows.push_back({0, 3, 1, StepRow::kSamples | StepRow::kToken, 9});
  message = sender.next(more);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->rows[0].flags, uint32_t{StepRow::kSamples});
  EXPECT_TRUE(sender.mirror().tokens_ready({LaneId(0), 1}) == false);  // the sender runs nothing
}

TEST(StepDelta, StepWaitsForItsFedTokens) {
  Decoding d(2, 8, DeltaForm::kImplied);
  d.next();
  const LaneStep step{LaneId(0), 1};
  EXPECT_FALSE(d.node.tokens_ready(step));
  const uint64_t hash = d.node.hash();
  const uint64_t rank_hash = d.node.rank_hash();
  ASSERT_TRUE(d.node.feed({0, 1}, 8, 3));
  EXPECT_FALSE(d.node.tokens_ready(step));
  ASSERT_TRUE(d.node.feed({1, 1}, 8, 3));
  EXPECT_TRUE(d.node.tokens_ready(step));
  EXPECT_EQ(d.node.hash(), hash);
  EXPECT_NE(d.node.rank_hash(), rank_hash);
  // Stale: ignored. A contradiction, a token outside the vocabulary, a gap: told.
  EXPECT_TRUE(d.node.feed({1, 9}, 8, 4));
  EXPECT_TRUE(d.node.feed({900, 1}, 8, 4));
  EXPECT_EQ(d.node.feed({1, 1}, 8, 4).error().code(), Code::kDataCorrupt);
  EXPECT_EQ(d.node.feed({1, 1}, 9, -2).error().code(), Code::kDataCorrupt);
  EXPECT_EQ(d.node.feed({1, 1}, 11, 4).error().code(), Code::kDataCorrupt);
}

TEST(StepDelta, OrderIsChecked) {
  Decoding d(2, 8, DeltaForm::kImplied);
  const NodeStep message = d.next();
  EXPECT_EQ(d.node.apply(message).error().code(), Code::kAlreadyExists);
  NodeStep gap;
  gap.epoch = message.epoch;
  gap.number = message.number + 2;
  EXPECT_EQ(d.node.apply(gap).error().code(), Code::kUnavailable);
  gap.number = message.number + 1;
  gap.base_hash = d.node.hash() + 1;
  EXPECT_EQ(d.node.apply(gap).error().code(), Code::kUnavailable);
  gap.epoch = Epoch(2);
  gap.base_hash = 0;
  EXPECT_EQ(d.node.apply(gap).error().code(), Code::kUnavailable);
  NodeStep first = gap;
  first.full = true;
  first.number = INT64_MIN;  // the distance to the next would be too large for its type
  EXPECT_EQ(d.node.apply(first).error().code(), Code::kUnavailable);
  EXPECT_FALSE(d.node.needs_full());  // none of these changed anything
  gap.epoch = Epoch(0);
  EXPECT_EQ(d.node.apply(gap).error().code(), Code::kAlreadyExists);
  gap.epoch = message.epoch;
  EXPECT_TRUE(d.node.apply(gap));
}

// Every impossible message is refused in words and leaves a mirror that
// only a full form brings back.
TEST(StepDelta, ImpossibleMessagesAreRefused) {
  const auto row = [](uint32_t slot, int32_t from, int32_t count, uint32_t flags) {
    return StepRow{slot, from, count, flags, 1};
  };
  const auto good = [](NodeStep& m) {
    m.lane = LaneId(0);
    m.step = 1;
  };
  const std::vector<std::pair<const char*, std::function<void(NodeStep&)>>> cases = {
      {"unknown lane", [](NodeStep& m) { m.closed = {LaneId(5)}; }},
      {"lane twice", [](NodeStep& m) { m.opened = {{LaneId(0), {0, 1}, {}, {}, {}}}; }},
      {"layers not held", [](NodeStep& m) { m.opened = {{LaneId(1), {0, 99999}, {}, {}, {}}}; }},
      {"stale generation", [](NodeStep& m) { m.finished = {{0, 2}}; }},
      {"free slot", [](NodeStep& m) { m.preempted = {{3, 1}}; }},
      {"finished twice", [](NodeStep& m) { m.finished = {{0, 1}, {0, 1}}; }},
      {"slot out of range",
       [](NodeStep& m) { m.fresh = {{{5000, 1}, LaneId(0), {}, 0, {1}, {0}}}; }},
      {"slot taken", [](NodeStep& m) { m.fresh = {{{0, 2}, LaneId(0), {}, 0, {1}, {0}}}; }},
      {"no prompt", [](NodeStep& m) { m.fresh = {{{9, 1}, LaneId(0), {}, 0, {}, {0}}}; }},
      {"block", [](NodeStep& m) { m.resumed = {{{0, 1}, LaneId(0), 0, 0, {}, {1 << 21}}}; }},
      {"computed", [](NodeStep& m) { m.resumed = {{{0, 1}, LaneId(0), 17, 0, {}, {1}}}; }},
      {"token", [](NodeStep& m) { m.resumed = {{{0, 1}, LaneId(0), 0, 8, {1 << 21}, {1}}}; }},
      {"token gap", [](NodeStep& m) { m.resumed = {{{0, 1}, LaneId(0), 0, 12, {1}, {1}}}; }},
      {"rows without lane", [&](NodeStep& m) { m.rows = {row(0, 8, 1, 4)}; }},
      {"no rows", [&](NodeStep& m) { good(m); }},
      {"lane not open",
       [&](NodeStep& m) { good(m), m.lane = LaneId(7), m.rows = {row(0, 8, 1, 4)}; }},
      {"step again", [&](NodeStep& m) { good(m), m.step = 0, m.rows = {row(0, 8, 1, 4)}; }},
      {"from", [&](NodeStep& m) { good(m), m.rows = {row(0, 7, 1, 4)}; }},
      {"count", [&](NodeStep& m) { good(m), m.rows = {row(0, 8, 0, 4)}; }},
      {"count", [&](NodeStep& m) { good(m), m.rows = {row(0, 8, INT32_MAX, 4)}; }},
      {"flags", [&](NodeStep& m) { good(m), m.rows = {row(0, 8, 1, 64)}; }},
      {"token unknown", [&](NodeStep& m) { good(m), m.rows = {row(0, 8, 1, 1)}; }},
      {"row twice", [&](NodeStep& m) { good(m), m.rows = {row(0, 8, 1, 4), row(0, 9, 1, 4)}; }},
      {"row of a free slot", [&](NodeStep& m) { good(m), m.rows = {row(4, 8, 1, 4)}; }},
      {"block of no row",
       [&](NodeStep& m) { good(m), m.rows = {row(0, 8, 1, 4)}, m.new_blocks = {{1, 0}}; }},
      {"implied step", [&](NodeStep& m) { good(m), m.implied_step = 5, m.implied = {1}; }},
      {"implied row", [&](NodeStep& m) { good(m), m.implied_step = 0, m.implied = {4}; }},
      {"implied words", [&](NodeStep& m) { good(m), m.implied_step = 0, m.implied = {1, 0, 0}; }},
  };
  for (const auto& [name, spoil] : cases) {
    SCOPED_TRACE(name);
    Decoding d(2, 8, DeltaForm::kImplied);
    NodeStep message;
    message.epoch = Epoch(1);
    message.number = 2;
    spoil(message);
    const Result<void> applied = d.node.apply(message);
    ASSERT_FALSE(applied);
    EXPECT_EQ(applied.error().code(), Code::kDataCorrupt);
    EXPECT_TRUE(d.node.needs_full());
    message = NodeStep{};
    message.epoch = Epoch(1);
    message.number = 3;
    EXPECT_EQ(d.node.apply(message).error().code(), Code::kUnavailable);
    NodeStep full = d.sender.snapshot();
    full.number = 4;
    EXPECT_TRUE(d.node.apply(full));
  }
}

}  // namespace
}  // namespace towline::policy
