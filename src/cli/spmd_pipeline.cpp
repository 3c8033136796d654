// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Two nodes that follow each other, as SPMD groups and in driver mode. The batch is cut into two
// lanes, so that both nodes have work; a lane is on one node at a time.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "cli/spmd_load.hpp"
#include "worker/driver_group.hpp"
#include "worker/steady_load.hpp"

namespace towline::cli {
namespace {

using policy::FedToken;
using policy::NodeStep;
using worker::DriverGroup;
using worker::GroupEvent;
using worker::RankCommand;
using worker::RankGroup;
using worker::StepOutput;

worker::RankGroupOptions node_options(const SpmdCell& cell, int node) {
  worker::NullExecutorOptions null;
  null.layers = node == 0 ? LayerRange{0, 2} : LayerRange{2, 4};
  null.compute_us = cell.compute_us;
  null.hidden = 64;
  return worker::null_group(cell.ranks, !cell.solo_thread || cell.ranks > 1, null);
}

// --- SPMD: whoever has a lane's rows hands them on ----------------------------------------------

// Step messages are made one step of a lane ahead, by the thread that calls run(): they need no
// token. What is left between a node's ack and the next node's run is done on the thread that saw
// the ack (a rank that is a thread, or the collector of ranks that are processes): take the rows,
// send them.
//
// Both nodes end their steps at about the same moment, and then each wants the other: nobody may
// hold a lock for longer than it takes to hand something over, and nobody else should want a
// processor. So the maker of steps is not woken as long as there is a step ahead; it looks by
// itself, later.
class SpmdPipeline final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell) {
    std::unique_ptr<SpmdPipeline> self(new SpmdPipeline(cell));
    for (int n = 0; n < 2; ++n) {
      worker::RankGroupOptions options = node_options(cell, n);
      options.team.notify = [s = self.get(), n] { s->turn(n); };
      Node& node = self->nodes_[n];
      const std::lock_guard lock(node.mutex);
      ASSIGN_OR_RETURN(node.group, RankGroup::start(std::move(options)));
    }
    for (int n = 0; n < 2; ++n) {
      Node& node = self->nodes_[n];
      const std::lock_guard lock(node.mutex);
      node.running = true;
      TRY(worker::submit(*node.group, self->load_.admit(n)));
    }
    return std::unique_ptr<SpmdRun>(std::move(self));
  }
  ~SpmdPipeline() override {
    for (Node& node : nodes_) {
      const std::lock_guard lock(node.mutex);
      node.running = false;
    }
    for (Node& node : nodes_) {
      if (node.group) node.group->stop(Duration(0));
    }
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    const int lanes = load_.lanes();
    int made = 0, done = 0;
    Instant started = net::steady_now(), ended{};
    // One step of each lane runs, the next is made.
    for (; made < 2 * lanes; ++made) make(made % lanes);
    while (done < made) {
      ASSIGN_OR_RETURN(const Finished finished, next_done());
      const StepOutput& output = finished.output;
      look_again_after(output.step.lane.value, finished.at);
      ++done;
      if (done == untimed * lanes) started = finished.at;
      if (done == (untimed + steps) * lanes) ended = finished.at;
      load_.finish(output);
      if (made < (untimed + steps + 2) * lanes) {
        make(output.step.lane.value);
        ++made;
      }
    }
    SpmdMeasured m;
    m.step_us = static_cast<double>((ended - started).value) * 1e-3 / steps;
    return m;
  }
  std::vector<pid_t> pids() const override {
    std::vector<pid_t> pids;
    for (const Node& node : nodes_)
      std::ranges::copy(pids_of(node.group->team()), std::back_inserter(pids));
    return pids;
  }

 private:
  explicit SpmdPipeline(const SpmdCell& cell) : load_(cell, true) {}
  struct Made {
    policy::LaneStep step;
    std::vector<uint8_t> bytes;
  };
  struct Finished {
    StepOutput output;
    Instant at;
  };
  struct Node {
    std::mutex mutex;  // guards the rest
    bool running = false;
    std::deque<Made> made;  // in the order of its stream
    std::unique_ptr<RankGroup> group;
  };
  struct Lane {
    int ahead = 0;  // steps made and not begun
    int64_t begun = 0;
    bool waits = true;            // for a step to be made
    std::vector<FedToken> feeds;  // of the step that ended last
  };

  // The lane's next step, for both nodes. If the lane waits for it, it begins.
  void make(int lane) {
    const std::vector<NodeStep> messages = load_.next_of(lane);
    for (size_t n = 0; n < 2; ++n) {
      Made made{{messages[n].lane, messages[n].step}, protocol::encode(messages[n])};
      const std::lock_guard lock(nodes_[n].mutex);
      nodes_[n].made.push_back(std::move(made));
    }
    bool waits = false;
    {
      const std::lock_guard lock(mutex_);
      ++lanes_[lane].ahead;
      waits = lanes_[lane].waits;
    }
    if (waits) note(begin(lane));
  }

  // Runs a lane's step on a node, with all messages of the node's stream up to that step's.
  Result<void> send(int to, policy::LaneStep step, RankCommand command) {
    Node& node = nodes_[to];
    const std::lock_guard lock(node.mutex);
    std::vector<Made> sent;
    const bool there = std::ranges::find(node.made, step, &Made::step) != node.made.end();
    while (there && (sent.empty() || sent.back().step != step)) {
      sent.push_back(std::move(node.made.front()));
      node.made.pop_front();
    }
    for (const Made& m : sent) command.messages.push_back(m.bytes);
    command.runs = {step};
    TRY(node.group->submit(command));
    return {};
  }

  Result<void> begin(int of) {
    RankCommand command;
    policy::LaneStep step{LaneId(of), 0};
    std::vector<FedToken> feeds;
    {
      const std::lock_guard lock(mutex_);
      Lane& lane = lanes_[of];
      lane.waits = lane.ahead == 0;
      if (lane.waits) return {};
      --lane.ahead;
      step.step = lane.begun++;
      feeds = std::move(lane.feeds);
    }
    command.feeds = feeds;
    return send(0, step, std::move(command));
  }

  // Whatever has happened on a node.
  void turn(int n) {
    std::vector<GroupEvent> events;
    {
      Node& node = nodes_[n];
      const std::lock_guard lock(node.mutex);
      if (!node.running) return;
      while (std::optional<GroupEvent> event = node.group->take())
        events.push_back(std::move(*event));
    }
    for (GroupEvent& event : events) note(handle(n, event));
  }
  Result<void> handle(int node, GroupEvent& event) {
    if (!event.ok()) return Error(Code::kInternal, event.error);
    if (event.outputs.empty()) return {};  // sequences were admitted
    StepOutput& output = event.outputs[0];
    if (node == 0) {
      RankCommand command;
      command.hidden = {output.hidden};
      command.hidden_width = 64;
      return send(1, output.step, std::move(command));
    }
    const int lane = output.step.lane.value;
    std::vector<FedToken> feeds;
    feeds.reserve(output.rows.size());
    for (const worker::RowResult& r : output.rows) {
      feeds.push_back({r.slot, r.position, r.token.token});
    }
    {
      const std::lock_guard lock(mutex_);
      lanes_[lane].feeds = std::move(feeds);
    }
    TRY(begin(lane));
    const std::lock_guard lock(mutex_);
    done_.push_back({std::move(output), net::steady_now()});
    if (lanes_[lane].waits) wake_.notify_one();
    return {};
  }
  void note(Result<void> result) {
    if (result) return;
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(result).error();
    wake_.notify_one();
  }
  // Once a round, a quarter of it after a step's end: every node is in the middle of something
  // then.
  void look_again_after(int lane, Instant at) {
    const Duration round = ended_[lane].ns == 0 ? Duration(0) : at - ended_[lane];
    look_at_ = at + round + round / 4;
    ended_[lane] = at;
  }
  Result<Finished> next_done() {
    std::unique_lock lock(mutex_);
    const auto there = [&] { return error_ || !done_.empty(); };
    while (!there()) {
      const Instant look = std::max(look_at_, net::steady_now() + milliseconds(1));
      wake_.wait_for(lock, std::chrono::nanoseconds((look - net::steady_now()).value));
    }
    if (error_) return *error_;
    Finished finished = std::move(done_.front());
    done_.pop_front();
    return finished;
  }

  // The thread's of run().
  ScheduledLoad load_;
  Instant ended_[2]{};  // by lane: its last step known to have ended
  Instant look_at_{};
  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  Lane lanes_[2];
  std::deque<Finished> done_;
  std::optional<Error> error_;
  Node nodes_[2];  // their groups' threads call turn()
};

// --- driver: node 0 on this thread, node 1's driver on another ----------------------------------

class DriverPipeline final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell) {
    std::unique_ptr<DriverPipeline> self(new DriverPipeline(cell));
    for (int n = 0; n < 2; ++n) {
      ASSIGN_OR_RETURN(self->groups_[n], DriverGroup::start(node_options(cell, n)));
      TRY(self->groups_[n]->step(self->load_.admit(n)));
    }
    self->second_ = std::thread([s = self.get()] { s->serve_second(); });
    return std::unique_ptr<SpmdRun>(std::move(self));
  }
  ~DriverPipeline() override {
    put({});
    if (second_.joinable()) second_.join();
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    const int lanes = load_.lanes();
    Instant started{}, ended{};
    int in_flight = 0;
    for (int i = 0; i < untimed + steps + 1; ++i) {
      if (i == untimed) started = net::steady_now();
      if (i == untimed + steps) ended = net::steady_now();
      for (int lane = 0; lane < lanes; ++lane) {
        // The lane's tokens of the round before are needed now; the other lane may be on node 1.
        if (in_flight == lanes) {
          TRY(collect());
          --in_flight;
        }
        std::vector<NodeStep> messages = load_.next_of(lane);
        ASSIGN_OR_RETURN(std::vector<StepOutput> rows, groups_[0]->step(messages[0]));
        put(Work{std::move(messages[1]), std::move(rows[0].hidden)});
        ++in_flight;
      }
    }
    for (; in_flight > 0; --in_flight) TRY(collect());
    SpmdMeasured m;
    m.step_us = static_cast<double>((ended - started).value) * 1e-3 / steps;
    return m;
  }
  std::vector<pid_t> pids() const override {
    std::vector<pid_t> pids;
    for (const auto& group : groups_)
      std::ranges::copy(pids_of(group->team()), std::back_inserter(pids));
    return pids;
  }

 private:
  explicit DriverPipeline(const SpmdCell& cell) : load_(cell, false) {}
  struct Work {
    NodeStep message;
    std::vector<float> hidden;
  };
  using Answer = Result<std::vector<StepOutput>>;

  Result<void> collect() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return !answers_.empty(); });
    Answer answer = std::move(answers_.front());
    answers_.pop_front();
    lock.unlock();
    TRY(answer);
    load_.finish((*answer)[0]);
    return {};
  }
  void put(std::optional<Work> work) {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    wake_.notify_all();
  }
  void serve_second() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !work_.empty(); });
      const std::optional<Work> work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      if (!work) return;
      Answer answer = groups_[1]->step(work->message, work->hidden);
      lock.lock();
      answers_.push_back(std::move(answer));
      wake_.notify_all();
    }
  }

  ScheduledLoad load_;
  std::unique_ptr<DriverGroup> groups_[2];
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::optional<Work>> work_;
  std::deque<Answer> answers_;
  std::thread second_;
};

}  // namespace

Result<std::unique_ptr<SpmdRun>> start_pipeline(const SpmdCell& cell) {
  return cell.arm == SpmdArm::kDriver ? DriverPipeline::start(cell) : SpmdPipeline::start(cell);
}

}  // namespace towline::cli
