// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Two nodes that follow each other, as SPMD nodes and in driver mode. The batch is cut into two
// lanes, so that both nodes have work; a lane is on one node at a time.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "cli/spmd_load.hpp"
#include "policy/peer.hpp"
#include "worker/driver_group.hpp"
#include "worker/group_ranks.hpp"
#include "worker/solo_rank.hpp"
#include "worker/steady_load.hpp"

namespace towline::cli {
namespace {

using policy::FedToken;
using policy::NodeStep;
using policy::PeerAction;
using worker::DriverGroup;
using worker::RankEvent;
using worker::RunEnded;
using worker::StepOutput;

worker::RankGroupOptions node_options(const SpmdCell& cell, int node) {
  worker::NullExecutorOptions null;
  null.layers = node == 0 ? LayerRange{0, 2} : LayerRange{2, 4};
  null.compute_us = cell.compute_us;
  null.hidden = 64;
  return worker::null_group(cell.ranks, !cell.solo_thread || cell.ranks > 1, null);
}

// --- SPMD: each node decides for itself ---------------------------------------------------------

// A worker's node without its network: policy::Peer decides what runs, the ranks that a worker has
// (worker/node_ranks.hpp) run it. Any thread, one at a time.
class PipelineNode {
 public:
  Result<void> start(const SpmdCell& cell, int node, std::function<void()> wake) {
    const std::lock_guard lock(mutex_);
    worker::RankGroupOptions options = node_options(cell, node);
    worker::NodeRanksOptions ranks;
    ranks.ranks = cell.ranks;
    ranks.executor = options.executor;
    ranks.limits = options.limits;
    ranks.wake = std::move(wake);
    if (cell.ranks == 1) {
      ASSIGN_OR_RETURN(ranks_, worker::SoloRank::start(ranks, worker::make_executor));
    } else {
      ASSIGN_OR_RETURN(std::unique_ptr<worker::GroupRanks> group,
                       worker::GroupRanks::start(ranks, std::move(options.team)));
      team_ = &group->group().team();
      ranks_ = std::move(group);
    }
    policy::PeerLimits limits;
    limits.mirror = options.limits;
    peer_.emplace(limits);
    running_ = true;
    return {};
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    running_ = false;
  }
  void end() { ranks_.reset(); }
  std::vector<pid_t> pids() const {
    return team_ == nullptr ? std::vector<pid_t>() : pids_of(*team_);
  }

  Result<void> message(NodeStep message) {
    std::vector<uint8_t> bytes = protocol::encode(message);
    const std::lock_guard lock(mutex_);
    std::vector<PeerAction> actions;
    peer_->on_message(std::move(message), actions);
    return perform(actions, std::move(bytes));
  }
  Result<void> input(policy::LaneStep step, int32_t rows, std::vector<float> hidden) {
    const std::lock_guard lock(mutex_);
    std::vector<PeerAction> actions;
    const policy::InputId id(next_input_++);
    inputs_[id.value] = std::move(hidden);
    peer_->on_input(step, rows, id, actions);
    return perform(actions);
  }
  Result<void> feed(std::vector<FedToken> tokens) {
    const std::lock_guard lock(mutex_);
    std::vector<PeerAction> actions;
    peer_->on_feed(std::move(tokens), actions);
    return perform(actions);
  }
  // What it sampled itself, if anything.
  Result<void> run_done(std::vector<FedToken> tokens) {
    const std::lock_guard lock(mutex_);
    std::vector<PeerAction> actions;
    if (!tokens.empty()) peer_->on_feed(std::move(tokens), actions);
    peer_->on_run_done(actions);
    std::erase_if(actions, [](const PeerAction& action) {  // the ranks know
      return std::holds_alternative<policy::ForwardFeed>(action);
    });
    return perform(actions);
  }
  std::vector<RankEvent> take() {
    const std::lock_guard lock(mutex_);
    std::vector<RankEvent> events;
    while (running_) {
      std::optional<RankEvent> event = ranks_->take();
      if (!event) break;
      events.push_back(std::move(*event));
    }
    return events;
  }

 private:
  Result<void> perform(std::vector<PeerAction>& actions, std::vector<uint8_t> bytes = {}) {
    if (!running_) return {};
    for (PeerAction& action : actions) {
      if (auto* step = std::get_if<policy::ForwardStep>(&action)) {
        ranks_->step(std::move(step->message), std::move(bytes));
      } else if (auto* feed = std::get_if<policy::ForwardFeed>(&action)) {
        ranks_->feed(std::move(feed->tokens));
      } else if (auto* run = std::get_if<policy::RunSteps>(&action)) {
        ranks_->run(job_of(std::move(*run)));
      } else {
        return Error(Code::kInternal, "a node does not follow its messages");
      }
    }
    return {};
  }
  worker::RankRun job_of(policy::RunSteps run) {
    worker::RankRun job;
    job.pieces = std::move(run.pieces);
    const auto width = static_cast<size_t>(ranks_->geometry().hidden_width);
    for (const policy::RunPiece& piece : job.pieces) {
      auto input = inputs_.extract(piece.input.value);
      std::vector<float> rows = input ? std::move(input.mapped()) : std::vector<float>();
      rows.resize(static_cast<size_t>(piece.row_count()) * width);
      if (job.hidden.empty()) {
        job.hidden = std::move(rows);
      } else {
        job.hidden.insert(job.hidden.end(), rows.begin(), rows.end());
      }
    }
    return job;
  }

  std::mutex mutex_;  // guards the rest
  bool running_ = false;
  std::optional<policy::Peer> peer_;
  std::map<int64_t, std::vector<float>> inputs_;
  int64_t next_input_ = 0;
  worker::RankTeam* team_ = nullptr;  // of ranks that are processes
  std::unique_ptr<worker::NodeRanks> ranks_;
};

// Step messages are made one step of a lane ahead, by the thread that calls run(): they need no
// token, and the ranks have them applied before they are wanted. What is left between the end of a
// node's run and the next node's is done on the thread that saw the end (a rank that is a thread,
// or the collector of ranks that are processes): rows from the first node to the second, tokens
// from the second straight to the first.
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
      TRY(self->nodes_[n].start(cell, n, [s = self.get(), n] { s->turn(n); }));
    }
    for (int n = 0; n < 2; ++n) TRY(self->nodes_[n].message(self->load_.admit(n)));
    return std::unique_ptr<SpmdRun>(std::move(self));
  }
  ~SpmdPipeline() override {
    for (PipelineNode& node : nodes_) node.stop();
    for (PipelineNode& node : nodes_) node.end();
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    const int lanes = load_.lanes();
    int made = 0, done = 0;
    Instant started = net::steady_now(), ended{};
    // One step of each lane runs, the next is made.
    for (; made < 2 * lanes; ++made) TRY(make(made % lanes));
    while (done < made) {
      ASSIGN_OR_RETURN(const Finished finished, next_done());
      const StepOutput& output = finished.output;
      look_again_after(output.step.lane.value, finished.at);
      ++done;
      if (done == untimed * lanes) started = finished.at;
      if (done == (untimed + steps) * lanes) ended = finished.at;
      load_.finish(output);
      if (made < (untimed + steps + 2) * lanes) {
        TRY(make(output.step.lane.value));
        ++made;
      }
    }
    SpmdMeasured m;
    m.step_us = static_cast<double>((ended - started).value) * 1e-3 / steps;
    return m;
  }
  std::vector<pid_t> pids() const override {
    std::vector<pid_t> pids;
    for (const PipelineNode& node : nodes_)
      std::ranges::copy(node.pids(), std::back_inserter(pids));
    return pids;
  }

 private:
  explicit SpmdPipeline(const SpmdCell& cell) : load_(cell, true) {}
  struct Finished {
    StepOutput output;
    Instant at;
  };

  // The lane's next step, for both nodes.
  Result<void> make(int lane) {
    {
      const std::lock_guard lock(mutex_);
      ++unfinished_[lane];
    }
    std::vector<NodeStep> messages = load_.next_of(lane);
    for (int n = 0; n < 2; ++n) {
      TRY(nodes_[n].message(std::move(messages[static_cast<size_t>(n)])));
      turn(n);  // as an agent does after each message: it sends on what waits
    }
    return {};
  }

  // Whatever has happened on a node.
  void turn(int n) {
    for (RankEvent& event : nodes_[n].take()) {
      Result<void> handled = handle(n, event);
      if (handled) continue;
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::move(handled).error();
      wake_.notify_one();
    }
  }
  Result<void> handle(int n, RankEvent& event) {
    auto* done = std::get_if<RunEnded>(&event);
    if (done == nullptr) return Error(Code::kInternal, "the ranks are lost");
    if (done->error) return std::move(*done->error);
    return n == 0 ? pass_on(*done) : feed_back(*done);
  }
  // A run has one step, of one lane, unless some other program kept a thread from its processor.
  Result<void> pass_on(RunEnded& done) {
    const std::vector<policy::RunPiece>& pieces = done.run.pieces;
    size_t rows = 0;
    for (const policy::RunPiece& piece : pieces) rows += static_cast<size_t>(piece.row_count());
    const size_t width = done.run.hidden.size() / std::max<size_t>(rows, 1);
    size_t at = 0;
    for (const policy::RunPiece& piece : pieces) {
      const size_t floats = static_cast<size_t>(piece.row_count()) * width;
      const float* from = done.run.hidden.data() + at;
      std::vector<float> hidden = pieces.size() == 1 ? std::move(done.run.hidden)
                                                     : std::vector<float>(from, from + floats);
      at += floats;
      TRY(nodes_[1].input(piece.step, piece.row_count(), std::move(hidden)));
    }
    return nodes_[0].run_done({});
  }
  Result<void> feed_back(RunEnded& done) {
    std::vector<FedToken> all;
    std::vector<Finished> finished;
    for (const policy::RunPiece& piece : done.run.pieces) {
      std::vector<FedToken> tokens;
      tokens.reserve(piece.rows.size());
      Finished& f = finished.emplace_back(Finished{{piece.step, {}, 0, {}}, {}});
      for (worker::RowResult& r : done.results) {
        if (r.step != piece.step) continue;
        tokens.push_back({r.slot, r.position, r.token.token});
        f.output.rows.push_back(std::move(r));
      }
      all.insert(all.end(), tokens.begin(), tokens.end());
      TRY(nodes_[0].feed(std::move(tokens)));
      f.at = net::steady_now();
    }
    TRY(nodes_[1].run_done(std::move(all)));
    const std::lock_guard lock(mutex_);
    for (Finished& f : finished) {
      const auto lane = static_cast<size_t>(f.output.step.lane.value);
      done_.push_back(std::move(f));
      if (--unfinished_[lane] == 0) wake_.notify_one();
    }
    return {};
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
  int unfinished_[2]{};  // by lane: steps made
  std::deque<Finished> done_;
  std::optional<Error> error_;
  PipelineNode nodes_[2];  // their ranks' threads call turn()
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
