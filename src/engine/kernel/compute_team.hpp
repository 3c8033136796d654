// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ComputeTeam: a fixed number of threads that work through one step of the decoder together.
//
//   ComputeTeam team(2);
//   team.parallel_for(parts, [&](int64_t part, int thread) { ... });
//
// The caller is thread 0 of the team. Each thread has a consecutive range of the parts and takes
// pieces from its front: memory is read fastest as one long stream a thread. A thread that is done
// takes pieces from the front of the others' ranges, because processors are never equally fast (a
// host runs something else, memory answers one of them sooner), so which thread runs a part is not
// fixed and must not matter. Pieces are at most `most` parts, and smaller towards the end of a
// range.
//
// A call returns when all parts are done. Between calls the workers spin for at most 50 us (a
// decoder step calls back within a few us) and then sleep on a futex, so an idle team costs
// nothing. One caller at a time; parts must not call the team.
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
    run({[](void* context, int64_t begin, int64_t end, int thread) {
      auto& body = *static_cast<std::remove_reference_t<F>*>(context);
      for (int64_t part = begin; part < end; ++part) body(part, thread);
    }, &f, parts, 1, 1});
  }
  // f(begin, end, thread) for pieces that together are [0, parts): at most `most` parts, at least
  // `least` but for the end of a range. Without them a thread's whole range is one piece.
  template <class F>
  void parallel_ranges(int64_t parts, F&& f, int64_t least = INT64_MAX, int64_t most = INT64_MAX) {
    run({[](void* context, int64_t begin, int64_t end, int thread) {
      (*static_cast<std::remove_reference_t<F>*>(context))(begin, end, thread);
    }, &f, parts, least, most});
  }

 private:
  using Body = void (*)(void* context, int64_t begin, int64_t end, int thread);
  struct Job {
    Body body = nullptr;
    void* context = nullptr;
    int64_t parts = 0;
    int64_t least = 1, most = 1;  // parts of a piece
  };
  struct alignas(64) Range {
    std::atomic<int64_t> next{0};  // parts before it are taken
    int64_t end = 0;
  };
  void run(const Job& job);
  void run_pieces(int thread);
  void worker(int thread);

  // Constant after construction.
  int threads_;
  std::vector<std::thread> workers_;
  // Written by the caller before it raises epoch_, read by workers after they see it; but all take
  // from the ranges.
  Job job_;
  std::vector<Range> ranges_;  // [threads]
  alignas(64) std::atomic<uint32_t> epoch_{0};  // odd bit pattern has no meaning; just counts jobs
  alignas(64) std::atomic<uint32_t> running_{0};  // workers that have not finished the job
  std::atomic<bool> stop_{false};
};

}  // namespace towline::engine
