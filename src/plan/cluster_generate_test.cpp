// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The generators write the shipped clusters byte for byte.
#include "plan/cluster_generate.hpp"

#include <gtest/gtest.h>

#include "base/file.hpp"
#include "base/for_seeds.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

using spec::PyNumber;

std::string cluster_folder() { return helix_folder() + "/clusters/"; }

void expect_shipped(const Result<spec::HelixCluster>& cluster, const std::string& name) {
  ASSERT_TRUE(cluster) << cluster.error().to_string();
  const auto shipped = read_file(cluster_folder() + name);
  ASSERT_TRUE(shipped);
  EXPECT_EQ(first_difference(spec::print_helix_cluster(*cluster), *shipped), "") << name;
}

FakeCluster fake(std::vector<std::pair<std::string, int64_t>> types) {
  FakeCluster wanted;
  for (const auto& [name, count] : types) {
    wanted.types.emplace_back(name, PyNumber::of(count));
    wanted.nodes += static_cast<int32_t>(count);
  }
  wanted.average_degree = wanted.nodes - 1;
  wanted.source_degree = wanted.sink_degree = wanted.nodes;
  return wanted;
}

PartitionedCluster three_regions() {
  const auto machines = [](int l4, int t4) {
    std::vector<std::string> list(static_cast<size_t>(l4), "L4");
    list.insert(list.end(), static_cast<size_t>(t4), "T4");
    return list;
  };
  PartitionedCluster wanted;
  wanted.partitions = {std::vector<std::string>(4, "A100"), machines(2, 8), machines(6, 4)};
  wanted.inside = {PyNumber::of(1.25e9), PyNumber::of(int64_t{125'000'000}), PyNumber::of(0.001),
                   PyNumber::of(int64_t{0})};
  wanted.between = {PyNumber::of(12.5e6), PyNumber::of(2.5e6), PyNumber::of(0.05),
                    PyNumber::of(0.01)};
  return wanted;
}

TEST(ClusterGenerate, MakesTheShippedFakeClusters) {
  NEEDS_SHARED_DATA();
  expect_shipped(generate(fake({{"A100", 4}, {"T4", 12}, {"L4", 8}})), "single24.ini");
  expect_shipped(generate(fake({{"T4", 6}, {"L4", 4}})), "cluster10.ini");
  expect_shipped(generate(fake({{"A100", 4},
                                {"V100", 6},
                                {"L4", 8},
                                {"L4x2", 4},
                                {"T4", 10},
                                {"T4x2", 6},
                                {"T4x4", 4}})),
                 "cluster42.ini");
  expect_shipped(generate(fake({{"A100", 4}})), "sub_single_a100.ini");
  expect_shipped(generate(fake({{"L4", 8}})), "sub_single_l4.ini");
  expect_shipped(generate(fake({{"T4", 12}})), "sub_single_t4.ini");
}

TEST(ClusterGenerate, MakesTheShippedThreeRegionsAndTheirParts) {
  NEEDS_SHARED_DATA();
  const auto cluster = generate(three_regions());
  expect_shipped(cluster, "3cluster24.ini");
  expect_shipped(only_type(*cluster, "A100"), "sub_dist_a100.ini");
  expect_shipped(only_type(*cluster, "L4"), "sub_dist_l4.ini");
  expect_shipped(only_type(*cluster, "T4"), "sub_dist_t4.ini");
}

TEST(ClusterGenerate, PrunesToTheShippedFiles) {
  NEEDS_SHARED_DATA();
  for (const std::string name : {"3cluster24", "cluster42"}) {
    const auto cluster = spec::load_helix_cluster(cluster_folder() + name + ".ini");
    ASSERT_TRUE(cluster);
    Pruning pruning;
    pruning.label = "./config/" + name + ".ini";
    expect_shipped(prune(*cluster, pruning), name + "_pruned12.ini");
  }
}

// Whatever is generated can be read back, and pruning only takes links away.
TEST(ClusterGenerate, MakesFilesThatRead) {
  for_seeds(40, [](Rng& rng) {
    FakeCluster wanted = fake({{"A", rng.between(1, 6)}, {"B", rng.between(1, 9)}});
    wanted.seed = rng.below(1000);
    wanted.average_degree = static_cast<int32_t>(rng.between(0, wanted.nodes - 1));
    wanted.source_degree = static_cast<int32_t>(rng.between(0, wanted.nodes));
    wanted.link.bandwidth_variation = PyNumber::of(int64_t{900'000'000});
    wanted.slow.average_bandwidth = PyNumber::of(int64_t{50'000});
    const auto cluster = generate(wanted);
    ASSERT_TRUE(cluster) << cluster.error().to_string();
    const auto again = spec::parse_helix_cluster(spec::print_helix_cluster(*cluster), "generated");
    ASSERT_TRUE(again) << again.error().to_string();
    const auto pruned = prune(*cluster, {.min_keep = 1, .max_keep = 3, .label = "x"});
    ASSERT_TRUE(pruned);
    EXPECT_LE(pruned->links.size(), cluster->links.size());
    EXPECT_TRUE(spec::parse_helix_cluster(spec::print_helix_cluster(*pruned), "pruned"));
  });
}

TEST(ClusterGenerate, RefusesTheImpossible) {
  FakeCluster wanted = fake({{"A", 4}});
  wanted.average_degree = 9;
  EXPECT_FALSE(generate(wanted));
  wanted = fake({{"A", 4}});
  wanted.link.average_bandwidth = PyNumber::of(int64_t{-5});
  EXPECT_FALSE(generate(wanted));
  wanted = fake({{"A", 4}});
  wanted.fill = false;
  wanted.average_degree = wanted.source_degree = wanted.sink_degree = 0;
  EXPECT_FALSE(generate(wanted));
  EXPECT_FALSE(generate(PartitionedCluster{}));
  EXPECT_FALSE(generate(FakeCluster{}));
}

}  // namespace
}  // namespace towline::plan
