// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/node_timeline.hpp"

#include <gtest/gtest.h>

namespace towline::sim {
namespace {

TEST(NodeTimeline, KeepsMeansInBoundedColumns) {
  NodeTimeline line;
  constexpr size_t kLooks = 16 * NodeTimeline::kMostColumns;
  for (size_t i = 0; i < kLooks; ++i) {
    // The first node works in the first half, the second fills up evenly.
    const float done = static_cast<float>(i) / kLooks;
    line.add(1 + static_cast<double>(i), 1, {done < 0.5F ? 1.0F : 0.0F, done}, {0.25F, done});
  }
  ASSERT_LE(line.columns(), NodeTimeline::kMostColumns);
  ASSERT_GE(line.columns(), NodeTimeline::kMostColumns / 2);
  EXPECT_EQ(line.begin, 0);
  EXPECT_DOUBLE_EQ(line.step * static_cast<double>(line.columns()), kLooks);
  const size_t n = line.columns();
  for (size_t c = 0; c < n; ++c) {
    EXPECT_NEAR(line.busy[0][c], c < n / 2 ? 1 : 0, 1e-5) << c;
    EXPECT_NEAR(line.kv[0][c], 0.25, 1e-5);
    EXPECT_NEAR(line.kv[1][c], (static_cast<double>(c) + 0.5) / static_cast<double>(n), 0.01) << c;
  }
}

TEST(NodeTimeline, AColumnThatIsNotFullIsTheMeanOfWhatThereIs) {
  NodeTimeline line;
  for (size_t i = 0; i <= NodeTimeline::kMostColumns; ++i) {
    line.add(static_cast<double>(i), 1, {0.5F}, {i == NodeTimeline::kMostColumns ? 1.0F : 0.0F});
  }
  EXPECT_EQ(line.columns(), NodeTimeline::kMostColumns / 2 + 1);
  EXPECT_EQ(line.kv[0].back(), 1);
  EXPECT_EQ(line.busy[0].back(), 0.5);
}

}  // namespace
}  // namespace towline::sim
