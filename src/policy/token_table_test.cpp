// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/token_table.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

std::vector<int32_t> random_tokens(Rng& rng) {
  std::vector<int32_t> tokens(rng.below(23));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(1000));
  return tokens;
}

// Whatever is done to it, it holds what a vector holds.
TEST(TokenTable, IsAVector) {
  for_seeds(60, [](Rng& rng) {
    TokenTable table;
    std::vector<int32_t> oracle;
    for (int step = 0; step < 2'000; ++step) {
      const auto token = static_cast<int32_t>(rng.below(1000));
      switch (rng.below(24)) {
        case 0:
          oracle = random_tokens(rng);
          table = oracle;
          break;
        case 1: {
          const size_t n = rng.below(oracle.size() + 9);
          oracle.resize(n);
          table.resize(n);
          break;
        }
        case 2: {
          const std::vector<int32_t> more = random_tokens(rng);
          oracle.insert(oracle.end(), more.begin(), more.end());
          table.append(more);
          break;
        }
        case 3: {
          oracle.clear();
          table.clear();
          break;
        }
        case 4: {
          ASSERT_EQ(table.all(), oracle);
          const size_t to = rng.below(oracle.size() + 1), from = rng.below(to + 1);
          std::vector<int32_t> some = {7};
          table.copy(from, to, some);
          ASSERT_EQ(some.size(), 1 + to - from);
          for (size_t i = from; i < to; ++i) ASSERT_EQ(some[1 + i - from], oracle[i]);
          break;
        }
        case 5:
          table = TokenTable(table);
          break;
        case 6:
        case 7:
        case 8:
          if (oracle.empty()) break;
          if (const size_t at = rng.below(oracle.size()); true) {
            oracle[at] = token;
            table.set(at, token);
          }
          break;
        default:
          oracle.push_back(token);
          table.push_back(token);
      }
      ASSERT_EQ(table.size(), oracle.size());
      ASSERT_EQ(table.empty(), oracle.empty());
      if (!oracle.empty()) {
        ASSERT_EQ(table.back(), oracle.back());
      }
      for (size_t i = 0; i < oracle.size(); ++i) ASSERT_EQ(table[i], oracle[i]) << i;
    }
  });
}

// One push in four goes beyond the object.
TEST(TokenTable, PushesTouchTheTableSeldom) {
  TokenTable table;
  int touched = 0;
  for (int32_t i = 0; i < 1000; ++i) {
    touched += table.tail_is_full() ? 1 : 0;
    table.push_back(i);
  }
  EXPECT_EQ(touched, 249);
}

}  // namespace
}  // namespace towline::policy
