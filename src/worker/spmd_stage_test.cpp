// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The real decoder behind the rank loop: one rank or several, threads or processes, the steps of a
// lane one at a time or one ahead, give the same tokens, bit for bit.
#include <gtest/gtest.h>

#include "base/fmt.hpp"
#include "engine/testing_model.hpp"
#include "worker/stage_executor.hpp"
#include "worker/steady_load.hpp"

namespace towline::worker {
namespace {

constexpr int32_t kSequences = 5;
constexpr int32_t kSteps = 12;

std::string make_model(const engine::TempDir& dir) {
  spec::ModelDesc d = engine::small_shape("llama", 3);
  d.kv_heads = 4;
  return engine::write_model(dir, d, "q8_0");
}

policy::NodeStep first_step() {
  policy::NodeStep step;
  step.opened.push_back({LaneId(0), {0, 3}, NodeId(-1), NodeId(-1), NodeId(0)});
  step.lane = LaneId(0);
  step.step = 0;
  for (int32_t i = 0; i < kSequences; ++i) {
    policy::FreshSlot f;
    f.slot = {static_cast<uint32_t>(i), 1};
    f.lane = LaneId(0);
    f.spec.seq = SeqId(i);
    f.spec.prompt_length = 7 + 9 * i;
    f.spec.sampling.temperature = i % 2 == 0 ? 0.0f : 0.9f;
    f.spec.sampling.seed = static_cast<uint64_t>(i);
    if (i == 3) f.spec.sampling.repetition_penalty = 1.3f;
    for (int32_t p = 0; p < f.spec.prompt_length; ++p) f.tokens.push_back((p * 37 + i * 11) % 300);
    for (int32_t b = 0; b < 5; ++b) f.blocks.push_back(i * 5 + b);
    step.rows.push_back({f.slot.slot, 0, f.spec.prompt_length, policy::StepRow::kSamples, 0});
    step.fresh.push_back(std::move(f));
  }
  return step;
}

// The tokens of all sequences, [kSteps][kSequences].
std::vector<std::vector<int32_t>> generate(const std::string& model, int32_t ranks, bool processes,
                                           size_t in_flight, int32_t stages = 1) {
  StageExecutorOptions stage;
  stage.model = model;
  stage.kv_blocks = 32;
  stage.max_rows = 256;
  stage.threads = 1;
  stage.layers = {0, 3};
  RankGroupOptions options = null_group(ranks, processes, {}, stages);
  options.executor = stage.to_json();
  options.limits.vocab = 300;
  Result<std::unique_ptr<RankGroup>> group = RankGroup::start(options);
  EXPECT_TRUE(group) << group.error().to_string();
  policy::StepSender sender(options.limits, Epoch(1));
  std::vector<std::vector<int32_t>> tokens;
  policy::NodeStep draft = first_step();
  for (int32_t sent = 0; static_cast<int32_t>(tokens.size()) < kSteps;) {
    while (sent < kSteps && static_cast<size_t>(sent) - tokens.size() < in_flight) {
      const Result<policy::NodeStep> message = sender.next(draft);
      EXPECT_TRUE(message && submit(**group, *message));
      draft = {};
      draft.lane = LaneId(0);
      draft.step = ++sent;
      for (uint32_t i = 0; i < kSequences; ++i) {
        draft.rows.push_back({i, sender.mirror().slot_at(i)->computed, 1,
                              policy::StepRow::kSamples | policy::StepRow::kFed, 0});
      }
    }
    const std::optional<GroupEvent> event = (*group)->wait(net::deadline_in(seconds(300)));
    EXPECT_TRUE(event && event->ok()) << (event ? event->error : "no answer");
    if (!event || !event->ok()) return {};
    std::vector<int32_t>& step = tokens.emplace_back();
    for (const RowResult& r : event->outputs[0].rows) {
      step.push_back(r.token.token);
      EXPECT_TRUE(sender.learn(r.slot, r.position, r.token.token));
    }
  }
  return tokens;
}

TEST(SpmdStage, RanksAndOrderOfSendingDoNotShowInTheTokens) {
  const engine::TempDir dir;
  const std::string model = make_model(dir);
  const auto expected = generate(model, 1, false, 1);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kSteps));
  for (const auto& step : expected) ASSERT_EQ(step.size(), static_cast<size_t>(kSequences));
  EXPECT_EQ(generate(model, 1, false, 2), expected) << "one step ahead";
  EXPECT_EQ(generate(model, 1, true, 1), expected) << "a process";
  EXPECT_EQ(generate(model, 2, false, 2), expected) << "two threads";
  EXPECT_EQ(generate(model, 2, true, 2), expected) << "two processes";
  EXPECT_EQ(generate(model, 4, true, 2), expected) << "four processes";
  EXPECT_EQ(generate(model, 1, false, 1, 2), expected) << "two stages";
  EXPECT_EQ(generate(model, 1, true, 2, 3), expected) << "three stages, processes, one step ahead";
  EXPECT_EQ(generate(model, 2, true, 2, 2), expected) << "two stages of two processes";
}

}  // namespace
}  // namespace towline::worker
