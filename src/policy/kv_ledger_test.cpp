// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/kv_ledger.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

Pipeline through(int32_t node, LayerRange layers) {
  return {{0, node, layers}, {1, kSinkNode, {}}};
}

TEST(KvLedger, BooksWhatARequestIsExpectedToHold) {
  KvLedger ledger({{{0, 4}, 10'000}}, 4, {.high_water = 0.85, .usual_output = 240,
                                          .output_ratio = 0.6});
  EXPECT_EQ(ledger.expected_tokens(100), 244);
  ledger.book(through(0, {0, 4}), 100);
  EXPECT_EQ(ledger.expected_used(0), 4 * 244);
  ledger.release(through(0, {0, 4}), 100);
  EXPECT_EQ(ledger.expected_used(0), 0);
}

TEST(KvLedger, AsksForAllLayersOfTheNodeAndKeepsTheHighWaterMark) {
  // 10 layers x 1000 tokens do not fit into 75 % of 10,000 layer-tokens.
  KvLedger small({{{0, 10}, 10'000}}, 10, {.high_water = 0.75, .usual_output = 0});
  EXPECT_FALSE(small.fits(0, 1000));
  EXPECT_TRUE(small.fits(0, 750));   // exactly at the mark
  EXPECT_FALSE(small.fits(0, 751));
}

TEST(KvLedger, BottleneckIsTheFullestLayer) {
  // Layer 0 is on node 0 alone, layer 1 on both.
  KvLedger ledger({{{0, 2}, 2'000}, {{1, 2}, 1'000}}, 2, {.usual_output = 0});
  ASSERT_TRUE(ledger.occupy(0, 1'000));
  EXPECT_DOUBLE_EQ(ledger.real_bottleneck(), 0.5);
  EXPECT_DOUBLE_EQ(ledger.expected_bottleneck(), 0.0);
}

TEST(KvLedger, RefusesToOverfill) {
  KvLedger ledger({{{0, 1}, 10}}, 1, {});
  EXPECT_TRUE(ledger.occupy(0, 10));
  EXPECT_FALSE(ledger.occupy(0, 1));
  EXPECT_EQ(ledger.real_used(0), 10);
}

// Against a plain list of who holds what.
TEST(KvLedger, NeverNegativeAndAlwaysTheSumOfItsRequests) {
  struct Held {
    int32_t node;
    int64_t input, real;
  };
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    std::vector<KvLedger::Node> nodes;
    for (int32_t i = 0; i < 8; ++i) {
      const auto begin = static_cast<int32_t>(rng.below(8));
      nodes.push_back({{begin, begin + 1 + static_cast<int32_t>(rng.below(4))}, 50'000});
    }
    KvLedger ledger(nodes, 12, {});
    std::vector<Held> held;
    std::vector<int64_t> expected(nodes.size()), real(nodes.size());
    for (int step = 0; step < 100'000; ++step, ++events) {
      const auto node = static_cast<int32_t>(rng.below(nodes.size()));
      const int32_t layers = nodes[node].layers.size();
      if (rng.below(2) == 0 || held.empty()) {
        const int64_t input = rng.between(1, 500);
        const bool fits = ledger.fits(node, input);
        const int64_t need = ledger.expected_tokens(input) * layers;
        EXPECT_EQ(fits, static_cast<double>(50'000 - expected[node] - need) >= (1 - 0.85) * 50'000);
        if (!fits) continue;
        ledger.book(through(node, nodes[node].layers), input);
        expected[node] += need;
        const int64_t wanted = input * layers;
        const bool room = real[node] + wanted <= 50'000;
        EXPECT_EQ(ledger.occupy(node, wanted), room);
        if (room) real[node] += wanted;
        held.push_back({node, input, room ? wanted : 0});
      } else {
        const size_t i = rng.below(held.size());
        const Held gone = held[i];
        held[i] = held.back();
        held.pop_back();
        ledger.release(through(gone.node, nodes[gone.node].layers), gone.input);
        ledger.vacate(gone.node, gone.real);
        expected[gone.node] -= ledger.expected_tokens(gone.input) * nodes[gone.node].layers.size();
        real[gone.node] -= gone.real;
      }
      ASSERT_GE(ledger.real_used(node), 0);
      ASSERT_EQ(ledger.real_used(node), real[node]);
      ASSERT_EQ(ledger.expected_used(node), expected[node]);
    }
  });
}

}  // namespace
}  // namespace towline::policy
