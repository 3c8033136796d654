// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/spmd_bench.hpp"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <map>

#include "base/fmt.hpp"
#include "cli/spmd_load.hpp"
#include "protocol/varint_codec.hpp"
#include "worker/driver_group.hpp"
#include "worker/steady_load.hpp"

namespace towline::cli {
namespace {

using policy::DeltaForm;
using policy::NodeStep;
using worker::DriverGroup;
using worker::GroupEvent;
using worker::RankCommand;
using worker::RankGroup;
using worker::SteadyLoad;

double micros(Duration d) { return static_cast<double>(d.value) * 1e-3; }

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  const auto at = static_cast<size_t>(p * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

// Processor time of this process and of living children, in microseconds.
double cpu_micros(const std::vector<pid_t>& children) {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  double total = static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
  for (const pid_t pid : children) {
    clockid_t clock{};
    if (::clock_getcpuclockid(pid, &clock) == 0 && ::clock_gettime(clock, &t) == 0) {
      total += static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
    }
  }
  return total;
}

// A scheduler at work: it computes, it does not sleep.
void burn(int64_t us) {
  const Instant until = net::steady_now() + microseconds(us);
  while (us > 0 && net::steady_now() < until) {
  }
}

DeltaForm form_of(SpmdArm arm) {
  switch (arm) {
    case SpmdArm::kFullVarint:
    case SpmdArm::kFullFlat:
      return DeltaForm::kFull;
    case SpmdArm::kImplied:
      return DeltaForm::kImplied;
    case SpmdArm::kDriver:
    case SpmdArm::kExplicit:
      break;
  }
  return DeltaForm::kExplicit;
}

worker::RankGroupOptions group_options(const SpmdCell& cell, LayerRange layers) {
  worker::NullExecutorOptions null;
  null.layers = layers;
  null.compute_us = cell.compute_us;
  null.hidden = 64;
  worker::RankGroupOptions options =
      worker::null_group(cell.ranks, !cell.solo_thread || cell.ranks > 1, null);
  options.team.ring.arena_bytes = 256u << 20;
  return options;
}

Error died() { return Error(Code::kUnavailable, "the ranks did not answer"); }

SteadyLoad steady(const SpmdCell& cell, bool fed) {
  return SteadyLoad(cell.batch, cell.context, form_of(cell.arm), fed);
}
ScheduledLoad scheduled(const SpmdCell& cell, bool fed) { return ScheduledLoad(cell, fed); }

// The steps of one SPMD node: what is in flight, with the times of sending. `Load` makes them.
template <class Load>
class SpmdNode final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell, Load load) {
    std::unique_ptr<SpmdNode> node(new SpmdNode(cell, std::move(load)));
    ASSIGN_OR_RETURN(node->group_, RankGroup::start(group_options(cell, {0, 4})));
    TRY(node->send(node->load_.admit()));
    TRY(node->receive());
    return std::unique_ptr<SpmdRun>(std::move(node));
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    SpmdMeasured m;
    std::vector<double> latencies, control;
    double bytes = 0;
    Instant begin{};
    double cpu = 0;
    const std::vector<pid_t> children = pids();
    for (int i = 0; i < untimed + steps; ++i) {
      if (i == untimed) {
        begin = net::steady_now();
        cpu = cpu_micros(children);
      }
      burn(cell_.schedule_us);
      TRY(send(load_.next()));
      bytes += i >= untimed ? static_cast<double>(bytes_) : 0;
      while (sent_.size() > (cell_.ahead ? 1u : 0u)) {
        ASSIGN_OR_RETURN(const double us, receive());
        if (i < untimed) continue;
        latencies.push_back(us);
        control.push_back(us - work_us_);
      }
    }
    m.step_us = micros(net::steady_now() - begin) / steps;
    m.cpu_us = (cpu_micros(children) - cpu) / steps - static_cast<double>(cell_.schedule_us);
    while (!sent_.empty()) TRY(receive());
    m.p50_us = percentile(latencies, 0.5);
    m.p99_us = percentile(latencies, 0.99);
    m.control_p50_us = percentile(control, 0.5);
    m.control_p99_us = percentile(control, 0.99);
    m.bytes = bytes / steps;
    return m;
  }
  std::vector<pid_t> pids() const override { return pids_of(group_->team()); }

 private:
  SpmdNode(const SpmdCell& cell, Load load) : cell_(cell), load_(std::move(load)) {}

  Result<void> send(const NodeStep& message) {
    const bool varint = cell_.arm == SpmdArm::kFullVarint;
    // What the ablation compares is part of the step: encoding counts.
    const Instant now = net::steady_now();
    const std::vector<uint8_t> encoded =
        varint ? protocol::encode_varint(message) : protocol::encode(message);
    RankCommand command;
    command.codec = varint ? worker::StepCodec::kVarint : worker::StepCodec::kFlat;
    command.messages = {encoded};
    if (message.runs()) command.runs = {{message.lane, message.step}};
    TRY(group_->submit(command));
    bytes_ = encoded.size();
    sent_.push_back(now);
    return {};
  }
  Result<double> receive() {
    std::optional<GroupEvent> event = group_->wait(net::deadline_in(seconds(30)));
    if (!event) return died();
    if (!event->ok()) return Error(Code::kInternal, event->error);
    const double us = micros(net::steady_now() - sent_.front());
    work_us_ = event->work_us;
    sent_.pop_front();
    for (const worker::StepOutput& output : event->outputs) load_.finish(output);
    return us;
  }

  SpmdCell cell_;
  Load load_;
  std::unique_ptr<RankGroup> group_;
  std::deque<Instant> sent_;
  size_t bytes_ = 0;
  double work_us_ = 0;  // of the step received last
};

template <class Load>
class DriverNode final : public SpmdRun {
 public:
  static Result<std::unique_ptr<SpmdRun>> start(const SpmdCell& cell, Load load) {
    std::unique_ptr<DriverNode> node(new DriverNode(cell, std::move(load)));
    ASSIGN_OR_RETURN(node->driver_, DriverGroup::start(group_options(cell, {0, 4})));
    TRY(node->driver_->step(node->load_.admit()));
    return std::unique_ptr<SpmdRun>(std::move(node));
  }

  Result<SpmdMeasured> run(int untimed, int steps) override {
    SpmdMeasured m;
    std::vector<double> latencies;
    Instant begin{};
    for (int i = 0; i < untimed + steps; ++i) {
      if (i == untimed) begin = net::steady_now();
      burn(cell_.schedule_us);
      const NodeStep message = load_.next();
      const Instant now = net::steady_now();
      ASSIGN_OR_RETURN(const auto outputs, driver_->step(message));
      if (i >= untimed) latencies.push_back(micros(net::steady_now() - now));
      load_.finish(outputs[0]);
    }
    m.step_us = micros(net::steady_now() - begin) / steps;
    m.p50_us = percentile(latencies, 0.5);
    m.p99_us = percentile(latencies, 0.99);
    return m;
  }
  std::vector<pid_t> pids() const override { return pids_of(driver_->team()); }

 private:
  DriverNode(const SpmdCell& cell, Load load) : cell_(cell), load_(std::move(load)) {}
  SpmdCell cell_;
  Load load_;
  std::unique_ptr<DriverGroup> driver_;
};

}  // namespace

std::vector<pid_t> pids_of(const worker::RankTeam& team) {
  std::vector<pid_t> pids;
  for (int32_t r = 0; r < team.readers(); ++r) {
    if (team.pid(r) > 0) pids.push_back(team.pid(r));
  }
  return pids;
}

const char* arm_name(SpmdArm arm) {
  switch (arm) {
    case SpmdArm::kDriver:
      return "driver";
    case SpmdArm::kFullVarint:
      return "full-varint";
    case SpmdArm::kFullFlat:
      return "full-flat";
    case SpmdArm::kExplicit:
      return "delta-explicit";
    case SpmdArm::kImplied:
      return "delta-implied";
  }
  return "?";
}

Result<std::unique_ptr<SpmdRun>> start_run(const SpmdCell& cell) {
  if (cell.stages > 1) return start_pipeline(cell);
  const bool fed = cell.arm == SpmdArm::kImplied || cell.ahead;
  if (cell.scheduler) {
    if (cell.arm == SpmdArm::kDriver) {
      return DriverNode<ScheduledLoad>::start(cell, scheduled(cell, false));
    }
    return SpmdNode<ScheduledLoad>::start(cell, scheduled(cell, fed));
  }
  if (cell.arm == SpmdArm::kDriver) return DriverNode<SteadyLoad>::start(cell, steady(cell, false));
  return SpmdNode<SteadyLoad>::start(cell, steady(cell, fed));
}

namespace {

// Processor time so far of every process of the machine that is not one of ours, by process. (What
// /proc/stat counts by ticks says too little of times this short.)
std::map<pid_t, double> foreign_micros(const std::vector<pid_t>& children) {
  std::map<pid_t, double> all;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const auto pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    if (pid <= 0 || pid == ::getpid() || std::ranges::find(children, pid) != children.end()) continue;
    clockid_t clock{};
    timespec t{};
    if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &t) != 0) continue;
    all[pid] = static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
  }
  return all;
}

// What they took since `before`.
double foreign_since(const std::map<pid_t, double>& before, const std::vector<pid_t>& children) {
  double sum = 0;
  for (const auto& [pid, micros] : foreign_micros(children)) {
    const auto was = before.find(pid);
    sum += was == before.end() ? micros : micros - was->second;
  }
  return sum;
}

}  // namespace

Result<SpmdTurns> take_turns(std::span<const SpmdCell> cells, int untimed, int steps, int rounds) {
  constexpr int kTries = 3;
  constexpr double kForeign = 0.1;  // of a core
  std::vector<std::unique_ptr<SpmdRun>> runs;
  std::vector<pid_t> children;
  for (const SpmdCell& cell : cells) {
    ASSIGN_OR_RETURN(runs.emplace_back(), start_run(cell));
    const std::vector<pid_t> pids = runs.back()->pids();
    children.insert(children.end(), pids.begin(), pids.end());
  }
  SpmdTurns turns(cells.size());
  std::vector<SpmdMeasured> round(cells.size());
  for (int r = 0; r < rounds; ++r) {
    for (int again = 0; again < kTries; ++again) {
      const Instant begin = net::steady_now();
      const std::map<pid_t, double> before = foreign_micros(children);
      for (size_t i = 0; i < cells.size(); ++i) {
        const size_t at = r % 2 == 0 ? i : cells.size() - 1 - i;
        ASSIGN_OR_RETURN(round[at], runs[at]->run(r == 0 ? 30 : untimed, steps));
      }
      const double took = micros(net::steady_now() - begin);
      const bool disturbed = foreign_since(before, children) > kForeign * took;
      for (SpmdMeasured& m : round) {
        m.again = again;
        m.disturbed = disturbed;
      }
      if (!disturbed) break;
    }
    for (size_t i = 0; i < cells.size(); ++i) turns[i].push_back(round[i]);
  }
  return turns;
}

// --- faults -------------------------------------------------------------------------------------

Result<SpmdFaults> measure_faults(int batch, int context) {
  SpmdFaults out;
  SpmdCell cell;
  cell.batch = batch;
  cell.context = context;
  worker::RankGroupOptions options = group_options(cell, {0, 4});
  worker::NullExecutorOptions null = *worker::NullExecutorOptions::parse(options.executor);
  null.fault = "error";
  null.fault_rank = 1;
  null.fault_run = 20;
  options.executor = null.to_json();
  const Instant start = net::steady_now();
  ASSIGN_OR_RETURN(const auto group, RankGroup::start(options));
  out.new_group_ms = micros(net::steady_now() - start) * 1e-3;
  SteadyLoad load(batch, context, DeltaForm::kImplied, true);
  const auto round = [&](const NodeStep& message) -> Result<GroupEvent> {
    TRY(worker::submit(*group, message));
    std::optional<GroupEvent> event = group->wait(net::deadline_in(seconds(30)));
    if (!event) return died();
    for (const worker::StepOutput& output : event->outputs) load.finish(output);
    return std::move(*event);
  };
  TRY(round(load.admit()));
  for (int i = 1; i < 20; ++i) TRY(round(load.next()));
  // The failing step, then the way back: the full form and the step again.
  const NodeStep failing = load.next();
  const Instant failed = net::steady_now();
  ASSIGN_OR_RETURN(const GroupEvent event, round(failing));
  out.failed_rank_us = micros(net::steady_now() - failed);
  if (event.ok()) return Error(Code::kInternal, "the failure of rank 1 was not seen");
  const Instant sync = net::steady_now();
  ASSIGN_OR_RETURN(const std::vector<NodeStep> again, load.sender().resync());
  for (const NodeStep& message : again) {
    ASSIGN_OR_RETURN(const GroupEvent synced, round(message));
    if (!synced.ok()) return Error(Code::kInternal, synced.error);
  }
  out.resync_us = micros(net::steady_now() - sync);
  out.resync_bytes = static_cast<double>(protocol::encode(again[0]).size());
  // A rank is killed while a step is expected from it.
  const Instant killed = net::steady_now();
  ::kill(group->team().pid(1), SIGKILL);
  TRY(worker::submit(*group, load.next()));
  const std::optional<GroupEvent> death = group->wait(net::deadline_in(seconds(30)));
  out.killed_rank_us = micros(net::steady_now() - killed);
  if (!death || (!death->ok() && group->usable())) return died();
  return out;
}

Result<double> measure_idle(Duration time) {
  SpmdCell cell;
  ASSIGN_OR_RETURN(const auto group, RankGroup::start(group_options(cell, {0, 4})));
  const std::vector<pid_t> pids = pids_of(group->team());
  const double before = cpu_micros(pids);
  const timespec t{time.value / 1'000'000'000, time.value % 1'000'000'000};
  ::nanosleep(&t, nullptr);
  return (cpu_micros(pids) - before) / micros(time);
}

}  // namespace towline::cli
