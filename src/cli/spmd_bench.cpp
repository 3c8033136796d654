// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/spmd_bench.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>

#include "base/file.hpp"
#include "base/fmt.hpp"
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

constexpr int kWarmUp = 30;

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

std::vector<pid_t> pids_of(worker::RankTeam& team) {
  std::vector<pid_t> pids;
  for (int32_t r = 0; r < team.readers(); ++r) pids.push_back(team.pid(r));
  return pids;
}

Error died() { return Error(Code::kUnavailable, "the ranks did not answer"); }

// The steps of one SPMD node: what is in flight, with the times of sending.
class SpmdNode {
 public:
  static Result<std::unique_ptr<SpmdNode>> start(const SpmdCell& cell) {
    std::unique_ptr<SpmdNode> node(new SpmdNode(cell));
    ASSIGN_OR_RETURN(node->group_, RankGroup::start(group_options(cell, {0, 4})));
    TRY(node->send(node->load_.admit()));
    TRY(node->receive());
    return node;
  }
  RankGroup& group() { return *group_; }

  Result<SpmdMeasured> run() {
    SpmdMeasured m;
    std::vector<double> latencies, control;
    double bytes = 0;
    Instant begin{};
    double cpu = 0;
    const std::vector<pid_t> pids = pids_of(group_->team());
    for (int i = 0; i < kWarmUp + cell_.steps; ++i) {
      if (i == kWarmUp) {
        begin = net::steady_now();
        cpu = cpu_micros(pids);
      }
      burn(cell_.schedule_us);
      TRY(send(load_.next()));
      bytes += i >= kWarmUp ? static_cast<double>(bytes_) : 0;
      while (sent_.size() > (cell_.ahead ? 1u : 0u)) {
        ASSIGN_OR_RETURN(const double us, receive());
        if (i < kWarmUp) continue;
        latencies.push_back(us);
        control.push_back(us - work_us_);
      }
    }
    m.step_us = micros(net::steady_now() - begin) / cell_.steps;
    m.cpu_us = (cpu_micros(pids) - cpu) / cell_.steps - static_cast<double>(cell_.schedule_us);
    while (!sent_.empty()) TRY(receive());
    m.p50_us = percentile(latencies, 0.5);
    m.p99_us = percentile(latencies, 0.99);
    m.control_p50_us = percentile(control, 0.5);
    m.control_p99_us = percentile(control, 0.99);
    m.bytes = bytes / cell_.steps;
    return m;
  }

 private:
  explicit SpmdNode(const SpmdCell& cell)
      : cell_(cell), fed_(cell.arm == SpmdArm::kImplied || cell.ahead),
        load_(cell.batch, cell.context, form_of(cell.arm), fed_) {}

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
    for (const worker::StepOutput& output : event->outputs) {
      load_.learn(output.rows);
      load_.sender().completed(output.step);
    }
    return us;
  }

  SpmdCell cell_;
  bool fed_;
  SteadyLoad load_;
  std::unique_ptr<RankGroup> group_;
  std::deque<Instant> sent_;
  size_t bytes_ = 0;
  double work_us_ = 0;  // of the step received last
};

Result<SpmdMeasured> measure_driver(const SpmdCell& cell) {
  SteadyLoad load(cell.batch, cell.context, DeltaForm::kExplicit, false);
  ASSIGN_OR_RETURN(const auto driver, DriverGroup::start(group_options(cell, {0, 4})));
  TRY(driver->step(load.admit()));
  SpmdMeasured m;
  std::vector<double> latencies;
  Instant begin{};
  for (int i = 0; i < kWarmUp + cell.steps; ++i) {
    if (i == kWarmUp) begin = net::steady_now();
    burn(cell.schedule_us);
    const NodeStep message = load.next();
    const Instant now = net::steady_now();
    ASSIGN_OR_RETURN(const auto outputs, driver->step(message));
    if (i >= kWarmUp) latencies.push_back(micros(net::steady_now() - now));
    load.learn(outputs[0].rows);
    load.sender().completed(outputs[0].step);
  }
  m.step_us = micros(net::steady_now() - begin) / cell.steps;
  m.p50_us = percentile(latencies, 0.5);
  m.p99_us = percentile(latencies, 0.99);
  return m;
}

}  // namespace

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

namespace {

Result<SpmdMeasured> measure_once(const SpmdCell& cell) {
  if (cell.stages > 1) return measure_pipeline(cell);
  if (cell.arm == SpmdArm::kDriver) return measure_driver(cell);
  ASSIGN_OR_RETURN(const auto node, SpmdNode::start(cell));
  return node->run();
}

// Processor seconds of the whole machine, less those of this process and its ended children.
double foreign_seconds() {
  double seconds = 0;
  if (const Result<std::string> stat = read_file("/proc/stat")) {
    // cpu user nice system idle iowait irq softirq steal
    long long f[8] = {};
    std::sscanf(stat->c_str(), "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &f[0], &f[1], &f[2],
                &f[3], &f[4], &f[5], &f[6], &f[7]);
    seconds = static_cast<double>(f[0] + f[1] + f[2] + f[5] + f[6] + f[7]) /
              static_cast<double>(::sysconf(_SC_CLK_TCK));
  }
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage{};
    ::getrusage(who, &usage);
    for (const timeval& t : {usage.ru_utime, usage.ru_stime}) {
      seconds -= static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
    }
  }
  return seconds;
}

}  // namespace

Result<SpmdMeasured> measure(const SpmdCell& cell) {
  constexpr int kTries = 3;
  constexpr double kForeign = 0.1;  // of a core; the kernel's ticks do not tell much less
  for (int again = 0;; ++again) {
    const Instant begin = net::steady_now();
    const double before = foreign_seconds();
    ASSIGN_OR_RETURN(SpmdMeasured m, measure_once(cell));
    const double took = static_cast<double>((net::steady_now() - begin).value) * 1e-9;
    m.again = again;
    m.disturbed = foreign_seconds() - before > kForeign * took;
    if (!m.disturbed || again + 1 == kTries) return m;
  }
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
    for (const worker::StepOutput& output : event->outputs) {
      load.learn(output.rows);
      load.sender().completed(output.step);
    }
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
