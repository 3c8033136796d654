// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/serving_limits.hpp"

#include <gtest/gtest.h>

namespace towline::policy {
namespace {

TEST(ServingLimits, AreThoseOfTheScenario) {
  spec::ScenarioServing s;
  s.router = "shortest_queue";
  s.sequences = 7;
  s.step_tokens = 100;
  s.chunk_tokens = 300;
  s.prefix_cache = false;
  s.queue = 20;
  s.extra_steps = 3;
  const auto o = coordinator_options(s);
  ASSERT_TRUE(o) << o.error().to_string();
  EXPECT_EQ(o->router, RouterKind::kShortestQueue);
  EXPECT_EQ(o->batch.sequences, 7);
  EXPECT_EQ(o->batch.step_tokens, 100);
  EXPECT_EQ(o->batch.chunk_tokens, 100) << "a chunk is no larger than a step";
  EXPECT_FALSE(o->batch.prefix_cache);
  EXPECT_GT(o->batch.ahead, 1);
  EXPECT_FALSE(o->batch.placeholders);
  EXPECT_EQ(o->extra_steps, 3);
  EXPECT_EQ(o->admission.waiting, 34);
}

TEST(ServingLimits, DefaultsAreTheCoordinators) {
  const auto o = coordinator_options({});
  ASSERT_TRUE(o);
  EXPECT_EQ(o->router, RouterKind::kFlow);
  EXPECT_EQ(o->extra_steps, CoordinatorOptions{}.extra_steps);
}

TEST(ServingLimits, AsyncSendsOneStepBeforeItsTokenIsKnown) {
  spec::ScenarioServing s;
  s.async = true;
  const auto o = coordinator_options(s);
  ASSERT_TRUE(o);
  EXPECT_EQ(o->batch.ahead, 1);
  EXPECT_TRUE(o->batch.placeholders);
  s.router = "fastest";
  EXPECT_FALSE(coordinator_options(s));
}

}  // namespace
}  // namespace towline::policy
