// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/replan.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "plan/sample_instances.hpp"

namespace towline::plan {
namespace {

// The cluster without one node: it keeps its number but can hold nothing.
Instance without(Instance instance, int32_t node) {
  instance.rates[node].clear();
  return instance;
}

TEST(LayersToLoad, AreWhatIsNotHeld) {
  using Ranges = std::vector<LayerRange>;
  EXPECT_EQ(layers_to_load({2, 6}, {2, 6}), Ranges{});
  EXPECT_EQ(layers_to_load({2, 6}, {}), Ranges{});
  EXPECT_EQ(layers_to_load({}, {1, 3}), (Ranges{{1, 3}}));
  EXPECT_EQ(layers_to_load({2, 6}, {0, 8}), (Ranges{{0, 2}, {6, 8}}));
  EXPECT_EQ(layers_to_load({2, 6}, {4, 9}), (Ranges{{6, 9}}));
  EXPECT_EQ(layers_to_load({2, 6}, {6, 9}), (Ranges{{6, 9}}));
}

// After one failure: at least 95 % of a plan from scratch, and never more moved than by it.
TEST(Replan, KeepsTheValueAndMovesLess) {
  int64_t moved = 0;
  int64_t moved_from_scratch = 0;
  for_seeds(10, [&](Rng& rng) {
    const Instance instance =
        sample_instance(rng, {.nodes = 12, .layers = 20, .longest = 8, .regions = 2});
    SearchOptions search;
    search.steps = 80'000;
    const SearchResult running = search_placement(instance, search);
    if (running.flow <= 0) return;
    const Instance changed = without(instance, static_cast<int32_t>(rng.below(12)));
    const SearchResult scratch = search_placement(changed, search);
    ReplanOptions options;
    options.search.steps = 80'000;
    const ReplanResult result = replan(changed, running.placement, options);
    EXPECT_TRUE(validate(result.placement, changed));
    EXPECT_NEAR(result.flow, static_flow(changed, result.placement, false), 1e-9);
    EXPECT_GE(result.flow, 0.95 * scratch.flow - 1e-9);
    EXPECT_LE(result.flow, result.bound * (1 + 1e-9));
    EXPECT_LE(result.moved_layers, result.best_moved_layers);
    moved += result.moved_layers;
    moved_from_scratch += moved_layers(running.placement, scratch.placement);
  });
  EXPECT_LT(moved, moved_from_scratch);
}

TEST(Replan, StaysWhenNothingIsWorthMoving) {
  Rng rng(4);
  const Instance instance = sample_instance(rng, {.nodes = 10, .layers = 12, .longest = 8});
  SearchOptions search;
  search.steps = 20'000;
  const SearchResult running = search_placement(instance, search);
  ASSERT_GT(running.flow, 0);
  ReplanOptions options;
  options.search.steps = 1;
  const ReplanResult result = replan(instance, running.placement, options);
  EXPECT_TRUE(result.stays);
  EXPECT_EQ(result.moved_layers, 0);
  EXPECT_EQ(result.placement, running.placement);
}

TEST(Transitions, TakeTheQuickestSource) {
  const Placement now = {{{0, 4}, {4, 8}, {}}};
  const Placement next = {{{0, 4}, {4, 8}, {2, 6}}};
  TransferCosts costs;
  costs.layer_bytes = Bytes(100);
  costs.disk = {0, 0, 10};
  costs.links = {0, 50, 50, 50, 0, 50, 50, 50, 0};
  const std::vector<Transition> by_disk = transitions(now, next, costs);
  ASSERT_EQ(by_disk.size(), 1u);  // no node holds all of [2, 6)
  EXPECT_EQ(by_disk[0].from, -1);
  EXPECT_EQ(by_disk[0].bytes, Bytes(400));
  EXPECT_EQ(by_disk[0].seconds, 40);
  const std::vector<Transition> by_link = transitions(now, {{{0, 4}, {4, 8}, {4, 6}}}, costs);
  ASSERT_EQ(by_link.size(), 1u);
  EXPECT_EQ(by_link[0].from, 1);
  EXPECT_EQ(by_link[0].seconds, 4);
}

TEST(Replan, OfThe24NodeClusterAfterOneFailure) {
  const std::string folder = shared_placement_folder();
  if (folder.empty()) GTEST_SKIP() << "no shared data: set TOWLINE_SHARED";
  const Result<Instance> instance = load_instance(folder + "/s24.inst");
  ASSERT_TRUE(instance) << instance.error().to_string();
  SearchOptions search;
  const SearchResult running = search_placement(*instance, search);
  for (const int32_t lost : {0, 23}) {
    const Instance changed = without(*instance, lost);
    const SearchResult scratch = search_placement(changed, search);
    const ReplanResult result = replan(changed, running.placement, {});
    EXPECT_GE(result.flow, 0.95 * scratch.flow);
    EXPECT_LT(result.moved_layers, moved_layers(running.placement, scratch.placement));
  }
}

}  // namespace
}  // namespace towline::plan
