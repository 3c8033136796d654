// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ComputeTeam: a fixed number of threads that work through one step of the decoder together.
//
//   ComputeTeam team(2);
//   team.parallel_for(parts, [&](int64_t part, int thread) { ... });
//
// The caller is thread 0 of the team. Work is split statically: thread t runs a consecutive range of
// the parts, in order. parallel_for returns when all parts are done. Between calls the workers spin
// for at most 50 us (a decoder step calls back within a few us) and then sleep on a futex, so an
// idle team costs nothing. One caller at a time; parts must not call parallel_for.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace towline::engine {

struct TeamOptions {
  int threads = 1;     // including the caller; at least 1
  bool pin = false;    // worker t to the t-th allowed processor (the caller is left alone)
};

class ComputeTeam {
 public:
  explicit ComputeTeam(const TeamOptions& options);
  explicit ComputeTeam(int threads) : ComputeTeam(TeamOptions{threads, false}) {}
  ~ComputeTeam();
  ComputeTeam(const ComputeTeam&) = delete;
  ComputeTeam& operator=(const ComputeTeam&) = delete;

  int threads() const { return threads_; }

  // f(part, thread) for every part in [0, parts).
  template <class F>
  void parallel_for(int64_t parts, F&& f) {
    run(parts, [](void* context, int64_t begin, int64_t end, int thread) {
      auto& body = *static_cast<std::remove_reference_t<F>*>(context);
      for (int64_t part = begin; part < end; ++part) body(part, thread);
    }, &f);
  }
  // f(begin, end, thread): each thread gets its whole range of the parts at once (never empty).
  template <class F>
  void parallel_ranges(int64_t parts, F&& f) {
    run(parts, [](void* context, int64_t begin, int64_t end, int thread) {
      (*static_cast<std::remove_reference_t<F>*>(context))(begin, end, thread);
    }, &f);
  }

 private:
  using Body = void (*)(void* context, int64_t begin, int64_t end, int thread);
  struct Job {
    Body body = nullptr;
    void* context = nullptr;
    int64_t parts = 0;
  };
  void run(int64_t parts, Body body, void* context);
  void run_share(int thread) const;
  void worker(int thread);

  // Constant after construction.
  int threads_;
  std::vector<std::thread> workers_;
  // Written by the caller before it raises epoch_, read by workers after they see it.
  Job job_;
  alignas(64) std::atomic<uint32_t> epoch_{0};    // odd bit pattern has no meaning; just counts jobs
  alignas(64) std::atomic<uint32_t> running_{0};  // workers that have not finished the job
  std::atomic<bool> stop_{false};
};

}  // namespace towline::engine
