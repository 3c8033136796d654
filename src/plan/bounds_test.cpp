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
  });
}

TEST(Bounds, AnotherNodeNeverLowersThem) {
  for_seeds(100, [](Rng& rng) {
    Instance instance = sample_instance(rng, {.nodes = 6, .layers = 8, .longest = 6, .regions = 2});
    const double capacity = capacity_bound(instance);
    const double truncated = truncated_capacity_bound(instance);
    instance.rates.push_back(instance.rates[rng.below(instance.rates.size())]);
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
  for (const auto& c : kCases) {
    const Result<Instance> instance = load_instance(folder + "/" + c.name + ".inst");
    ASSERT_TRUE(instance) << instance.error().to_string();
    EXPECT_NEAR(capacity_bound(*instance), c.capacity, 1e-2) << c.name;
    EXPECT_NEAR(truncated_capacity_bound(*instance), c.truncated, 1e-2) << c.name;
  }
}

}  // namespace
}  // namespace towline::plan
