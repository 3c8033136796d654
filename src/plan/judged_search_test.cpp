// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/judged_search.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "plan/bounds.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

// Stands for a simulator that dislikes idle nodes: the flow, less a part for each of them.
Verdict opinion(const Instance& instance, const Placement& placement) {
  const double flow = static_flow(instance, placement, false);
  double idle = 0;
  for (const LayerRange range : placement.nodes) idle += range.empty() ? 1 : 0;
  return {flow > 0, flow * std::pow(0.9, idle), 1 / (1 + flow), 0};
}

struct Case {
  Instance instance;
  std::vector<Placement> candidates;
  JudgedOptions options;

  explicit Case(uint64_t seed) {
    Rng rng(seed);
    instance = sample_instance(rng, {.nodes = 8, .layers = 8, .longest = 5, .regions = 2});
    for (int i = 0; i < 20; ++i) candidates.push_back(sample_placement(rng, instance));
    options.bound = truncated_capacity_bound(instance);
    options.rounds = 6;
    options.finalists = 3;
    options.judge = [this](const Placement& p, bool) { return opinion(instance, p); };
  }
};

TEST(JudgedSearch, ClimbsAndDoesNotDependOnThreads) {
  Case one(5);
  double best_candidate = 0;
  for (const Placement& p : one.candidates) {
    best_candidate = std::max(best_candidate, opinion(one.instance, p).decode_tps);
  }
  const JudgedResult alone = judged_search(one.instance, one.candidates, one.options);
  ASSERT_FALSE(alone.finalists.empty());
  EXPECT_LE(alone.finalists.size(), 3u);
  EXPECT_GE(alone.finalists[0].verdict.decode_tps, best_candidate);
  EXPECT_EQ(opinion(one.instance, alone.finalists[0].placement).decode_tps,
            alone.finalists[0].verdict.decode_tps);
  one.options.threads = 3;
  const JudgedResult crew = judged_search(one.instance, one.candidates, one.options);
  ASSERT_EQ(crew.finalists.size(), alone.finalists.size());
  for (size_t i = 0; i < crew.finalists.size(); ++i) {
    EXPECT_EQ(crew.finalists[i].placement, alone.finalists[i].placement);
  }
}

TEST(JudgedSearch, GivesNothingWhereNothingCanBeServed) {
  Case one(6);
  one.options.judge = [](const Placement&, bool) { return Verdict{}; };
  EXPECT_TRUE(judged_search(one.instance, one.candidates, one.options).finalists.empty());
}

TEST(Verdicts, GoalsComeBeforeRate) {
  const LatencyGoals goals{.ttft = 0, .tpot = 1};
  const Verdict slow{true, 300, 1.5, 0}, quick{true, 200, 0.9, 0}, quicker{true, 210, 0.5, 0};
  EXPECT_TRUE(better(quick, slow, goals));
  EXPECT_TRUE(better(quicker, quick, goals));
  EXPECT_TRUE(better(slow, quick, {}));
  EXPECT_TRUE(better(slow, Verdict{}, goals));
  EXPECT_FALSE(better(Verdict{}, slow, {}));
}

}  // namespace
}  // namespace towline::plan
