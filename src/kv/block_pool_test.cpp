// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "kv/block_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace towline::kv {
namespace {

TEST(BlockLayout, EveryElementHasItsOwnPlace) {
  const BlockLayout layout{.kv_heads = 3, .head_dim = 8};
  std::set<int64_t> places;
  for (int32_t head = 0; head < 3; ++head) {
    for (int32_t t = 0; t < kBlockTokens; ++t) {
      for (int32_t i = 0; i < 8; ++i) {
        EXPECT_TRUE(places.insert(layout.k_offset(head, t) + i * kBlockTokens).second);
        EXPECT_TRUE(places.insert(layout.v_offset(head, t) + i).second);
      }
    }
  }
  EXPECT_EQ(*places.begin(), 0);
  EXPECT_EQ(*places.rbegin() + 1, layout.block_stride());
  EXPECT_EQ(layout.block_bytes(), Bytes(2 * 3 * 16 * 8 * 2));
}

TEST(BlockPool, BlocksAreDisjointAndSurviveAMove) {
  auto made = BlockPool::create(3, 5, {.kv_heads = 2, .head_dim = 4});
  ASSERT_TRUE(made);
  BlockPool pool = std::move(made).value();
  EXPECT_EQ(pool.bytes(), Bytes(3 * 5 * 2 * 2 * 16 * 4 * 2));
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (int32_t b = 0; b < 5; ++b) {
      const auto bytes = pool.block(layer, BlockId(b));
      std::memset(bytes.data(), layer * 5 + b + 1, bytes.size());
    }
  }
  const BlockPool moved = std::move(pool);
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (int32_t b = 0; b < 5; ++b) {
      EXPECT_TRUE(std::ranges::all_of(moved.block(layer, BlockId(b)), [&](std::byte v) {
        return v == static_cast<std::byte>(layer * 5 + b + 1);
      }));
    }
  }
}

TEST(BlockPool, RefusesNonsenseAndTheImpossible) {
  EXPECT_FALSE(BlockPool::create(1, 0, {.kv_heads = 1, .head_dim = 4}));
  EXPECT_FALSE(BlockPool::create(1, 4, {.kv_heads = 0, .head_dim = 4}));
  const auto huge = BlockPool::create(1000, 2'000'000'000, {.kv_heads = 128, .head_dim = 256});
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code(), Code::kExhausted);
}

}  // namespace
}  // namespace towline::kv
