// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/stage_batcher.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

// The rule as it is told: walk the queue, take what fits.
std::vector<uint32_t> taken_by_the_rule(const std::vector<StageWork>& queue,
                                        const StageLimits& limits) {
  std::vector<uint32_t> taken;
  int64_t prompts = 0, tokens = 0, decodes = 0, context = 0;
  for (const StageWork& w : queue) {
    if (w.prompt_tokens > 0) {
      if (prompts + 1 > limits.prompts || tokens + w.prompt_tokens > limits.prompt_tokens) continue;
      ++prompts;
      tokens += w.prompt_tokens;
    } else {
      if (decodes + 1 > limits.decodes || context + w.context > limits.decode_context) continue;
      ++decodes;
      context += w.context;
    }
    taken.push_back(w.request);
  }
  return taken;
}

TEST(StageBatch, AgreesWithTheRuleAndLosesNothing) {
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    const StageLimits limits{.prompts = static_cast<int32_t>(1 + rng.below(3)),
                             .prompt_tokens = 2000,
                             .decodes = static_cast<int32_t>(1 + rng.below(40)),
                             .decode_context = 20'000};
    std::vector<StageWork> queue;
    const uint64_t size = 1 + rng.below(60);
    events += static_cast<int64_t>(size);
    for (uint32_t i = 0; i < size; ++i) {
      const bool prompt = rng.below(5) == 0;
      queue.push_back({i, prompt ? static_cast<int32_t>(1 + rng.below(2000)) : 0,
                       prompt ? 0 : static_cast<int32_t>(1 + rng.below(1500))});
    }
    // Until the queue is empty: every request runs exactly once, in the order of the rule.
    std::vector<int> runs(size);
    StageBatch batch;
    while (!queue.empty()) {
      const std::vector<uint32_t> expected = taken_by_the_rule(queue, limits);
      const size_t before = queue.size();
      ASSERT_TRUE(take_stage_batch(queue, limits, batch));
      std::vector<uint32_t> taken;
      int64_t tokens = 0;
      for (const StageWork& w : batch.work) {
        taken.push_back(w.request);
        tokens += w.prompt_tokens;
        ++runs[w.request];
      }
      ASSERT_EQ(taken, expected);
      ASSERT_EQ(tokens, batch.prompt_tokens);
      ASSERT_EQ(batch.prompts + batch.decodes, static_cast<int32_t>(taken.size()));
      ASSERT_EQ(before, queue.size() + taken.size());
      ASSERT_FALSE(taken.empty());
    }
    for (const int n : runs) ASSERT_EQ(n, 1);
  });
}

TEST(StageBatch, TellsOfWorkThatCanNeverRun) {
  StageBatch batch;
  std::vector<StageWork> queue = {{1, 3000, 0}, {2, 0, 10}};
  EXPECT_FALSE(take_stage_batch(queue, {.prompt_tokens = 2048}, batch));
  ASSERT_EQ(queue.size(), 1u);
  EXPECT_EQ(queue[0].request, 1u);
  ASSERT_EQ(batch.work.size(), 1u);
  EXPECT_EQ(batch.work[0].request, 2u);
}

}  // namespace
}  // namespace towline::policy
