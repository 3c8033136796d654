// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/event_queue.hpp"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "base/for_seeds.hpp"
#include "sim/cpython_set.hpp"

namespace towline::sim {
namespace {

// Against an ordered map from (time, causes, order of the push).
TEST(EventQueue, IsTheTotalOrderOfTimeAndPush) {
  for_seeds(40, [](Rng& rng) {
    EventQueue<int64_t, int> queue;
    using Causes = EventQueue<int64_t, int>::Causes;
    std::map<std::tuple<int64_t, Causes, int>, int> oracle;
    int next = 0;
    for (int step = 0; step < 20'000; ++step) {
      const uint64_t what = rng.below(5);
      if (what < 3 || oracle.empty()) {
        const int64_t when = queue.now() + (rng.below(3) == 0 ? 0 : rng.between(0, 50));
        Causes causes = queue.causes();
        ASSERT_EQ(causes[0], queue.now());
        if (when > queue.now() && rng.below(3) == 0) {
          causes[0] = when - rng.between(1, 3);
          for (size_t i = 1; i < causes.size(); ++i) causes[i] = causes[i - 1] - rng.between(0, 1);
          queue.push_as_of(causes, when, next);
        } else {
          queue.push(when, next);
        }
        oracle.emplace(std::tuple(when, causes, next), next);
        ++next;
      } else if (what == 3) {
        const auto [when, causes, order] = oracle.begin()->first;
        ASSERT_EQ(queue.next_time(), when);
        ASSERT_EQ(queue.pop(), order);
        ASSERT_EQ(queue.now(), when);
        ASSERT_EQ(queue.causes(), queue.after(when, causes));
        oracle.erase(oracle.begin());
      } else {
        const int64_t to = queue.now() + rng.between(0, 3);
        if (std::get<0>(oracle.begin()->first) > to) {
          queue.advance(to);
          ASSERT_EQ(queue.now(), to);
        }
      }
      ASSERT_EQ(queue.size(), oracle.size());
    }
    while (!queue.empty()) {
      ASSERT_EQ(queue.pop(), oracle.begin()->second);
      oracle.erase(oracle.begin());
    }
    ASSERT_TRUE(oracle.empty());
  });
}

TEST(CPythonIntSet, WalksAsPythonDoes) {
  const auto walk = [](const std::vector<int32_t>& values) {
    CPythonIntSet set;
    for (const int32_t v : values) set.insert(v);
    std::vector<int32_t> out;
    set.copy_to(out);
    return out;
  };
  // What python3 prints for list(set) after adding these one by one.
  EXPECT_EQ(walk({5, 0, 13, 21, 8}), (std::vector<int32_t>{0, 5, 8, 13, 21}));
  EXPECT_EQ(walk({8, 0, 16, 24, 32, 1}), (std::vector<int32_t>{0, 32, 1, 8, 16, 24}));
  EXPECT_EQ(walk({25, 22, 19, 16, 13, 10, 7, 4, 1}),
            (std::vector<int32_t>{1, 4, 7, 10, 13, 16, 19, 22, 25}));
  EXPECT_EQ(walk({3, 3, 3}), (std::vector<int32_t>{3}));
}

}  // namespace
}  // namespace towline::sim
