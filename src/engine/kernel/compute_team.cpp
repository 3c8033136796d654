// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/compute_team.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>

#include "base/check.hpp"

namespace towline::engine {
namespace {

constexpr std::chrono::microseconds kSpin{50};

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `word` differs from `old`: spins for kSpin, then sleeps in the kernel.
void wait_for_change(const std::atomic<uint32_t>& word, uint32_t old) {
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (word.load(std::memory_order_acquire) != old) return;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  word.wait(old, std::memory_order_acquire);
}

// The n-th processor that this process may run on.
void pin_to_allowed(std::thread& thread, int n) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int seen = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != n) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);
    return;
  }
}

}  // namespace

ComputeTeam::ComputeTeam(const TeamOptions& options)
    : threads_(options.threads), ranges_(static_cast<size_t>(std::max(options.threads, 1))) {
  CHECK(threads_ >= 1, threads_);
  workers_.reserve(static_cast<size_t>(threads_ - 1));
  for (int t = 1; t < threads_; ++t) {
    workers_.emplace_back([this, t] { worker(t); });
    if (options.pin) pin_to_allowed(workers_.back(), t);
  }
}

ComputeTeam::~ComputeTeam() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : workers_) thread.join();
}

void ComputeTeam::run(const Job& job) {
  if (job.parts <= 0) return;
  if (threads_ == 1 || job.parts == 1) {
    job.body(job.context, 0, job.parts, 0);
    return;
  }
  job_ = job;
  for (int t = 0; t < threads_; ++t) {
    Range& range = ranges_[static_cast<size_t>(t)];
    range.next.store(job.parts * t / threads_, std::memory_order_relaxed);
    range.end = job.parts * (t + 1) / threads_;
  }
  running_.store(static_cast<uint32_t>(threads_ - 1), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  run_pieces(0);
  for (uint32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) {
    wait_for_change(running_, left);
  }
}

void ComputeTeam::run_pieces(int thread) {
  for (int t = 0; t < threads_; ++t) {
    Range& range = ranges_[static_cast<size_t>((thread + t) % threads_)];
    int64_t begin = range.next.load(std::memory_order_relaxed);
    while (begin < range.end) {
      const int64_t left = range.end - begin;
      const int64_t piece = std::min(left, std::clamp(left / 4, job_.least, job_.most));
      if (!range.next.compare_exchange_weak(begin, begin + piece, std::memory_order_relaxed)) {
        continue;
      }
      job_.body(job_.context, begin, begin + piece, thread);
      begin = range.next.load(std::memory_order_relaxed);
    }
  }
}

void ComputeTeam::worker(int thread) {
  uint32_t seen = 0;
  for (;;) {
    wait_for_change(epoch_, seen);
    ++seen;  // the caller never runs ahead: it waits for every worker before the next job
    if (stop_.load(std::memory_order_relaxed)) return;
    run_pieces(thread);
    if (running_.fetch_sub(1, std::memory_order_release) == 1) running_.notify_one();
  }
}

}  // namespace towline::engine
