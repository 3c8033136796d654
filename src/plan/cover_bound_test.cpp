// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/cover_bound.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "plan/bounds.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

// Nodes that hold one layer at 10: six of them cover three layers with 20 each, or with 11 each.
TEST(CanCover, CountsWholeNodes) {
  const double supply[] = {6};
  const Holder holders[] = {{0, 1, 10}};
  EXPECT_TRUE(can_cover(supply, holders, 20, 3));
  EXPECT_FALSE(can_cover(supply, holders, 20.001, 3));
  EXPECT_FALSE(can_cover(supply, holders, 11, 3.1));
  EXPECT_TRUE(can_cover(supply, holders, 10, 6));
  EXPECT_FALSE(can_cover(supply, {}, 10, 1));
}

// Three nodes cover three layers alone; where one layer must be shared, only less flow fits.
TEST(CanCover, CountsSharedLayers) {
  const double supply[] = {3};
  const Holder holders[] = {{0, 1, 10}, {0, 0.5, 6}};
  EXPECT_TRUE(can_cover(supply, holders, 10, 3));
  EXPECT_FALSE(can_cover(supply, holders, 10, 3.1));
  EXPECT_TRUE(can_cover(supply, holders, 10, 3, 1));       // two of the second kind: use 1 a layer
  EXPECT_FALSE(can_cover(supply, holders, 12.1, 2.1, 1));  // use 1.5 a layer at least
  EXPECT_FALSE(can_cover({supply, 1}, {holders, 1}, 10, 3, 1));
  EXPECT_TRUE(can_cover({supply, 1}, {holders, 1}, 10, 2, 1));
}

// The eight machines of the published 30B cluster: proved optimal, where sums leave 18 %.
TEST(CanCover, ProvesPublishedClustersOptimal) {
  const std::string folder = shared_placement_folder();
  if (folder.empty()) GTEST_SKIP() << "no shared data: set TOWLINE_SHARED";
  const Result<Instance> instance = load_instance(folder + "/l4_30b_s.inst");
  ASSERT_TRUE(instance) << instance.error().to_string();
  EXPECT_NEAR(link_aware_bound(*instance, false), 252.6498460282083, 1e-6);
  // Three regions of which none holds the model: all nodes would have to stand alone.
  for (const char* name : {"n24", "r24"}) {
    const Result<Instance> regions = load_instance(folder + "/" + name + ".inst");
    ASSERT_TRUE(regions) << regions.error().to_string();
    EXPECT_NEAR(link_aware_bound(*regions, false), 1754.382, 1e-3) << name;
  }
}

// Random kinds of nodes: a "no" is never given where nodes can be shared out to layers one by one.
TEST(CanCover, NeverDeniesWhatCanBeDone) {
  int denied = 0;
  for_seeds(200, [&](Rng& rng) {
    // Real hands: every layer gets nodes until they pass 100; each node holds k layers in a row of
    // k layers that are alike.
    std::vector<double> supply;
    std::vector<Holder> holders;
    const auto kinds = static_cast<int32_t>(rng.between(1, 5));
    for (int32_t kind = 0; kind < kinds; ++kind) {
      supply.push_back(0);
      const auto most = rng.between(1, 5);
      for (int64_t k = 1; k <= most; ++k) {
        holders.push_back({kind, 1.0 / static_cast<double>(k), 10 + 120 * rng.unit()});
      }
    }
    double layers = 0;
    for (int block = 0; block < 6; ++block) {
      const auto depth = rng.between(1, 3);
      double passed = 0;
      bool possible = false;
      for (int tries = 0; tries < 60 && !possible; ++tries) {
        const Holder& holder = holders[rng.below(holders.size())];
        if (static_cast<int64_t>(1 / holder.use + 0.5) != depth) continue;
        supply[holder.resource] += 1;
        passed += holder.rate;
        possible = passed >= 100;
      }
      layers += possible ? static_cast<double>(depth) : 0;
    }
    if (layers > 0) {
      EXPECT_TRUE(can_cover(supply, holders, 100, layers));
    }
    denied += can_cover(supply, holders, 100, layers + 6) ? 0 : 1;
  });
  EXPECT_GT(denied, 30);
}

}  // namespace
}  // namespace towline::plan
