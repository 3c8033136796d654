// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/stage_ip.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "base/for_seeds.hpp"
#include "plan/bounds.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

std::vector<int32_t> all_nodes(const Instance& instance) {
  std::vector<int32_t> nodes(instance.rates.size());
  std::iota(nodes.begin(), nodes.end(), 0);
  return nodes;
}

// The best aligned plan, by trying every way to give nodes to stages of every depth.
double brute_force_stages(const Instance& instance) {
  double best = 0;
  std::vector<int32_t> stage_of(instance.rates.size());
  const auto fill = [&](auto&& self, std::vector<int32_t>& depths, int32_t left) -> void {
    if (left > 0) {
      for (int32_t depth = 1; depth <= left; ++depth) {
        depths.push_back(depth);
        self(self, depths, left - depth);
        depths.pop_back();
      }
      return;
    }
    const auto assign = [&](auto&& again, int32_t node) -> void {
      if (node == instance.nodes()) {
        double flow = 1e18;
        for (size_t s = 0; s < depths.size(); ++s) {
          double rate = 0;
          for (int32_t i = 0; i < instance.nodes(); ++i) {
            if (stage_of[i] == static_cast<int32_t>(s) && instance.max_count(i) >= depths[s]) {
              rate += instance.rate(i, depths[s]);
            }
          }
          flow = std::min(flow, rate);
        }
        best = std::max(best, flow);
        return;
      }
      for (int32_t s = 0; s < static_cast<int32_t>(depths.size()); ++s) {
        stage_of[node] = s;
        again(again, node + 1);
      }
    };
    if (depths.size() <= instance.rates.size()) assign(assign, 0);
  };
  std::vector<int32_t> depths;
  fill(fill, depths, instance.layers);
  return best;
}

TEST(Stages, AreTheBestAlignedPlan) {
  for_seeds(60, [](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = static_cast<int32_t>(rng.between(1, 5)), .layers = 5});
    const StagePlan plan = best_stages(instance, all_nodes(instance), {.max_width = 5});
    EXPECT_NEAR(plan.flow, brute_force_stages(instance), 1e-9);
    const Placement placement = place(plan, instance);
    EXPECT_TRUE(validate(placement, instance));
    EXPECT_GE(static_flow(instance, placement, false), plan.flow - 1e-9);
  });
}

TEST(Stages, UseOnlyTheNodesGiven) {
  Rng rng(7);
  const Instance instance = sample_instance(rng, {.nodes = 8, .layers = 6, .longest = 6});
  const std::vector<int32_t> some = {1, 3, 5, 7};
  const Placement placement = place(best_stages(instance, some), instance);
  for (const int32_t node : {0, 2, 4, 6}) EXPECT_TRUE(placement.nodes[node].empty());
}

// T(k) may fall and rise again; a stage that is trimmed must still pass the flow.
TEST(Stages, TrimOnlyToDepthsThatStillPass) {
  const Result<Instance> instance = parse_instance(
      "5 2 6\n3 100 20 90\n3 100 20 90\n-1 0 1e6\n0 1 1e6\n1 0 1e6\n1 -2 1e6\n-1 1 1e6\n0 -2 1e6\n",
      "x");
  ASSERT_TRUE(instance);
  const StagePlan plan = best_stages(*instance, all_nodes(*instance));
  const Placement placement = place(plan, *instance);
  EXPECT_EQ(static_flow(*instance, placement, false), plan.flow);
  EXPECT_EQ(plan.flow, 20);
}

TEST(Stages, MeetTheBoundOfThe24NodeCluster) {
  const std::string folder = shared_placement_folder();
  if (folder.empty()) GTEST_SKIP() << "no shared data: set TOWLINE_SHARED";
  const Result<Instance> instance = load_instance(folder + "/s24.inst");
  ASSERT_TRUE(instance) << instance.error().to_string();
  const StagePlan plan = best_stages(*instance, all_nodes(*instance));
  EXPECT_NEAR(plan.flow, 2045.641047, 1e-6);
  EXPECT_NEAR(plan.flow, truncated_capacity_bound(*instance), 1e-6);
}

}  // namespace
}  // namespace towline::plan
