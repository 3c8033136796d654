// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/plan_desc.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::spec {
namespace {

Result<PlanDesc> read(const std::string& text) {
  Result<Json> tree = parse_toml(text, "plan.toml");
  if (!tree) return std::move(tree).error();
  return parse_plan(*tree, "plan.toml");
}

PlanDesc random_plan(Rng& rng) {
  PlanDesc plan;
  plan.method = "auto \"quoted\"";
  plan.model = rng.below(2) == 0 ? "" : "toy";
  plan.layers = static_cast<int32_t>(rng.between(1, 9));
  plan.max_flow = TokensPerSec(1e4 * rng.unit());
  plan.upper_bound = TokensPerSec(1e4);
  plan.nodes.push_back({"all", {0, plan.layers}, TokensPerSec(rng.unit())});
  for (int i = 0; i < 4; ++i) {
    const auto begin = static_cast<int32_t>(rng.between(0, plan.layers));
    plan.nodes.push_back({"n" + std::to_string(i),
                          {begin, static_cast<int32_t>(rng.between(begin, plan.layers))},
                          TokensPerSec(1e-7 * rng.unit())});
    plan.links.push_back(
        {"source", plan.nodes.back().name, TokensPerSec(3), TokensPerSec(5e8), rng.unit()});
  }
  plan.links.push_back({"all", "sink", TokensPerSec(0), TokensPerSec(1e18), 1});
  return plan;
}

TEST(PlanDesc, PrintsWhatItReads) {
  for_seeds(100, [](Rng& rng) {
    const PlanDesc plan = random_plan(rng);
    ASSERT_TRUE(validate(plan)) << validate(plan).error().to_string();
    const auto again = read(print_plan(plan));
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(*again, plan);
    EXPECT_EQ(again->find("all")->layers.size(), plan.layers);
    EXPECT_EQ(again->find("nobody"), nullptr);
  });
}

TEST(PlanDesc, RefusesPlansThatCannotRun) {
  const std::string good =
      "schema = 1\nlayers = 4\n[[nodes]]\nname = \"a\"\nbegin = 0\nend = 4\n[[links]]\n"
      "from = \"source\"\nto = \"a\"\nshare = 1\n";
  ASSERT_TRUE(read(good));
  const auto with = [&](std::string_view old, std::string_view fresh) {
    std::string text = good;
    return text.replace(text.find(old), old.size(), fresh);
  };
  const std::pair<std::string, const char*> cases[] = {
      {with("schema = 1", "schema = 3"), "schema must be 1"},
      {with("layers = 4", "layers = 0"), "a plan of 0 layers"},
      {with("end = 4", "end = 3"), "no node holds layer 3"},
      {with("end = 4", "end = 5"), "[0, 5)"},
      {with("begin = 0", "begin = -2"), "[-1, 4)"},
      {with("to = \"a\"", "to = \"b\""), "unknown end"},
      {with("share = 1", "share = 2"), "a share of 2"},
      {with("name = \"a\"", "name = \"sink\""), "not source or sink"},
  };
  for (const auto& [text, says] : cases) {
    const auto plan = read(text);
    ASSERT_FALSE(plan) << text;
    EXPECT_NE(plan.error().to_string().find(says), std::string::npos) << plan.error().to_string();
    EXPECT_EQ(exit_code(plan.error().code()), 2);
  }
}

}  // namespace
}  // namespace towline::spec
