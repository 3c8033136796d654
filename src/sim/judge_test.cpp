// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/judge.hpp"

#include <gtest/gtest.h>

#include "sim/testing_helix.hpp"
#include "spec/helix_cluster.hpp"

namespace towline::sim {
namespace {

TEST(TypicalLengths, LookLikeAChatService) {
  double in = 0, out = 0;
  const auto lengths = typical_lengths();
  for (const auto& [i, o] : lengths) {
    ASSERT_TRUE(4 <= i && i < 2048 && 4 <= o && o <= 1000);
    in += i;
    out += o;
  }
  EXPECT_NEAR(in / static_cast<double>(lengths.size()), 760, 50);
  EXPECT_NEAR(out / static_cast<double>(lengths.size()), 230, 25);
}

// With the published lengths, the published plan is judged as it was published.
TEST(Judge, GivesThePublishedFigure) {
  NEEDS_SHARED_DATA();
  const std::string data = helix_data();
  auto cluster = spec::load_any_cluster(data + "/clusters/single24.ini",
                                        data + "/profiles/machine_profile.ini");
  ASSERT_TRUE(cluster) << cluster.error().to_string();
  const auto profile = spec::builtin_profile("llama2-70b");
  ASSERT_TRUE(profile);
  auto problem = plan::make_problem(*cluster, *profile);
  ASSERT_TRUE(problem) << problem.error().to_string();
  const std::string folder = data + "/layouts/example_single24_70b/ilp/";
  const auto solution = spec::load_helix_solution(folder + "ilp_sol.ini");
  ASSERT_TRUE(solution);
  auto placement = plan::placement_of(*solution, *problem);
  ASSERT_TRUE(placement);
  const auto sim = spec::load_helix_sim_cluster(folder + "simulator_cluster.ini");
  ASSERT_TRUE(sim);
  const auto linked = plan::link_as_listed(*problem, *placement, *sim);
  ASSERT_TRUE(linked) << linked.error().to_string();
  JudgeOptions options;
  options.lengths = azure_traffic().lengths;
  const auto judgement = judge(*problem, *linked, *profile, options);
  ASSERT_TRUE(judgement) << judgement.error().to_string();
  EXPECT_NEAR(judgement->decode_tps, 248.33333333333334, 1e-9);
  EXPECT_NEAR(judgement->max_flow, 1289.5557702751464, 1e-6);
  EXPECT_EQ(judgement->in_flight, 342);
}

}  // namespace
}  // namespace towline::sim
