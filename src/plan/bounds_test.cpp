// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/bounds.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

// The chain of bounds, above the true optimum of small clusters.
TEST(Bounds, AreAboveTheOptimumAndOrdered) {
  for_seeds(40, [](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = static_cast<int32_t>(rng.between(1, 4)),
                              .layers = static_cast<int32_t>(rng.between(2, 5)),
                              .longest = 4,
                              .regions = static_cast<int32_t>(rng.between(1, 2)),
                              .link_percent = static_cast<int32_t>(rng.between(50, 100))});
    const double best = brute_force_flow(instance, true);
    const double truncated = truncated_capacity_bound(instance);
    EXPECT_GE(truncated, best - 1e-6);
    EXPECT_LE(truncated, capacity_bound(instance) + 1e-9);
    EXPECT_GE(link_aware_bound(instance, true), best - 1e-6);
    EXPECT_GE(link_aware_bound(instance, false), brute_force_flow(instance, false) - 1e-6);
    EXPECT_LE(link_aware_bound(instance, true), truncated + 1e-9);
    EXPECT_LE(link_aware_bound(instance, false), link_aware_bound(instance, true) + 1e-9);
  });
}

// Above the optimum where links are narrow, and often below the bound that does not see them.
TEST(Bounds, SeeNarrowLinks) {
  int32_t tighter = 0;
  for_seeds(150, [&](Rng& rng) {
    Instance instance = sample_instance(rng, {.nodes = static_cast<int32_t>(rng.between(2, 4)),
                                              .layers = static_cast<int32_t>(rng.between(2, 4)),
                                              .longest = 3});
    for (InstanceLink& link : instance.links) {
      const uint64_t width = rng.below(3);
      if (width < 2) link.capacity = (width == 0 ? 50 : 200) * (0.5 + rng.unit());
    }
    const double bound = link_aware_bound(instance, false);
    EXPECT_GE(bound, brute_force_flow(instance, false) - 1e-6);
    EXPECT_GE(link_aware_bound(instance, true), brute_force_flow(instance, true) - 1e-6);
    tighter += bound < truncated_capacity_bound(instance) * (1 - 1e-6) ? 1 : 0;
  });
  EXPECT_GT(tighter, 30);
}

// Two rooms of which neither holds the model, and one narrow link between them.
TEST(Bounds, OfTwoRoomsIsTheLinkBetweenThem) {
  Instance instance;
  instance.layers = 4;
  instance.rates.assign(4, {1000});
  for (int32_t i = 0; i < 4; ++i) {
    instance.links.push_back({kSource, i, 1e6});
    instance.links.push_back({i, kSink, 1e6});
  }
  for (const auto& [a, b] : {std::pair(0, 1), std::pair(2, 3)}) {
    instance.links.push_back({a, b, 1e6});
    instance.links.push_back({b, a, 1e6});
  }
  instance.links.push_back({1, 2, 30});
  EXPECT_EQ(truncated_capacity_bound(instance), 1000);
  // A chain would have to cross the link; sharing a layer costs a node's worth.
  EXPECT_LT(link_aware_bound(instance, false), 1000);
  EXPECT_GE(link_aware_bound(instance, false), 30);
}

TEST(Bounds, CountTheDevicesOfAMachineOnce) {
  Instance instance = *parse_instance("2 3 6\n2 100 50\n2 60 30\n2 60 30\n-1 0 1e6\n-1 1 1e6\n-1 2 "
                                      "1e6\n0 -2 1e6\n1 -2 1e6\n2 -2 1e6\n", "tp");
  EXPECT_NEAR(capacity_bound(instance), 110, 1e-9);
  instance.machines = {{.devices = 2, .nodes = {0, 1, 2}, .node_devices = {2, 1, 1}}};
  EXPECT_NEAR(capacity_bound(instance), 60, 1e-9);  // two groups of one device
}

TEST(Bounds, AnotherNodeNeverLowersThem) {
  for_seeds(100, [](Rng& rng) {
    Instance instance = sample_instance(rng, {.nodes = 6, .layers = 8, .longest = 6, .regions = 2});
    const double capacity = capacity_bound(instance);
    const double truncated = truncated_capacity_bound(instance);
    const double linked = link_aware_bound(instance, false);
    instance.rates.push_back(instance.rates[rng.below(instance.rates.size())]);
    const int32_t node = instance.nodes() - 1;
    instance.links.push_back({kSource, node, 1e6});
    instance.links.push_back({node, kSink, 1e6});
    for (int32_t other = 0; other < node; ++other) {
      instance.links.push_back({other, node, 100 * rng.unit()});
      instance.links.push_back({node, other, 100 * rng.unit()});
    }
    EXPECT_GE(link_aware_bound(instance, false), linked - 1e-9);
    EXPECT_GE(capacity_bound(instance), capacity);
    EXPECT_GE(truncated_capacity_bound(instance), truncated - 1e-9);
  });
}

TEST(Bounds, OfThePublishedInstances) {
  const std::string folder = shared_placement_folder();
  if (folder.empty()) GTEST_SKIP() << "no shared data: set TOWLINE_SHARED";
  const struct {
    const char* name;
    double capacity, truncated;
  } kCases[] = {{"s24", 2803.861, 2045.641},
                {"n42", 7104.258, 6528.896},
                {"a100_30b_s", 1628.18, 1044.533},
                {"l4_30b_s", 357.236, 336.866}};
  // The three-region cluster: no region alone holds the model, and no link across carries so much.
  const Result<Instance> n24 = load_instance(folder + "/n24.inst");
  ASSERT_TRUE(n24);
  EXPECT_LT(link_aware_bound(*n24, false), 1754.382);
  EXPECT_GE(link_aware_bound(*n24, false), 1754.3818);
  for (const auto& c : kCases) {
    const Result<Instance> instance = load_instance(folder + "/" + c.name + ".inst");
    ASSERT_TRUE(instance) << instance.error().to_string();
    EXPECT_NEAR(capacity_bound(*instance), c.capacity, 1e-2) << c.name;
    EXPECT_NEAR(truncated_capacity_bound(*instance), c.truncated, 1e-2) << c.name;
  }
}

}  // namespace
}  // namespace towline::plan
