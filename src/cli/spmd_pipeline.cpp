// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Two nodes that follow each other, as SPMD groups and in driver mode. The batch is cut into two
// lanes, so that both nodes have work; a lane is on one node at a time.
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

constexpr int kWarmUp = 30;

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
    for (policy::StepSender& sender : senders_) {
      for (const worker::RowResult& r : output.rows) {
        if (fed_) (void)sender.learn(r.slot, r.position, r.token.token);
      }
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
  return worker::null_group(cell.ranks, true, null);
}

// --- SPMD: one thread waits for either node -----------------------------------------------------

class SpmdPipeline {
 public:
  explicit SpmdPipeline(const SpmdCell& cell) : cell_(cell), nodes_(cell, true) {}

  Result<SpmdMeasured> run() {
    for (int n = 0; n < 2; ++n) {
      worker::RankGroupOptions options = node_options(cell_, n);
      options.team.notify = [this] { ring(); };
      ASSIGN_OR_RETURN(groups_[n], RankGroup::start(std::move(options)));
    }
    for (int n = 0; n < 2; ++n) {
      TRY(worker::submit(*groups_[n], nodes_.admit(n)));
      ASSIGN_OR_RETURN(const GroupEvent event, next(n));
      (void)event;
    }
    for (int lane = 0; lane < nodes_.lanes(); ++lane) TRY(begin(lane));
    const int total = (kWarmUp + cell_.steps) * nodes_.lanes();
    Instant started{};
    for (int done = 0; done < total;) {
      if (done == kWarmUp * nodes_.lanes()) started = net::steady_now();
      ASSIGN_OR_RETURN(const int finished, turn());
      done += finished;
    }
    SpmdMeasured m;
    m.step_us = static_cast<double>((net::steady_now() - started).value) * 1e-3 / cell_.steps;
    for (auto& group : groups_) group->stop(Duration(0));
    return m;
  }

 private:
  void ring() {
    const std::lock_guard lock(mutex_);
    ++bell_;
    wake_.notify_one();
  }
  Result<GroupEvent> next(int node) {
    for (;;) {
      const uint64_t seen = bell();
      if (std::optional<GroupEvent> event = groups_[node]->take()) {
        if (!event->ok()) return Error(Code::kInternal, event->error);
        return std::move(*event);
      }
      sleep(seen);
    }
  }
  uint64_t bell() {
    const std::lock_guard lock(mutex_);
    return bell_;
  }
  void sleep(uint64_t seen) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return bell_ != seen; });
  }

  // The lane's next step goes to both nodes; the first one can run it.
  Result<void> begin(int lane) {
    const std::vector<NodeStep> messages = nodes_.next(lane);
    const std::vector<uint8_t> bytes = protocol::encode(messages[0]);
    RankCommand command;
    command.messages = {bytes};
    command.feeds = feeds_[lane];
    command.runs = {{messages[0].lane, messages[0].step}};
    TRY(groups_[0]->submit(command));
    waiting_[lane] = protocol::encode(messages[1]);
    return {};
  }

  // Whatever has happened on either node. Returns the lane steps that ended.
  Result<int> turn() {
    const uint64_t seen = bell();
    int finished = 0;
    bool any = false;
    while (std::optional<GroupEvent> event = groups_[0]->take()) {
      any = true;
      if (!event->ok()) return Error(Code::kInternal, event->error);
      const StepOutput& output = event->outputs.at(0);
      RankCommand command;
      command.messages = {waiting_[output.step.lane.value]};
      command.runs = {output.step};
      command.hidden = {output.hidden};
      command.hidden_width = 64;
      TRY(groups_[1]->submit(command));
    }
    while (std::optional<GroupEvent> event = groups_[1]->take()) {
      any = true;
      if (!event->ok()) return Error(Code::kInternal, event->error);
      const StepOutput& output = event->outputs.at(0);
      const int lane = output.step.lane.value;
      feeds_[lane].clear();
      for (const worker::RowResult& r : output.rows) {
        feeds_[lane].push_back({r.slot, r.position, r.token.token});
      }
      nodes_.learn(output);
      ++finished;
      TRY(begin(lane));
    }
    if (!any) sleep(seen);
    return finished;
  }

  SpmdCell cell_;
  TwoNodes nodes_;
  std::vector<FedToken> feeds_[2];
  std::vector<uint8_t> waiting_[2];
  std::mutex mutex_;
  std::condition_variable wake_;
  uint64_t bell_ = 0;
  std::unique_ptr<RankGroup> groups_[2];  // their threads ring the bell: gone first
};

// --- driver: node 0 on this thread, node 1's driver on another ----------------------------------

class DriverPipeline {
 public:
  explicit DriverPipeline(const SpmdCell& cell) : cell_(cell), nodes_(cell, false) {}

  Result<SpmdMeasured> run() {
    for (int n = 0; n < 2; ++n) {
      ASSIGN_OR_RETURN(groups_[n], DriverGroup::start(node_options(cell_, n)));
      TRY(groups_[n]->step(nodes_.admit(n)));
    }
    std::thread second([this] { serve_second(); });
    const Result<double> us = drive();
    put({});
    second.join();
    TRY(us);
    SpmdMeasured m;
    m.step_us = *us;
    return m;
  }

 private:
  struct Work {
    NodeStep message;
    std::vector<float> hidden;
  };
  using Answer = Result<std::vector<StepOutput>>;

  Result<double> drive() {
    Instant started{};
    for (int i = 0; i < kWarmUp + cell_.steps; ++i) {
      if (i == kWarmUp) started = net::steady_now();
      for (int lane = 0; lane < nodes_.lanes(); ++lane) {
        // The lane's tokens of the round before are needed now; the other lane may be on node 1.
        if (i > 0) TRY(collect());
        std::vector<NodeStep> messages = nodes_.next(lane);
        ASSIGN_OR_RETURN(std::vector<StepOutput> rows, groups_[0]->step(messages[0]));
        put(Work{std::move(messages[1]), std::move(rows[0].hidden)});
      }
    }
    for (int lane = 0; lane < nodes_.lanes(); ++lane) TRY(collect());
    return static_cast<double>((net::steady_now() - started).value) * 1e-3 / cell_.steps;
  }
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

  SpmdCell cell_;
  TwoNodes nodes_;
  std::unique_ptr<DriverGroup> groups_[2];
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::optional<Work>> work_;
  std::deque<Answer> answers_;
};

}  // namespace

Result<SpmdMeasured> measure_pipeline(const SpmdCell& cell) {
  if (cell.arm == SpmdArm::kDriver) return DriverPipeline(cell).run();
  return SpmdPipeline(cell).run();
}

}  // namespace towline::cli
