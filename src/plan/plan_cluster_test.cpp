// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/plan_cluster.hpp"

#include <gtest/gtest.h>

namespace towline::plan {
namespace {

// Three machines of which the middle one is twice as fast; measured rates, all linked.
spec::ClusterDesc three_machines() {
  spec::ClusterDesc cluster;
  cluster.coordinator_nic_in = cluster.coordinator_nic_out = BytesPerSec(1e9);
  for (const char* name : {"slow", "fast"}) {
    cluster.types.push_back(
        {name, Bytes(1'000'000'000), BytesPerSec(1e9), BytesPerSec(1e9), BytesPerSec(1e9)});
  }
  for (int32_t i = 0; i < 3; ++i) {
    cluster.nodes.push_back({"node" + std::to_string(i), i == 1 ? 1 : 0, 1, ""});
  }
  for (int32_t from = kSource; from < 3; ++from) {
    for (const int32_t to : {0, 1, 2, kSink}) {
      if (from == to || (from == kSource && to == kSink)) continue;
      cluster.links.push_back({from, to, BytesPerSec(1e8), Seconds(0.001)});
    }
  }
  return cluster;
}

spec::Profile measured(int32_t layers) {
  spec::Profile profile;
  profile.model = {"toy", layers, Bytes(2), Bytes(1000), Bytes(1'000'000)};
  for (const auto& [name, speed] : {std::pair("slow", 800.0), std::pair("fast", 1600.0)}) {
    spec::DeviceProfile device;
    device.type = name;
    for (int32_t k = 1; k <= layers; ++k) {
      device.rates.push_back(speed / k);
      device.kv_blocks.push_back(100);
    }
    profile.devices.push_back(std::move(device));
  }
  return profile;
}

TEST(PlanCluster, PlansFromDescriptionsAlone) {
  const auto planned = plan_cluster(three_machines(), measured(8));
  ASSERT_TRUE(planned) << planned.error().to_string();
  // 2 + 4 + 2 layers keep all three busy: 400 tokens/s, which is the bound.
  EXPECT_NEAR(planned->report.max_flow, 400, 1e-6);
  EXPECT_TRUE(planned->search.optimal);
  EXPECT_TRUE(spec::validate(planned->desc));
  EXPECT_EQ(planned->desc.model, "toy");
  EXPECT_EQ(planned->desc.nodes.size(), 3u);
  EXPECT_NEAR(planned->desc.max_flow.value, 400, 1e-6);
}

TEST(PlanCluster, SaysWhatIsMissing) {
  spec::Profile profile = measured(8);
  profile.devices.pop_back();
  const auto unknown = plan_cluster(three_machines(), profile);
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().to_string().find("fast"), std::string::npos);
  for (spec::DeviceProfile& device : (profile = measured(8)).devices) device.rates.resize(2);
  const auto small = plan_cluster(three_machines(), profile);
  ASSERT_FALSE(small);
  EXPECT_NE(small.error().to_string().find("too small"), std::string::npos);
}

}  // namespace
}  // namespace towline::plan
