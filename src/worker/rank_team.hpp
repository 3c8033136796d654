// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RankTeam: the ranks of one node as threads or child processes, their two rings, their shared
// memory and the edges between their stages, from start to the last trace.
//
//   RUNNING -> DRAINING (nothing new is sent) -> CLOSED (rings closed; ranks leave) -> REAPED
//
// One thread owns the children: it starts them, sleeps in poll() on their pidfds, and reaps them.
// A child that ends before it was asked to is marked dead on both rings at once, whoever waits for
// it wakes, and collectives are aborted. Children get SIGKILL if that thread or this process ends
// (PDEATHSIG), look whether the writer lives now and then, and have no name anywhere (memfd), so a
// killed node leaves nothing behind. After the rings close a child has 2 s, then SIGTERM, 2 s more,
// then SIGKILL. On success nothing is printed.
//
// Threading: one owner thread; the rings have their own rules (net/broadcast_ring.hpp).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/options.hpp"
#include "net/broadcast_ring.hpp"
#include "worker/executor.hpp"
#include "worker/rank_loop.hpp"
#include "worker/shm_collective.hpp"

namespace towline::worker {

struct RankTeamOptions {
  int32_t ranks = 1;          // tensor-parallel ranks of each stage
  int32_t stages = 1;         // of the node, stage after stage: reader = stage * ranks + rank
  int32_t first = 0;          // ranks from here on are started here; 1 in driver mode (one stage)
  int32_t node = 0;
  bool processes = false;     // else threads of this process
  // What a child runs: this program with these words before run_rank_process()'s options.
  std::string program = "/proc/self/exe";
  std::vector<std::string> arguments = {"rank"};
  int64_t collective_floats = 0;
  ExecutorFactory factory;    // of threads; children bring their own
  net::RingOptions ring;      // `readers` is set here
  // Called from a thread of the team when there may be something to take: an answer or a death.
  std::function<void()> notify;
};

class RankTeam {
 public:
  static Result<std::unique_ptr<RankTeam>> start(RankTeamOptions options);
  ~RankTeam();  // stop()

  int32_t readers() const { return options_.ranks * options_.stages - options_.first; }
  int32_t ranks() const { return options_.ranks; }
  int32_t stages() const { return options_.stages; }
  int32_t first() const { return options_.first; }
  net::RingWriter& steps() { return *steps_; }
  net::RingWriter& calls() { return *calls_; }
  int collective_fd(int32_t stage = 0) const;
  // How a rank ended that should not have; empty while all live. Any thread.
  std::optional<std::string> death() const;
  pid_t pid(int32_t reader) const;  // of a child; -1 for threads
  // Ranks that wait for each other, in a stage or between stages, leave with an error; the team is of
  // no more use.
  void abort_waits();
  // To REAPED; idempotent.
  void stop();

 private:
  struct Child {
    pid_t pid = -1;
    int pidfd = -1;
    bool ended = false;
  };
  explicit RankTeam(RankTeamOptions options) : options_(std::move(options)) {}
  Result<void> open_rings();
  void start_threads();
  Result<void> start_children();
  Result<Child> spawn(int32_t reader) const;
  RankPlace place_of(int32_t reader) const;
  net::RingWriter* edge_into(int32_t stage) const;
  net::RingWriter* edge_out_of(const RankPlace& place) const;
  void watch();
  void reap(size_t reader);
  void signal_all(int signal_number);

  RankTeamOptions options_;
  std::unique_ptr<net::RingWriter> steps_, calls_;
  std::vector<ShmCollectiveRegion> regions_;             // by stage, or none
  std::vector<std::shared_ptr<net::RingWriter>> edges_;  // by the stage that writes; none of one stage
  std::vector<std::unique_ptr<RankLoop>> loops_;  // threads
  std::vector<std::thread> threads_;
  std::vector<Child> children_;                   // the watcher's
  std::vector<std::atomic<pid_t>> pids_;
  int wake_fd_ = -1;                              // eventfd: stop
  std::atomic<bool> stopping_{false};
  std::atomic<bool> died_{false};
  std::string death_;                             // written before died_
  std::atomic<int> started_{0};                   // 0: not yet; 1: yes; 2: start_error_
  std::optional<Error> start_error_;
  std::thread watcher_;
};

// The body of a rank's process; `args` as RankTeam makes them. Returns when the node's rings close.
Result<int> run_rank_process(std::span<const std::string> args, const ExecutorFactory& factory);
// Its option table, for the command line's own documentation.
void describe_rank_process(void (*sink)(const OptionTable&));

}  // namespace towline::worker
