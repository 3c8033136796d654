// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/shm_collective.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

namespace towline::worker {
namespace {

// One exchange after another in two buffers in turn, as a stage does; false if a sum was wrong.
bool add_up(ShmCollective& group, int rounds) {
  const engine::Shard shard = group.shard();
  const std::span<float> memory = group.memory();
  for (int round = 0; round < rounds; ++round) {
    float* parts = memory.data() + round % 2 * shard.of;
    parts[shard.rank] = static_cast<float>(round * (shard.rank + 1));
    if (!group.barrier()) return false;
    float sum = 0;
    for (int32_t r = 0; r < shard.of; ++r) sum += parts[r];
    if (sum != static_cast<float>(round * shard.of * (shard.of + 1) / 2)) return false;
  }
  return true;
}

TEST(ShmCollective, EveryThreadSeesEveryPart) {
  for (const int32_t ranks : {1, 2, 4, 8}) {
    auto region = ShmCollectiveRegion::create(ranks, 2 * ranks);
    ASSERT_TRUE(region) << region.error().to_string();
    std::vector<std::thread> threads;
    std::vector<char> right(static_cast<size_t>(ranks));
    for (int32_t rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        ShmCollective group(*region, rank);
        right[static_cast<size_t>(rank)] = add_up(group, 300);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const char r : right) EXPECT_TRUE(r) << ranks;
  }
}

// A child process runs `body` on its own mapping of the region and exits with what it returns.
template <class F>
pid_t spawn_rank(const ShmCollectiveRegion& region, int32_t rank, F&& body) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  auto own = ShmCollectiveRegion::adopt(::dup(region.fd()));
  if (!own) ::_exit(90);
  ShmCollective group(*own, rank);
  ::_exit(body(group));
}

int exit_status(pid_t child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(ShmCollective, EveryProcessSeesEveryPart) {
  auto region = ShmCollectiveRegion::create(4, 8);
  ASSERT_TRUE(region);
  std::vector<pid_t> children;
  for (int32_t rank = 0; rank < 4; ++rank) {
    children.push_back(spawn_rank(*region, rank, [](ShmCollective& group) {
      return add_up(group, 200) ? 0 : 1;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_status(child), 0);
}

// Wherever a rank is killed, the others leave the barrier once somebody has noticed.
TEST(ShmCollective, AKilledRankDoesNotHoldTheOthers) {
  for (int32_t victim = 0; victim < 4; ++victim) {
    auto region = ShmCollectiveRegion::create(4, 8);
    ASSERT_TRUE(region);
    std::vector<pid_t> children;
    for (int32_t rank = 0; rank < 4; ++rank) {
      children.push_back(spawn_rank(*region, rank, [](ShmCollective& group) {
        for (;;) {
          const Result<void> met = group.barrier();
          if (!met) return met.error().code() == Code::kUnavailable ? 7 : 8;
        }
      }));
    }
    const pid_t killed = children[static_cast<size_t>(victim)];
    ::kill(killed, SIGKILL);
    EXPECT_EQ(exit_status(killed), -SIGKILL);
    region->abort();
    for (const pid_t child : children) {
      if (child == killed) continue;
      EXPECT_EQ(exit_status(child), 7);
    }
    ShmCollective late(*region, victim);
    EXPECT_FALSE(late.barrier());  // for ever
  }
}

TEST(ShmCollective, WrongDescriptorsAndSizesAreRefused) {
  EXPECT_FALSE(ShmCollectiveRegion::create(3, 8));
  EXPECT_FALSE(ShmCollectiveRegion::create(0, 8));
  EXPECT_FALSE(ShmCollectiveRegion::create(2, -1));
  EXPECT_FALSE(ShmCollectiveRegion::adopt(-1));
  const auto pipe_or_file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  EXPECT_FALSE(ShmCollectiveRegion::adopt(pipe_or_file));
}

}  // namespace
}  // namespace towline::worker
