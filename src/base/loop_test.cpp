// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/loop.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <thread>
#include <vector>

namespace towline {
namespace {

TEST(Loop, RunsTasksInOrderAndTimersByTime) {
  Loop loop;
  std::vector<int> order;
  loop.after(milliseconds(20), [&] {
    order.push_back(4);
    loop.stop();
  });
  loop.after(milliseconds(1), [&] { order.push_back(3); });
  const Loop::TimerId never = loop.after(milliseconds(2), [&] { order.push_back(99); });
  loop.cancel(never);
  loop.post([&] { order.push_back(1); });
  loop.post([&] { order.push_back(2); });
  loop.run();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
}

TEST(Loop, StopBeforeRunIsNotLostAndRunWorksAgain) {
  Loop loop;
  loop.stop();
  loop.run();
  bool ran = false;
  loop.post([&] {
    ran = true;
    loop.stop();
  });
  loop.run();
  EXPECT_TRUE(ran);
}

TEST(Loop, TakesTasksFromOtherThreads) {
  Loop loop;
  int sum = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 1000; ++k) {
        loop.post([&] {
          if (++sum == 4000) loop.stop();
        });
      }
    });
  }
  loop.run();
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(sum, 4000);
}

TEST(Loop, DeliversSignalsEachTime) {
  Loop loop;
  int seen = 0;
  loop.on_signal(SIGUSR1, [&] {
    if (++seen == 1) {
      std::raise(SIGUSR1);
    } else {
      loop.stop();
    }
  });
  std::raise(SIGUSR1);
  loop.run();
  EXPECT_EQ(seen, 2);
}

}  // namespace
}  // namespace towline
