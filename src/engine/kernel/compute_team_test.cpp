// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/compute_team.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "base/for_seeds.hpp"
#include "engine/kernel/arena.hpp"

namespace towline::engine {
namespace {

TEST(ComputeTeam, RunsEveryPartOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    ComputeTeam team(threads);
    for (const int64_t parts : {0, 1, 2, 3, 7, 100, 3000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(parts));
      team.parallel_for(parts, [&](int64_t part, int thread) {
        EXPECT_LT(thread, threads);
        ++runs[static_cast<size_t>(part)];
      });
      for (const std::atomic<int>& r : runs) EXPECT_EQ(r, 1);
    }
  }
}

TEST(ComputeTeam, APartThatTakesLongKeepsNobodyElseWaiting) {
  // The first part ends only when all the others are done, those of its own thread included.
  ComputeTeam team(2);
  std::atomic<int> others{0};
  team.parallel_for(100, [&](int64_t part, int) {
    if (part > 0) {
      others.fetch_add(1);
      others.notify_all();
      return;
    }
    for (int n; (n = others.load()) < 99;) others.wait(n);
  });
  EXPECT_EQ(others, 99);
}

TEST(ComputeTeam, PiecesCoverThePartsAndKeepTheirSizes) {
  for_seeds(300, [](Rng& rng) {
    const int threads = static_cast<int>(rng.between(1, 4));
    const int64_t parts = rng.between(0, 400), least = rng.between(1, 20);
    const int64_t most = least + rng.between(0, 50);
    ComputeTeam team(threads);
    std::vector<std::atomic<int>> runs(static_cast<size_t>(parts));
    team.parallel_ranges(parts, [&](int64_t begin, int64_t end, int) {
      EXPECT_LT(begin, end);
      EXPECT_LE(end - begin, threads > 1 ? most : parts);
      for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
    }, least, most);
    for (const std::atomic<int>& r : runs) EXPECT_EQ(r, 1);
  });
}

TEST(ComputeTeam, StepsFollowEachOther) {
  ComputeTeam team(3);
  std::vector<int64_t> value(64, 0);
  for (int step = 0; step < 2000; ++step) {
    // Each part reads what another thread wrote in the step before.
    const std::vector<int64_t> before = value;
    team.parallel_for(64, [&](int64_t i, int) {
      const auto at = static_cast<size_t>(i);
      value[at] = before[(at + 32) % 64] + 1;
    });
  }
  for (const int64_t v : value) EXPECT_EQ(v, 2000);
}

TEST(ComputeTeam, RangesCoverTheParts) {
  ComputeTeam team(TeamOptions{.threads = 4, .pin = true});
  std::vector<int> runs(10, 0);
  team.parallel_ranges(10, [&](int64_t begin, int64_t end, int) {
    EXPECT_LT(begin, end);
    for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
  });
  for (const int r : runs) EXPECT_EQ(r, 1);
}

TEST(Arena, HandsOutAlignedMemoryFrontToBack) {
  Arena arena = Arena::create(5 << 20).value();
  EXPECT_GE(arena.size(), 5 << 20);
  std::byte* a = arena.take(100);
  std::byte* b = arena.take(64);
  EXPECT_EQ(b - a, 128);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % 64, 0u);
  a[99] = b[63] = std::byte{1};
  EXPECT_EQ(arena.used(), 192);
  Arena moved = std::move(arena);
  EXPECT_EQ(moved.used(), 192);
}

TEST(Arena, SaysSoWhenThereIsNoRoom) {
  const auto huge = Arena::create(int64_t{1} << 62);
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code(), Code::kExhausted);
}

}  // namespace
}  // namespace towline::engine
