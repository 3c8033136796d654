// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Two nodes that follow each other, as SPMD groups and in driver mode. The batch is cut into two
// lanes, so that both nodes have work; a lane is on one node at a time.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "cli/spmd_bench.hpp"
#include "worker/driver_group.hpp"
#include "worker/steady_load.hpp"

namespace towline::cli {
namespace {

using policy::DeltaForm;
using policy::FedToken;
using policy::LaneHop;
using policy::NodeStep;
using worker::DriverGroup;
using worker::GroupEvent;
using worker::RankCommand;
using worker::RankGroup;
using worker::StepOutput;

// The coordinator's side of both nodes for all lanes: one stream a node, lanes in it.
class TwoNodes {
 public:
  TwoNodes(const SpmdCell& cell, bool fed) : cell_(cell), fed_(fed) {
    lanes_ = cell.batch > 1 ? 2 : 1;
    const DeltaForm form = fed ? DeltaForm::kImplied : DeltaForm::kExplicit;
    for (int n = 0; n < 2; ++n) senders_.emplace_back(worker::SteadyLoad::limits(32000), Epoch(1), form);
    computed_.resize(static_cast<size_t>(cell.batch), cell.context - 1);
  }
  int lanes() const { return lanes_; }
  int begin_of(int lane) const { return cell_.batch * lane / lanes_; }
  int size_of(int lane) const { return begin_of(lane + 1) - begin_of(lane); }

  NodeStep admit(int node) {
    NodeStep step;
    for (int lane = 0; lane < lanes_; ++lane) {
      LaneHop hop{LaneId(lane), {0, 2}, NodeId(-1), NodeId(1), NodeId(0)};
      if (node == 1) hop = {LaneId(lane), {2, 4}, NodeId(0), NodeId(-1), NodeId(0)};
      step.opened.push_back(hop);
      for (int i = begin_of(lane); i < begin_of(lane + 1); ++i) step.fresh.push_back(fresh(i, lane));
    }
    return *senders_[static_cast<size_t>(node)].next(std::move(step));
  }
  // The lane's next step, for both nodes.
  std::vector<NodeStep> next(int lane) {
    NodeStep step;
    step.lane = LaneId(lane);
    step.step = steps_[lane]++;
    for (int i = begin_of(lane); i < begin_of(lane + 1); ++i) {
      int32_t& at = computed_[static_cast<size_t>(i)];
      if (at % 16 == 0) {
        step.new_blocks.push_back({static_cast<uint32_t>(step.rows.size()), i * 512 + at / 16});
      }
      policy::StepRow row{static_cast<uint32_t>(i), at, 1, policy::StepRow::kSamples, 0};
      if (step.step > 0) {
        row.flags |= fed_ ? policy::StepRow::kFed : policy::StepRow::kToken;
        if (!fed_) row.token = worker::NullExecutor::token_of(SeqId(i), at, 32000);
      }
      step.rows.push_back(row);
      ++at;
    }
    std::vector<NodeStep> out;
    for (policy::StepSender& sender : senders_) out.push_back(*sender.next(step));
    return out;
  }
  void learn(const StepOutput& output) {
    std::vector<FedToken> sampled;
    for (const worker::RowResult& r : output.rows) {
      if (fed_) sampled.push_back({r.slot, r.position, r.token.token});
    }
    for (policy::StepSender& sender : senders_) {
      (void)sender.learn(sampled);
      sender.completed(output.step);
    }
  }

 private:
  policy::FreshSlot fresh(int i, int lane) const {
    policy::FreshSlot f;
    f.slot = {static_cast<uint32_t>(i), 1};
    f.lane = LaneId(lane);
    f.spec.seq = SeqId(i);
    f.computed = cell_.context - 1;
    f.spec.prompt_length = cell_.context;
    for (int32_t p = 0; p < cell_.context; ++p) {
      f.tokens.push_back(worker::NullExecutor::token_of(f.spec.seq, p, 32000));
    }
    for (int32_t b = 0; b * 16 < f.computed; ++b) f.blocks.push_back(i * 512 + b);
    return f;
  }

  SpmdCell cell_;
  bool fed_;
  int lanes_ = 1;
  std::vector<policy::StepSender> senders_;
  std::vector<int32_t> computed_;
  int64_t steps_[2] = {0, 0};
};

worker::RankGroupOptions node_options(const SpmdCell& cell, int node) {
  worker::NullExecutorOptions null;
  null.layers = node == 0 ? LayerRange{0, 2} : LayerRange{2, 4};
  null.compute_us = cell.compute_us;
  null.hidden = 64;
  return worker::null_group(cell.ranks, !cell.solo_thread || cell.ranks > 1, null);
}

// --- SPMD: whoever has a lane's rows hands them on ----------------------------------------------

// Step messages are made one step of a lane ahead, by the thread that calls run(): they need no token.
// What is left between a node's ack and the next node's run is done on the thread that saw the ack
// (a rank that is a thread, or the collector of ranks that are processes): take the rows, send them.
class SpmdPipeline final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell) {
    std::unique_ptr<SpmdPipeline> self(new SpmdPipeline(cell));
    for (int n = 0; n < 2; ++n) {
      worker::RankGroupOptions options = node_options(cell, n);
      options.team.notify = [s = self.get()] { s->turn(); };
      ASSIGN_OR_RETURN(self->groups_[n], RankGroup::start(std::move(options)));
    }
    const std::lock_guard lock(self->mutex_);
    self->running_ = true;
    for (int n = 0; n < 2; ++n) TRY(worker::submit(*self->groups_[n], self->nodes_.admit(n)));
    return std::unique_ptr<SpmdRun>(std::move(self));
  }
  ~SpmdPipeline() override {
    {
      const std::lock_guard lock(mutex_);
      running_ = false;
    }
    for (auto& group : groups_) {
      if (group) group->stop(Duration(0));
    }
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    const int lanes = nodes_.lanes();
    int made = 0, done = 0;
    Instant started = net::steady_now(), ended{};
    // One step of each lane runs, the next is made.
    for (; made < 2 * lanes; ++made) make(made % lanes);
    while (done < made) {
      ASSIGN_OR_RETURN(const Finished finished, next_done());
      const StepOutput& output = finished.output;
      ++done;
      if (done == untimed * lanes) started = finished.at;
      if (done == (untimed + steps) * lanes) ended = finished.at;
      nodes_.learn(output);
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
    for (const auto& group : groups_) std::ranges::copy(pids_of(group->team()), std::back_inserter(pids));
    return pids;
  }

 private:
  explicit SpmdPipeline(const SpmdCell& cell) : nodes_(cell, true) {}
  struct Made {
    policy::LaneStep step;
    std::vector<uint8_t> bytes;
  };
  struct Finished {
    StepOutput output;
    Instant at;
  };

  // The lane's next step, for both nodes. If the lane waits for it, it begins.
  void make(int lane) {
    const std::vector<NodeStep> messages = nodes_.next(lane);
    const std::lock_guard lock(mutex_);
    for (size_t n = 0; n < 2; ++n) {
      made_[n].push_back({{messages[n].lane, messages[n].step}, protocol::encode(messages[n])});
    }
    ++ahead_[lane];
    if (waits_[lane]) note(begin(lane));
  }

  // Runs a lane's step on a node, with all messages of the node's stream up to that step's.
  Result<void> send(int node, policy::LaneStep step, RankCommand command) {
    std::deque<Made>& made = made_[node];
    std::vector<Made> sent;
    const bool there = std::ranges::find(made, step, &Made::step) != made.end();
    while (there && (sent.empty() || sent.back().step != step)) {
      sent.push_back(std::move(made.front()));
      made.pop_front();
    }
    for (const Made& m : sent) command.messages.push_back(m.bytes);
    command.runs = {step};
    TRY(groups_[node]->submit(command));
    return {};
  }

  Result<void> begin(int lane) {
    waits_[lane] = ahead_[lane] == 0;
    if (waits_[lane]) return {};
    --ahead_[lane];
    RankCommand command;
    command.feeds = feeds_[lane];
    return send(0, {LaneId(lane), begun_[lane]++}, std::move(command));
  }

  // Whatever has happened on either node.
  void turn() {
    const std::lock_guard lock(mutex_);
    if (!running_) return;
    for (int n = 0; n < 2; ++n) {
      while (std::optional<GroupEvent> event = groups_[n]->take()) note(handle(n, *event));
    }
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
    feeds_[lane].clear();
    for (const worker::RowResult& r : output.rows) {
      feeds_[lane].push_back({r.slot, r.position, r.token.token});
    }
    TRY(begin(lane));
    done_.push_back({std::move(output), net::steady_now()});
    // Waking costs this rank 10 to 20 us; with a step of each lane made ahead once a round will do.
    if (waits_[lane] || done_.size() >= static_cast<size_t>(nodes_.lanes())) wake_.notify_one();
    return {};
  }
  // Guarded by mutex_.
  void note(Result<void> result) {
    if (result || error_) return;
    error_ = std::move(result).error();
    wake_.notify_one();
  }
  Result<Finished> next_done() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return error_ || !done_.empty(); });
    if (error_) return *error_;
    Finished finished = std::move(done_.front());
    done_.pop_front();
    return finished;
  }

  TwoNodes nodes_;                    // the thread's of run()
  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  bool running_ = false;
  std::deque<Made> made_[2];          // by node, in the order of its stream
  std::vector<FedToken> feeds_[2];    // by lane, of the step that ended last
  int ahead_[2] = {0, 0};             // steps made and not begun
  int64_t begun_[2] = {0, 0};
  bool waits_[2] = {true, true};      // for a step to be made
  std::deque<Finished> done_;
  std::optional<Error> error_;
  std::unique_ptr<RankGroup> groups_[2];  // their threads call turn()
};

// --- driver: node 0 on this thread, node 1's driver on another ----------------------------------

class DriverPipeline final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell) {
    std::unique_ptr<DriverPipeline> self(new DriverPipeline(cell));
    for (int n = 0; n < 2; ++n) {
      ASSIGN_OR_RETURN(self->groups_[n], DriverGroup::start(node_options(cell, n)));
      TRY(self->groups_[n]->step(self->nodes_.admit(n)));
    }
    self->second_ = std::thread([s = self.get()] { s->serve_second(); });
    return std::unique_ptr<SpmdRun>(std::move(self));
  }
  ~DriverPipeline() override {
    put({});
    if (second_.joinable()) second_.join();
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    const int lanes = nodes_.lanes();
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
        std::vector<NodeStep> messages = nodes_.next(lane);
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
    for (const auto& group : groups_) std::ranges::copy(pids_of(group->team()), std::back_inserter(pids));
    return pids;
  }

 private:
  explicit DriverPipeline(const SpmdCell& cell) : nodes_(cell, false) {}
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
    nodes_.learn((*answer)[0]);
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

  TwoNodes nodes_;
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
