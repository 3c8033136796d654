// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/auto.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/for_seeds.hpp"
#include "plan/bounds.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

SearchOptions small_search(int64_t steps = 20'000) {
  SearchOptions options;
  options.steps = steps;
  return options;
}

TEST(SearchPlacement, FindsTheOptimumOfSmallClusters) {
  for_seeds(12, [](Rng& rng) {
    const auto nodes = static_cast<int32_t>(rng.between(3, 5));
    const Instance instance =
        sample_instance(rng, {.nodes = nodes,
                              .layers = nodes < 5 ? 5 : 4,
                              .longest = 3,
                              .regions = static_cast<int32_t>(rng.between(1, 2)),
                              .link_percent = static_cast<int32_t>(rng.between(50, 100))});
    for (const bool partial : {false, true}) {
      SearchOptions options = small_search(120'000);
      options.partial = partial;
      const double best = brute_force_flow(instance, partial);
      const SearchResult result = search_placement(instance, options);
      EXPECT_NEAR(result.flow, best, 1e-6);
      EXPECT_GE(result.bound, best - 1e-6);
      EXPECT_NEAR(static_flow(instance, result.placement, partial), result.flow, 1e-6);
      EXPECT_TRUE(validate(result.placement, instance));
    }
  });
}

TEST(SearchPlacement, DependsOnSeedAndStepsNotOnThreads) {
  Rng rng(3);
  const Instance instance =
      sample_instance(rng, {.nodes = 10, .layers = 12, .longest = 5, .regions = 2});
  SearchOptions options = small_search();
  const SearchResult one = search_placement(instance, options);
  options.threads = 3;
  const SearchResult three = search_placement(instance, options);
  EXPECT_EQ(one.placement, three.placement);
  EXPECT_EQ(one.flow, three.flow);
  EXPECT_EQ(one.evaluations, three.evaluations);
}

TEST(SearchPlacement, IsNeverWorseThanItsStarts) {
  for_seeds(20, [](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = 8, .layers = 8, .longest = 8, .regions = 2});
    SearchOptions options = small_search(1);
    double best_start = 0;
    for (int i = 0; i < 30; ++i) {
      options.starts.push_back(sample_placement(rng, instance));
      best_start =
          std::max(best_start, static_flow(instance, options.starts.back(), options.partial));
    }
    for (int32_t node = 0; node < instance.nodes(); ++node) {
      if (instance.max_count(node) < instance.layers) continue;
      best_start = std::max(best_start, instance.rate(node, instance.layers));
    }
    EXPECT_GE(search_placement(instance, options).flow, best_start - 1e-9);
  });
}

TEST(SearchPlacement, StopsWhenToldAndKeepsTheIncumbent) {
  Rng rng(5);
  const Instance instance = sample_instance(rng, {.nodes = 8, .layers = 8, .regions = 2});
  const std::atomic<bool> stop = true;
  SearchOptions options = small_search(1'000'000'000);
  options.stop = &stop;
  EXPECT_LT(search_placement(instance, options).steps, 100);
}

// Renaming the nodes changes neither the bound nor what a placement is worth.
TEST(SearchPlacement, NamesDoNotMatter) {
  for_seeds(6, [](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = 5, .layers = 6, .longest = 3, .regions = 2});
    std::vector<int32_t> name(instance.rates.size());
    std::iota(name.begin(), name.end(), 0);
    for (size_t i = name.size(); i > 1; --i) std::swap(name[i - 1], name[rng.below(i)]);
    Instance renamed = instance;
    for (size_t i = 0; i < name.size(); ++i) renamed.rates[name[i]] = instance.rates[i];
    for (InstanceLink& link : renamed.links) {
      if (link.from >= 0) link.from = name[link.from];
      if (link.to >= 0) link.to = name[link.to];
    }
    const SearchResult found = search_placement(instance, small_search());
    Placement moved = found.placement;
    for (size_t i = 0; i < name.size(); ++i) moved.nodes[name[i]] = found.placement.nodes[i];
    SearchOptions options = small_search();
    options.starts = {moved};
    const SearchResult again = search_placement(renamed, options);
    EXPECT_NEAR(again.bound, found.bound, 1e-6);
    EXPECT_GE(again.flow, found.flow - 1e-6);
    EXPECT_NEAR(static_flow(renamed, moved, false), found.flow, 1e-6);
  });
}

// Parts of one machine are alternatives: their devices are not lent twice.
TEST(SearchPlacement, ChoosesAmongTensorParallelGroups) {
  // One machine of two devices: a group of two is better than two single devices for four layers.
  Instance instance = *parse_instance(
      "4 3 12\n4 90 80 70 60\n2 50 40\n2 50 40\n-1 0 1e6\n-1 1 1e6\n-1 2 1e6\n0 -2 1e6\n1 -2 1e6\n"
      "2 -2 1e6\n0 1 1e6\n0 2 1e6\n1 0 1e6\n1 2 1e6\n2 0 1e6\n2 1 1e6\n",
      "tp");
  instance.machines = {{.devices = 2, .nodes = {0, 1, 2}, .node_devices = {2, 1, 1}}};
  const SearchResult grouped = search_placement(instance, small_search());
  EXPECT_EQ(grouped.flow, 60);
  EXPECT_TRUE(validate(grouped.placement, instance));
  instance.rates[0] = {90, 80, 30, 20};  // now the group is slow
  const SearchResult single = search_placement(instance, small_search());
  EXPECT_EQ(single.flow, 40);
  EXPECT_TRUE(validate(single.placement, instance));
}

TEST(SearchPlacement, MeetsThePublishedInstances) {
  const std::string folder = shared_placement_folder();
  if (folder.empty()) GTEST_SKIP() << "no shared data: set TOWLINE_SHARED";
  const struct {
    const char* name;
    double at_least;
    int64_t steps;
  } kCases[] = {{"s24", 2045.64, 1},        {"n42", 5905.78, 1},     {"l4_30b_s", 252.649, 1},
                {"a100_30b_s", 1044.53, 1}, {"t4_30b_s", 397.68, 1}, {"n24", 1515, 2'400'000}};
  for (const auto& c : kCases) {
    const Result<Instance> instance = load_instance(folder + "/" + c.name + ".inst");
    ASSERT_TRUE(instance) << instance.error().to_string();
    const SearchResult result = search_placement(*instance, small_search(c.steps));
    EXPECT_GE(result.flow, c.at_least) << c.name;
    const Result<Placement> published = load_placement(folder + "/" + c.name + ".helix", *instance);
    ASSERT_TRUE(published) << published.error().to_string();
    EXPECT_GE(result.flow, static_flow(*instance, *published, false) - 1e-6) << c.name;
  }
}

// A thousand nodes: 24 copies of the 42-node cluster, links inside the copies.
TEST(SearchPlacement, PlansAThousandNodes) {
  const std::string folder = shared_placement_folder();
  if (folder.empty()) GTEST_SKIP() << "no shared data: set TOWLINE_SHARED";
  const Result<Instance> one = load_instance(folder + "/n42.inst");
  ASSERT_TRUE(one) << one.error().to_string();
  Instance many;
  many.layers = one->layers;
  for (int32_t copy = 0; copy < 24; ++copy) {
    const auto moved = [&](int32_t end) { return end < 0 ? end : end + copy * one->nodes(); };
    many.rates.insert(many.rates.end(), one->rates.begin(), one->rates.end());
    for (const InstanceLink& link : one->links) {
      many.links.push_back({moved(link.from), moved(link.to), link.capacity});
    }
  }
  const SearchResult result = search_placement(many, small_search(1));
  EXPECT_TRUE(validate(result.placement, many));
  EXPECT_GE(result.flow, 141'738);
  EXPECT_GE(result.flow, 0.8 * capacity_bound(many));
  EXPECT_LE(result.flow, result.bound * (1 + 1e-9));
}

}  // namespace
}  // namespace towline::plan
