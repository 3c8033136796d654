// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/router.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "base/mt19937_py.hpp"

namespace towline::policy {
namespace {

// Two stages of two layers, `width` nodes each, completely joined.
RouteMap two_stages(int32_t width) {
  std::vector<LayerRange> layers;
  std::vector<RouteLink> links;
  for (int32_t i = 0; i < width; ++i) layers.push_back({0, 2});
  for (int32_t i = 0; i < width; ++i) layers.push_back({2, 4});
  for (int32_t a = 0; a < width; ++a) {
    links.push_back({kSourceNode, a});
    links.push_back({width + a, kSinkNode});
    for (int32_t b = 0; b < width; ++b) links.push_back({a, width + b});
  }
  auto map = RouteMap::make(4, layers, links);
  EXPECT_TRUE(map);
  return std::move(map).value();
}

KvLedger ledger_of(const RouteMap& map, int64_t capacity) {
  std::vector<KvLedger::Node> nodes;
  for (const LayerRange layers : map.layers) nodes.push_back({layers, capacity});
  return KvLedger(std::move(nodes), map.total_layers, {});
}

TEST(RouteMap, RefusesLinksThatCannotCarryARequestOn) {
  EXPECT_FALSE(RouteMap::make(4, {{0, 2}, {3, 4}}, {{0, 1}}));            // a gap
  EXPECT_FALSE(RouteMap::make(4, {{0, 2}, {1, 2}}, {{0, 1}}));            // nothing left to run
  EXPECT_FALSE(RouteMap::make(4, {{1, 2}}, {{kSourceNode, 0}}));          // layer 0 is missing
  EXPECT_FALSE(RouteMap::make(4, {{0, 2}}, {{0, kSinkNode}}));            // ends too early
  EXPECT_FALSE(RouteMap::make(4, {{0, 4}}, {{kSourceNode, kSinkNode}}));
  EXPECT_FALSE(RouteMap::make(4, {{0, 4}}, {{kSourceNode, 7}}));
  EXPECT_FALSE(RouteMap::make(4, {{0, 4}, {}}, {{kSourceNode, 1}}));      // an idle node
  const auto overlap = RouteMap::make(4, {{0, 3}, {1, 4}}, {{0, 1}});
  ASSERT_TRUE(overlap);
  EXPECT_EQ(overlap->layers_after(0, 1), (LayerRange{3, 4}));             // partial inference
}

// In the long run each candidate's share of the work is its share of the capacity.
TEST(Iwrr, LongRunShareFollowsTheFlow) {
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    std::vector<double> capacities, work(2 + rng.below(6));
    double sum = 0, given = 0;
    for (size_t i = 0; i < work.size(); ++i) {
      capacities.push_back(1 + rng.unit() * 999);
      sum += capacities.back();
    }
    Iwrr iwrr(capacities);
    for (int step = 0; step < 50'000; ++step, ++events) {
      const auto tokens = static_cast<double>(rng.between(1, 2048));
      const int32_t chosen = iwrr.choose(tokens, [](size_t) { return true; });
      work[chosen] += tokens;
      given += tokens;
    }
    for (size_t i = 0; i < work.size(); ++i) {
      EXPECT_NEAR(work[i] / given, capacities[i] / sum, 2048.0 * 8 / given);
    }
  });
}

TEST(Iwrr, ChoosesTheEarlierOfEqualsAndOnlyAllowedOnes) {
  Iwrr iwrr(std::vector<double>{5, 5, 10});
  EXPECT_EQ(iwrr.choose(10, [](size_t) { return true; }), 2);
  EXPECT_EQ(iwrr.choose(10, [](size_t i) { return i < 2; }), 0);
  EXPECT_EQ(iwrr.choose(10, [](size_t) { return false; }), -1);
}

TEST(FlowRouter, FollowsTheFlowAndSkipsTinyShares) {
  const RouteMap map = two_stages(2);
  std::vector<double> flow(map.links.size(), 100.0);
  flow[0] = 3;  // source to node 0: below 5 % of 103
  FlowRouter router(map, flow, std::vector<int32_t>(4, 2048));
  KvLedger ledger = ledger_of(map, 1'000'000);
  Pipeline pipeline;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(router.route(500, ledger, pipeline));
    ASSERT_EQ(pipeline.size(), 3u);
    EXPECT_EQ(pipeline[0].node, 1);
    EXPECT_EQ(pipeline[1].layers, (LayerRange{2, 4}));
    EXPECT_EQ(pipeline[2].node, kSinkNode);
  }
}

TEST(FlowRouter, RefusalChargesNothingAndNamesTheReason) {
  const RouteMap map = two_stages(1);
  FlowRouter router(map, std::vector<double>(map.links.size(), 10.0), {2048, 100});
  KvLedger ledger = ledger_of(map, 1'000'000);
  Pipeline pipeline;
  EXPECT_FALSE(router.route(500, ledger, pipeline));  // the second node takes no long prompt
  EXPECT_EQ(router.last_refusal().node, 0);
  EXPECT_EQ(router.last_refusal().main_reason(), "length");
  EXPECT_TRUE(pipeline.empty());
  EXPECT_EQ(router.weights().load(0), 0.0);
  EXPECT_EQ(ledger.expected_used(0), 0);
}

// Any order of arrivals, decode steps and ends: pipelines are whole, the ledger returns to zero.
TEST(FlowRouter, KeepsTheBooksUnderAnyScript) {
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    const RouteMap map = two_stages(3);
    std::vector<double> flow;
    for (size_t i = 0; i < map.links.size(); ++i) flow.push_back(1 + rng.unit() * 100);
    FlowRouter router(map, flow, std::vector<int32_t>(6, 2048));
    KvLedger ledger = ledger_of(map, 40'000);
    struct Running {
      Pipeline pipeline;
      int64_t input;
    };
    std::vector<Running> running;
    int64_t offered = 0, refused = 0, ended = 0;
    for (int step = 0; step < 50'000; ++step, ++events) {
      const uint64_t what = rng.below(3);
      if (what == 0) {
        ++offered;
        const int64_t input = rng.between(1, 3000);
        Pipeline pipeline;
        if (!router.route(input, ledger, pipeline)) {
          ++refused;
          continue;
        }
        int32_t layer = 0;
        for (const Hop& hop : pipeline) {
          if (hop.node == kSinkNode) break;
          ASSERT_EQ(hop.layers.begin, layer);
          ASSERT_LE(ledger.expected_used(hop.node), 34'000);
          layer = hop.layers.end;
        }
        ASSERT_EQ(layer, map.total_layers);
        running.push_back({std::move(pipeline), input});
      } else if (!running.empty()) {
        const size_t i = rng.below(running.size());
        if (what == 1) {
          router.charge_decode(running[i].pipeline);
        } else {
          FlowRouter::finish(running[i].pipeline, running[i].input, ledger);
          running[i] = std::move(running.back());
          running.pop_back();
          ++ended;
        }
      }
    }
    EXPECT_EQ(offered, refused + ended + static_cast<int64_t>(running.size()));
    for (const Running& r : running) FlowRouter::finish(r.pipeline, r.input, ledger);
    for (int32_t node = 0; node < ledger.nodes(); ++node) EXPECT_EQ(ledger.expected_used(node), 0);
  });
}

TEST(SwarmRouter, PrefersTheQuickerLinkInProportion) {
  const RouteMap map = two_stages(2);
  SwarmRouter<int64_t> router(map, {.first_estimate = 1e6});
  std::vector<int> used(map.links.size());
  for (int step = 0; step < 3'000; ++step) {
    const int32_t link = router.choose(kSourceNode);
    router.sent(kSourceNode);
    ++used[link];
    const bool quick = map.links[link].to == 0;
    router.report(kSourceNode, link, quick ? 1'000'000 : 3'000'000);  // nanoseconds
  }
  const std::vector<int32_t>& links = map.links_from(kSourceNode);
  EXPECT_NEAR(used[links[0]], 2250, 30);
  EXPECT_NEAR(used[links[1]], 750, 30);
}

TEST(SwarmRouter, SmoothsMeasurementsAndLimitsWhatIsUnderWay) {
  const RouteMap map = two_stages(2);
  SwarmRouter<double> router(map, {.most_on_the_fly = 2});
  EXPECT_EQ(router.room(kSourceNode, 0), 2);
  router.sent(kSourceNode);
  EXPECT_EQ(router.room(kSourceNode, 1), 0);
  router.report(kSourceNode, 0, 1.05);
  EXPECT_DOUBLE_EQ(router.estimate(0), 0.8 * 1.05 + 0.2 * 0.05);
  EXPECT_EQ(router.room(kSourceNode, 0), 2);
}

TEST(PickRandom, TakesTheFirstUsableOfPythonsShuffle) {
  // Python: random.seed(0); x = [0, 1, 2, 3, 4]; random.shuffle(x)  ->  [2, 1, 0, 4, 3]
  std::vector<int32_t> scratch;
  const std::vector<uint8_t> all(5, 1), last = {0, 0, 0, 1, 1}, none(5, 0);
  PyRandom a(0), b(0), c(0);
  EXPECT_EQ(pick_random(a, all, scratch), 2);
  EXPECT_EQ(pick_random(b, last, scratch), 4);
  EXPECT_EQ(pick_random(c, none, scratch), -1);
  EXPECT_EQ(a.random(), c.random());  // the same draws whatever was usable
}

TEST(MarkShortest, AllOfTheShortestAndTheSinkEndsTheScan) {
  std::vector<uint8_t> marks(4);
  mark_shortest(std::vector<int64_t>{3, 1, 1, 2}, marks);
  EXPECT_EQ(marks, (std::vector<uint8_t>{0, 1, 1, 0}));
  mark_shortest(std::vector<int64_t>{3, 5, -1, 0}, marks);
  EXPECT_EQ(marks, (std::vector<uint8_t>{1, 0, 1, 0}));
}

}  // namespace
}  // namespace towline::policy
