// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SoloRank: the one rank of a node without tensor parallelism, as threads of the node's process:
// one for steps, runs and in-band calls, one for the calls that must work meanwhile. It keeps its
// own mirror, applies what the agent forwards in the agent's order, and evaluates runs one at a
// time.
//
// Threading: worker/node_ranks.hpp.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "worker/node_ranks.hpp"

namespace towline::worker {

class SoloRank final : public NodeRanks {
 public:
  static Result<std::unique_ptr<SoloRank>> start(const NodeRanksOptions& options,
                                                 ExecutorFactory factory);
  ~SoloRank() override;

  const Geometry& geometry() const override { return geometry_; }
  void step(policy::NodeStep message, std::vector<uint8_t> bytes) override;
  void feed(const policy::FedToken& token) override;
  void run(RankRun run) override;
  void call(uint64_t id, Method method, const Json& args) override;
  std::optional<RankEvent> take() override;

 private:
  struct Call {
    uint64_t id;
    Method method;
    std::string args;
  };
  using Command = std::variant<policy::NodeStep, policy::FedToken, RankRun, Call>;
  explicit SoloRank(std::function<void()> wake) : wake_(std::move(wake)) {}
  void give(std::deque<Command>& to, Command command);
  void serve(std::deque<Command>& from);
  void perform(Command command);
  RunEnded evaluate(RankRun run);
  void tell(RankEvent event);

  RankContext rank_;                     // mirror: the thread of steps
  Geometry geometry_;
  std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Command> steps_, calls_;    // guarded by mutex_
  std::deque<RankEvent> events_;         // guarded by mutex_
  bool stop_ = false;                    // guarded by mutex_
  std::thread step_thread_, call_thread_;
};

}  // namespace towline::worker
