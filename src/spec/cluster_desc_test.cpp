// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/cluster_desc.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::spec {
namespace {

constexpr const char* kTwoRooms = R"(
schema = 1
name = "two rooms"
[coordinator]
nic = "10 gbit"
[[types]]
name = "A100"
memory = "40 GB"
nic = "10 gbit"
disk = "1 GB/s"
[[nodes]]
name = "alpha"
type = "A100"
devices = 4
region = "attic"
[[nodes]]
name = "beta"
type = "A100"
[[networks]]
members = ["alpha", "beta", "coordinator"]
bandwidth = "1 gbit"
latency = "1 ms"
[[links]]
from = "coordinator"
to = "beta"
bandwidth = "100 mbit"
latency = "50 ms"
)";

Result<ClusterDesc> read(std::string_view text) {
  Result<Json> tree = parse_toml(text, "c.toml");
  if (!tree) return std::move(tree).error();
  return parse_cluster(*tree, "c.toml");
}

TEST(ClusterDesc, ReadsTheNativeFile) {
  const auto cluster = read(kTwoRooms);
  ASSERT_TRUE(cluster) << cluster.error().to_string();
  EXPECT_EQ(cluster->coordinator_nic_in.value, 1.25e9);
  EXPECT_EQ(cluster->types[0].memory.value, 40'000'000'000);
  EXPECT_EQ(cluster->nodes[0].devices, 4);
  EXPECT_EQ(cluster->nodes[0].region, "attic");
  ASSERT_EQ(cluster->links.size(), 6u);
  int slow = 0;
  for (const ClusterLink& link : cluster->links) {
    const bool replaced = link.from == kSource && link.to == 1;
    EXPECT_EQ(link.bandwidth.value, replaced ? 12.5e6 : 125e6);
    slow += replaced ? 1 : 0;
  }
  EXPECT_EQ(slow, 1);
}

TEST(ClusterDesc, KeepsEverythingInTomlAndJson) {
  for_seeds(100, [](Rng& rng) {
    ClusterDesc cluster;
    cluster.name = "x \"y\" \\ é";
    cluster.coordinator_nic_in = BytesPerSec(1e9 * (rng.unit() + 0.1));
    cluster.coordinator_nic_out = BytesPerSec(1e10);
    for (int t = 0; t < 3; ++t) {
      cluster.types.push_back({"type" + std::to_string(t), Bytes(rng.between(1, 1'000'000'000'000)),
                               BytesPerSec(rng.unit() * 1e9 + 1), BytesPerSec(12.5),
                               BytesPerSec(1e15)});
      if (rng.below(2) == 0) continue;
      cluster.types.back().flops = 1e12 * rng.unit();
      cluster.types.back().memory_bandwidth = BytesPerSec(1e9 * rng.unit());
      cluster.types.back().price = rng.unit();
    }
    const auto nodes = static_cast<int32_t>(rng.between(1, 9));
    for (int32_t i = 0; i < nodes; ++i) {
      cluster.nodes.push_back({"n" + std::to_string(i), static_cast<int32_t>(rng.below(3)),
                               static_cast<int32_t>(rng.between(1, 8)),
                               rng.below(2) == 0 ? "" : "west"});
    }
    for (int32_t from = kSource; from < nodes; ++from) {
      for (int32_t to = 0; to <= nodes; ++to) {
        const int32_t end = to == nodes ? kSink : to;
        if (from == end || (from == kSource && end == kSink) || rng.below(2) == 0) continue;
        cluster.links.push_back(
            {from, end, BytesPerSec(rng.unit() * 1e9 + 1), Seconds(rng.unit() * 0.1)});
      }
    }
    ASSERT_TRUE(validate(cluster));
    const auto from_toml = read(print_cluster(cluster));
    ASSERT_TRUE(from_toml) << from_toml.error().to_string();
    EXPECT_EQ(*from_toml, cluster);
    const auto tree = parse_json(cluster_to_json(cluster).dump(), "c.json");
    ASSERT_TRUE(tree);
    const auto from_json = parse_cluster(*tree, "c.json");
    ASSERT_TRUE(from_json) << from_json.error().to_string();
    EXPECT_EQ(*from_json, cluster);
  });
}

TEST(ClusterDesc, RefusesNonsenseWithTheRemedy) {
  const auto with = [](std::string text, std::string_view old, std::string_view fresh) {
    text.replace(text.find(old), old.size(), fresh);
    return text;
  };
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"schema = 1", "schema = 7", "schema must be 1"},
      {"nic = \"10 gbit\"", "nic = \"10 gbps\"", "may mean bits or bytes"},
      {"type = \"A100\"\ndevices", "type = \"B200\"\ndevices", "'B200' is not among [[types]]"},
      {"\"beta\"\ntype", "\"alpha\"\ntype", "'alpha' is given twice"},
      {"disk = \"1 GB/s\"", "", "'disk' is missing"},
      {"disk = \"1 GB/s\"", "disk = -5", "speeds must lie above 0"},
      {"disk = \"1 GB/s\"", "disk = 5\nprice = -1", "must not be negative"},
      {"disk = \"1 GB/s\"", "disk = 5\nflops = \"fast\"", "'flops' is not a number"},
      {"devices = 4", "devices = -4", "has 0 devices"},
      {"latency = \"50 ms\"", "latency = -1", "latency of -1"},
      {"to = \"beta\"", "to = \"coordinator\"", "linked with itself"},
      {"memory = \"40 GB\"", "memory = \"40 gigs\"", "not a quantity"},
  };
  for (const auto& [old, fresh, says] : cases) {
    const auto cluster = read(with(kTwoRooms, old, fresh));
    ASSERT_FALSE(cluster) << fresh;
    EXPECT_NE(cluster.error().to_string().find(says), std::string::npos)
        << cluster.error().to_string();
    EXPECT_NE(cluster.error().to_string().find("c.toml"), std::string::npos);
    EXPECT_EQ(exit_code(cluster.error().code()), 2);
  }
}

}  // namespace
}  // namespace towline::spec
