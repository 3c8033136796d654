// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/block_ledger.hpp"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

std::vector<int32_t> block_of(int32_t token) { return std::vector<int32_t>(kBlockTokens, token); }

TEST(BlockLedger, HandsOutEachBlockOnceAndTakesItBack) {
  BlockLedger ledger(3);
  const auto a = ledger.allocate(), b = ledger.allocate(), c = ledger.allocate();
  ASSERT_TRUE(a && b && c);
  EXPECT_NE(*a, *b);
  EXPECT_NE(*b, *c);
  EXPECT_NE(*a, *c);
  EXPECT_FALSE(ledger.allocate());
  ledger.release(*b);
  EXPECT_EQ(ledger.available(), 1);
  EXPECT_EQ(ledger.allocate(), b);
}

TEST(BlockLedger, FindsPublishedContentOnlyAfterTheSameBeginning) {
  BlockLedger ledger(4);
  const ChainLink root = BlockLedger::root(7);
  const BlockId first = *ledger.allocate(), second = *ledger.allocate();
  const ChainLink one = ledger.publish(first, root, block_of(1));
  ledger.publish(second, one, block_of(2));
  ASSERT_TRUE(ledger.find(root, block_of(1)));
  EXPECT_EQ(ledger.find(root, block_of(1))->block, first);
  EXPECT_EQ(ledger.find(one, block_of(2))->block, second);
  EXPECT_FALSE(ledger.find(root, block_of(2)));
  EXPECT_FALSE(ledger.find(BlockLedger::root(8), block_of(1))) << "another salt";
}

TEST(BlockLedger, ForgetsTheLeastRecentlyReleasedFirst) {
  BlockLedger ledger(3);
  const ChainLink root = BlockLedger::root(0);
  std::vector<BlockId> blocks;
  for (int32_t t = 0; t < 3; ++t) {
    blocks.push_back(*ledger.allocate());
    ledger.publish(blocks.back(), root, block_of(t));
  }
  ledger.release(blocks[1]);
  ledger.release(blocks[0]);
  ledger.release(blocks[2]);
  EXPECT_EQ(ledger.available(), 3);
  EXPECT_EQ(*ledger.allocate(), blocks[1]);
  EXPECT_FALSE(ledger.find(root, block_of(1)));
  ledger.retain(blocks[0]);  // used again: no longer a candidate
  EXPECT_EQ(*ledger.allocate(), blocks[2]);
  EXPECT_FALSE(ledger.allocate());
  EXPECT_TRUE(ledger.find(root, block_of(0)));
}

TEST(BlockLedger, AChildIsNotFoundThroughARepublishedParent) {
  // The parent's content is forgotten and published anew: a new identity, so that a child published
  // under the old one is unreachable rather than trusted.
  BlockLedger ledger(2);
  const ChainLink root = BlockLedger::root(0);
  const BlockId parent = *ledger.allocate(), child = *ledger.allocate();
  const ChainLink old_link = ledger.publish(parent, root, block_of(1));
  ledger.publish(child, old_link, block_of(2));
  ledger.release(parent);
  const BlockId again = *ledger.allocate();
  const ChainLink new_link = ledger.publish(again, root, block_of(1));
  EXPECT_NE(new_link.serial, old_link.serial);
  EXPECT_FALSE(ledger.find(new_link, block_of(2)));
}

TEST(BlockLedger, ManyMayHoldABlock) {
  BlockLedger ledger(2);
  const BlockId block = *ledger.allocate();
  ledger.publish(block, BlockLedger::root(0), block_of(1));
  for (const int32_t most : {254, 255, 256, 1000}) {
    for (int32_t count = 2; count <= most; ++count) {
      ledger.retain(block);
      ASSERT_EQ(ledger.references(block), count);
    }
    ledger.check_invariants();
    for (int32_t count = most - 1; count >= 1; --count) {
      ledger.release(block);
      ASSERT_EQ(ledger.references(block), count);
    }
    ledger.check_invariants();
  }
  ledger.release(block);
  EXPECT_EQ(ledger.held(), 0);
}

// Against an obvious model: a map of reference counts, and content remembered by whole prefix.
TEST(BlockLedger, RandomOperationsKeepTheInvariants) {
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    const auto size = static_cast<int32_t>(rng.between(1, 12));
    BlockLedger ledger(size);
    std::map<int32_t, int32_t> held;                  // block -> references
    std::map<int32_t, std::vector<int32_t>> content;  // block -> published whole prefix
    const ChainLink root = BlockLedger::root(0);
    for (int i = 0; i < 2000; ++i, ++events) {
      const uint64_t what = rng.below(4);
      const auto token = static_cast<int32_t>(rng.below(6));
      if (what == 0) {
        const auto block = ledger.allocate();
        ASSERT_EQ(block.has_value(), static_cast<int32_t>(held.size()) < size);
        if (block) {
          ASSERT_FALSE(held.contains(block->value)) << "aliased";
          held[block->value] = 1;
          content.erase(block->value);
        }
      } else if (what == 1 && !held.empty()) {
        auto at = std::next(held.begin(), static_cast<int64_t>(rng.below(held.size())));
        ledger.release(BlockId(at->first));
        if (--at->second == 0) held.erase(at);
      } else if (what == 2 && !held.empty()) {
        auto at = std::next(held.begin(), static_cast<int64_t>(rng.below(held.size())));
        if (!content.contains(at->first)) {
          const bool known = ledger.find(root, block_of(token)).has_value();
          ledger.publish(BlockId(at->first), root, block_of(token));
          if (!known) content[at->first] = block_of(token);
        }
      } else if (const auto match = ledger.find(root, block_of(token))) {
        ASSERT_TRUE(content.contains(match->block.value));
        ASSERT_EQ(content[match->block.value], block_of(token));
        ledger.retain(match->block);
        ++held[match->block.value];
      }
      ASSERT_EQ(ledger.held(), static_cast<int32_t>(held.size()));
    }
    ledger.check_invariants();
  });
}

}  // namespace
}  // namespace towline::policy
