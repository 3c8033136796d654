// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SoloRank: the one rank of a node without tensor parallelism, as a thread of the node's process. It
// keeps its own mirror, applies what the agent forwards in the agent's order, and evaluates runs
// with the node's executor, one at a time.
//
// Threading: give() and take() belong to the agent's thread; `wake` is called on the rank's thread
// whenever take() has something.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "policy/peer.hpp"
#include "worker/executor.hpp"

namespace towline::worker {

// A run with its input: the hidden rows of all pieces, piece after piece. Rows of pieces that embed
// are not read.
struct RankRun {
  std::vector<policy::RunPiece> pieces;
  std::vector<float> hidden;  // [rows of all pieces][width]
};
struct RankDone {
  RankRun run;                       // `hidden` is the output now
  std::vector<policy::RowResult> results;
  std::optional<Error> error;        // nothing in `run` counts
};

class SoloRank {
 public:
  SoloRank(std::unique_ptr<Executor> executor, const policy::MirrorLimits& limits,
           std::function<void()> wake);
  ~SoloRank();  // finishes the run it is in

  using Command = std::variant<policy::ForwardStep, policy::ForwardFeed, RankRun>;
  void give(Command command);
  std::optional<RankDone> take();
  const Executor& executor() const { return *executor_; }

 private:
  void loop();
  RankDone evaluate(RankRun run);

  std::unique_ptr<Executor> executor_;   // the rank's thread's
  policy::StepMirror mirror_;            // the rank's thread's
  std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Command> commands_;         // guarded by mutex_
  std::deque<RankDone> done_;            // guarded by mutex_
  bool stop_ = false;                    // guarded by mutex_
  std::thread thread_;
};

}  // namespace towline::worker
