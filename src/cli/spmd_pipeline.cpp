// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Two stages that follow each other: as the stages of one SPMD group, and in driver mode. The batch is
// cut into two lanes, so that both stages have work; a lane is in one stage at a time.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <mutex>
#include <optional>
#include <thread>

#include "cli/spmd_load.hpp"
#include "worker/driver_group.hpp"
#include "worker/steady_load.hpp"

namespace towline::cli {
namespace {

using policy::NodeStep;
using worker::DriverGroup;
using worker::StepOutput;

worker::RankGroupOptions node_options(const SpmdCell& cell, int node) {
  worker::NullExecutorOptions null;
  null.layers = node == 0 ? LayerRange{0, 2} : LayerRange{2, 4};
  null.compute_us = cell.compute_us;
  null.hidden = 64;
  return worker::null_group(cell.ranks, !cell.solo_thread || cell.ranks > 1, null);
}

// --- SPMD: one node of two stages ---------------------------------------------------------------

// All ranks of both stages read the same steps; they hand rows and tokens on by themselves
// (worker/stage_link.hpp).
class SpmdStages final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell) {
    std::unique_ptr<SpmdStages> self(new SpmdStages(cell));
    worker::NullExecutorOptions null;
    null.layers = {0, 4};
    null.compute_us = cell.compute_us;
    null.hidden = 64;
    const bool processes = !cell.solo_thread || cell.ranks > 1;
    worker::RankGroupOptions options =
        worker::null_group(cell.ranks, processes, null, cell.stages);
    ASSIGN_OR_RETURN(self->group_, worker::RankGroup::start(std::move(options)));
    TRY(worker::submit(*self->group_, self->load_.admit()));
    TRY(self->receive());
    return std::unique_ptr<SpmdRun>(std::move(self));
  }
  Result<SpmdMeasured> run(int untimed, int steps) override {
    const int lanes = load_.lanes();
    int made = 0;
    Instant started = net::steady_now(), ended{};
    // One step of each lane runs, the next is made.
    for (; made < 2 * lanes; ++made) TRY(worker::submit(*group_, load_.next_of(made % lanes)[0]));
    for (int done = 0; done < made;) {
      TRY(receive());
      ++done;
      if (done == untimed * lanes) started = net::steady_now();
      if (done == (untimed + steps) * lanes) ended = net::steady_now();
      if (made >= (untimed + steps + 2) * lanes) continue;
      TRY(worker::submit(*group_, load_.next_of(made % lanes)[0]));
      ++made;
    }
    SpmdMeasured m;
    m.step_us = static_cast<double>((ended - started).value) * 1e-3 / steps;
    return m;
  }
  std::vector<pid_t> pids() const override { return pids_of(group_->team()); }

 private:
  explicit SpmdStages(const SpmdCell& cell) : load_(cell, true) {}
  Result<void> receive() {
    std::optional<worker::GroupEvent> event = group_->wait(net::deadline_in(seconds(30)));
    if (!event) return Error(Code::kUnavailable, "the ranks did not answer");
    if (!event->ok()) return Error(Code::kInternal, event->error);
    for (const StepOutput& output : event->outputs) load_.finish(output);
    return {};
  }
  ScheduledLoad load_;
  std::unique_ptr<worker::RankGroup> group_;
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
  explicit DriverPipeline(const SpmdCell& cell) : load_(cell, false, 2) {}
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
  if (cell.arm == SpmdArm::kDriver) return DriverPipeline::start(cell);
  return SpmdStages::start(cell);
}

}  // namespace towline::cli
