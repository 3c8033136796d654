// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/roles.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "plan/objective.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

TEST(Roles, SplitTheClusterIntoTwoThatEachHoldTheModel) {
  int planned = 0;
  for_seeds(12, [&](Rng& rng) {
    const PlanProblem problem = random_problem(rng, 8);
    const ServingModel model = make_serving_model(problem, {}, {});
    const auto plan = plan_roles(problem, model, {.steps = 2'000});
    if (!plan) {
      EXPECT_EQ(plan.error().code(), Code::kInvalidArgument);
      return;
    }
    ++planned;
    EXPECT_GT(plan->requests, 0);
    for (size_t i = 0; i < plan->decodes.size(); ++i) {
      EXPECT_TRUE((plan->decodes[i] ? plan->prompt : plan->decode).nodes[i].empty());
    }
    const Instance prompt = prompt_instance(problem, model);
    const Instance decode = decode_instance(problem, model);
    EXPECT_TRUE(validate(plan->prompt, prompt));
    EXPECT_TRUE(validate(plan->decode, decode));
    EXPECT_NEAR(static_flow(prompt, plan->prompt, false), plan->prompt_flow, 1e-6);
    EXPECT_NEAR(static_flow(decode, plan->decode, false), plan->decode_flow, 1e-6);
    EXPECT_NEAR(plan->requests, std::min(plan->prompt_flow / model.requests.input,
                                         plan->decode_flow / model.requests.output), 1e-9);
  });
  EXPECT_GT(planned, 3);
}

// What must cross from prompt to decode nodes may be the bottleneck.
TEST(Roles, TransfersLimitTheRate) {
  Rng rng(2);
  const PlanProblem problem = random_problem(rng, 10);
  const ServingModel model = make_serving_model(problem, {}, {});
  const auto free = plan_roles(problem, model, {.steps = 1'000});
  ASSERT_TRUE(free) << free.error().to_string();
  RoleOptions heavy{.steps = 1'000};
  heavy.kv_bytes_per_token_layer = 1e9;
  const auto bound = plan_roles(problem, model, heavy);
  ASSERT_TRUE(bound);
  EXPECT_LT(bound->requests, free->requests);
  EXPECT_EQ(bound->requests, bound->transfer);
}

}  // namespace
}  // namespace towline::plan
