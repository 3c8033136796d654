// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/log_budget.hpp"

#include <gtest/gtest.h>

namespace towline::net {
namespace {

TEST(LogBudget, AFloodWritesAFewLinesAPeriodAndLosesNoCount) {
  LogBudget budget;
  int64_t written = 0, told = 0;
  constexpr int64_t kEvents = 100'000;
  for (int64_t i = 0; i < kEvents; ++i) {  // a thousand a second
    if (!budget.spend(Instant{i * 1'000'000})) continue;
    ++written;
    told += budget.unwritten();
  }
  EXPECT_EQ(written, 10 * LogBudget::kLines);  // 100 s
  ASSERT_TRUE(budget.spend(Instant{0} + seconds(1000)));
  EXPECT_EQ(written + told + budget.unwritten(), kEvents);
  ASSERT_TRUE(budget.spend(Instant{0} + seconds(1000)));
  EXPECT_EQ(budget.unwritten(), 0);
}

}  // namespace
}  // namespace towline::net
