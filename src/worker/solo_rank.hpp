// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SoloRank: the one rank of a node without tensor parallelism, as threads of the node's process:
// one for steps, runs and in-band calls, one for the calls that must work meanwhile. It keeps its
// own mirror, applies what the agent forwards in the agent's order, and evaluates runs one at a
// time; what a run samples it feeds to its mirror, as every rank does. A message is applied when it
// comes, so that its run finds everything ready; tokens wait for whatever follows them. Each thread
// sleeps on a word of its own, after yielding for a while if that has paid lately
// (net::YieldPhase): the next run is often given within microseconds.
//
// Threading: worker/node_ranks.hpp.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "net/broadcast_ring.hpp"
#include "worker/node_ranks.hpp"

namespace towline::worker {

class SoloRank final : public NodeRanks {
 public:
  static Result<std::unique_ptr<SoloRank>> start(const NodeRanksOptions& options,
                                                 ExecutorFactory factory);
  ~SoloRank() override;

  const Geometry& geometry() const override { return geometry_; }
  void step(policy::NodeStep message, std::vector<uint8_t> bytes) override;
  void feed(std::vector<policy::FedToken> tokens) override;
  void run(RankRun run) override;
  void call(uint64_t id, Method method, const Json& args) override;
  std::optional<RankEvent> take() override;

 private:
  struct Call {
    uint64_t id;
    Method method;
    std::string args;
  };
  using Command = std::variant<policy::NodeStep, std::vector<policy::FedToken>, RankRun, Call>;
  // What a thread has to do, in order.
  class Queue {
   public:
    explicit Queue(Duration yield_for) { yields_.yield_for = yield_for; }
    void give(Command command, bool wakes);
    void end();
    bool ended() const { return ended_; }
    // Waits for something that wakes. False: nothing more is to be done.
    bool take(std::vector<Command>& into);

   private:
    void wake();
    bool there() const { return given_.load() != taken_; }

    std::mutex mutex_;
    std::vector<Command> waiting_;       // guarded by mutex_
    std::atomic<bool> ended_{false};
    std::atomic<uint32_t> given_{0};     // times that something was given that wakes
    uint32_t taken_ = 0;                 // the taker's
    net::YieldPhase yields_{};           // the taker's
  };

  explicit SoloRank(std::function<void()> wake);
  void serve(Queue& from);
  void perform(Command command);
  RunEnded evaluate(RankRun run);
  void tell(RankEvent event);

  RankContext rank_;                     // mirror: the thread of steps
  Geometry geometry_;
  std::function<void()> wake_;
  Queue steps_, calls_;
  std::mutex mutex_;
  std::deque<RankEvent> events_;         // guarded by mutex_
  std::vector<std::vector<Row>> rows_;   // working memory of evaluate()
  std::vector<RunItem> items_;
  std::vector<policy::FedToken> sampled_;
  std::thread step_thread_, call_thread_;
};

}  // namespace towline::worker
