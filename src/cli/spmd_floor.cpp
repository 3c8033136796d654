// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <new>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "cli/spmd_bench.hpp"
#include "net/futex.hpp"

namespace towline::cli {
namespace {

constexpr int kMostReaders = 16;

// Shared with the readers. Each side sleeps on a word and looks at nothing else.
struct Floor {
  alignas(64) std::atomic<uint32_t> round{0};    // the readers' word
  alignas(64) std::atomic<uint32_t> answers{0};  // of all rounds
  alignas(64) std::atomic<uint32_t> done{0};     // the owner's word: rounds answered by all
  alignas(64) std::atomic<int64_t> worked_ns[kMostReaders];
};
constexpr uint32_t kEnd = UINT32_MAX;

void sleep_for(Duration time) {
  const Instant until = net::steady_now() + time;
  const timespec at{until.ns / 1'000'000'000, until.ns % 1'000'000'000};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

// The child of a process with threads: nothing here but system calls and shared words.
[[noreturn]] void serve(Floor& floor, int index, int readers, Duration work) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);  // as the null model
  for (uint32_t round = 0;;) {
    uint32_t next = round;
    while ((next = floor.round.load()) == round) net::futex_wait(floor.round, round, kNever);
    if (next == kEnd) ::_exit(0);
    round = next;
    const Instant begin = net::steady_now();
    sleep_for(work);
    floor.worked_ns[index].store((net::steady_now() - begin).value);
    if (floor.answers.fetch_add(1) + 1 == round * static_cast<uint32_t>(readers)) {
      floor.done.store(round);
      net::futex_wake_all(floor.done);
    }
  }
}

// Fewer than asked for, if the machine has no room for more processes.
class Readers {
 public:
  Readers(Floor& floor, int count, Duration work) : floor_(floor) {
    for (int i = 0; i < count; ++i) {
      const pid_t pid = ::fork();
      if (pid == 0) serve(floor, i, count, work);
      if (pid > 0) pids_.push_back(pid);
    }
  }
  ~Readers() {
    floor_.round.store(kEnd);
    net::futex_wake_all(floor_.round);
    for (const pid_t pid : pids_) ::waitpid(pid, nullptr, 0);
  }
  size_t size() const { return pids_.size(); }

 private:
  Floor& floor_;
  std::vector<pid_t> pids_;
};

}  // namespace

Result<WakeFloor> measure_wake_floor(int readers, Duration work, int rounds) {
  constexpr int kUntimed = 10;
  CHECK(readers >= 1 && readers <= kMostReaders && rounds >= 1, readers, rounds);
  void* memory = ::mmap(nullptr, sizeof(Floor), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errorf(Code::kIo, "mmap: {}", ::strerror(errno));
  Floor& floor = *new (memory) Floor{};
  std::vector<double> times;
  {
    const Readers children(floor, readers, work);
    const Instant latest = net::steady_now() + seconds(10) + work * (2 * (rounds + kUntimed));
    for (int i = 1; i <= rounds + kUntimed; ++i) {
      const auto round = static_cast<uint32_t>(i);
      const Instant begin = net::steady_now();
      floor.round.store(round);
      net::futex_wake_all(floor.round);
      while (floor.done.load() != round && net::steady_now() < latest) {
        net::futex_wait(floor.done, round - 1, latest);
      }
      if (floor.done.load() != round) break;
      int64_t worked = 0;
      for (int r = 0; r < readers; ++r) worked = std::max(worked, floor.worked_ns[r].load());
      const int64_t beyond = (net::steady_now() - begin).value - worked;
      if (i > kUntimed) times.push_back(static_cast<double>(beyond) * 1e-3);
    }
  }
  ::munmap(memory, sizeof(Floor));
  if (times.size() != static_cast<size_t>(rounds)) {
    return Error(Code::kUnavailable, "processes that were started to be woken did not answer");
  }
  std::ranges::sort(times);
  return WakeFloor{times[times.size() / 2], times[times.size() * 99 / 100]};
}

}  // namespace towline::cli
