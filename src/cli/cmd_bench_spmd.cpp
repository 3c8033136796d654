// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline bench spmd`: goals C1 to C12 of the SPMD design, the throughput matrix against driver
// mode, and the ablation of full and delta steps.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "cli/spmd_bench.hpp"

namespace towline::cli {
namespace {

struct SpmdOptions {
  bool goals = false, matrix = false, ablation = false;
  std::vector<int> batches = {1, 8, 32, 128, 256};
  std::vector<int> contexts = {128, 1024, 4096};
  std::vector<int> tp = {1, 2}, pp = {1, 2};
  std::vector<std::string> arms = {"delta-implied", "delta-explicit", "driver", "full-flat",
                                   "full-varint"};
  std::vector<int> compute_us = {3000};
  int steps = 300;
  int rounds = 3;
  int idle = 5;
  bool json = false;
};

OptionTable table(SpmdOptions& o) {
  OptionTable t("bench spmd", "Measure the SPMD ranks' control plane on a model of no arithmetic.");
  t.describe("Ranks are processes of this machine; the null model sleeps for the compute time, as "
             "the host does while an accelerator works. --goals prints the table of design goals "
             "with what was measured, --matrix the throughput of SPMD ranks over driver mode, "
             "--ablation what each way of telling a step costs. Without any of them: --goals. "
             "Runs of two arms alternate; a ratio is the median of its rounds.");
  t.flag("goals", &o.goals, "the goals C1 to C12");
  t.flag("matrix", &o.matrix, "--tp x --pp x --batch: SPMD / driver");
  t.flag("ablation", &o.ablation, "driver, full (varint, flat), delta (explicit, implied)");
  t.value("batch", &o.batches, "sequences that generate").range(1, 2000);
  t.value("context", &o.contexts, "tokens of each, for --ablation").range(32, 8192);
  t.value("tp", &o.tp, "tensor-parallel ranks of a node, for --matrix").range(1, 16);
  t.value("pp", &o.pp, "nodes that follow each other, for --matrix").range(1, 2);
  t.value("arm", &o.arms, "ways of telling a step, for --ablation; may be repeated")
      .one_of({"delta-implied", "delta-explicit", "driver", "full-flat", "full-varint"});
  t.value("compute-us", &o.compute_us, "the null model's time of a step").range(0, 1e6);
  t.value("steps", &o.steps, "measured in a run").range(10, 1e6);
  t.value("rounds", &o.rounds, "runs of each cell").range(1, 100);
  t.value("idle", &o.idle, "seconds to watch an idle group (--goals)").range(1, 600);
  t.flag("json", &o.json, "one JSON line a figure");
  t.example("towline bench spmd --goals");
  t.example("towline bench spmd --matrix --steps 100 --tp 2 --pp 1,2");
  t.example("towline bench spmd --ablation --batch 256 --context 1024,4096");
  return t;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// --- goals --------------------------------------------------------------------------------------

// What the machine did besides.
struct Disturbances {
  int again = 0, kept = 0;
  void count(const SpmdMeasured& m) {
    again += m.again;
    kept += m.disturbed ? 1 : 0;
  }
  void print() const {
    if (again == 0) return;
    std::fputs(format("note: other programs ran on this machine: {} runs were made again, {} count "
                      "although it was no better\n", again - kept, kept).c_str(), stderr);
  }
};

class Goals {
 public:
  explicit Goals(const SpmdOptions& o) : o_(o) {}

  Result<void> run() {
    if (!o_.json) {
      std::puts("id   goal                                             target           measured"
                "         met");
    }
    TRY(latencies());
    TRY(slopes());
    TRY(cpu());
    TRY(ratios());
    TRY(overlap());
    TRY(faults());
    disturbances_.print();
    return {};
  }
  bool all_met() const { return met_; }

 private:
  // `value` against `limit`; below is good unless `above`.
  void line(const char* id, const std::string& what, const std::string& target, double value,
            double limit, const char* unit, bool above = false) {
    const bool met = above ? value >= limit : value <= limit;
    met_ = met_ && met;
    if (o_.json) {
      std::puts(Json::object({{"id", id}, {"goal", what}, {"target", target}, {"value", value},
                              {"unit", unit}, {"met", met}}).dump().c_str());
    } else {
      std::puts(format("{:<4} {:<48} {:<16} {:<16} {}", id, what, target,
                       format("{:.4g} {}", value, unit), met ? "yes" : "NO").c_str());
    }
    std::fflush(stdout);
  }

  // The median of several runs of a cell, field by field.
  Result<SpmdMeasured> sample(SpmdCell cell) {
    cell.steps = o_.steps;
    std::vector<double> p50, p99, step, cpu, control50, control99;
    SpmdMeasured m;
    for (int i = 0; i < o_.rounds; ++i) {
      ASSIGN_OR_RETURN(m, measure(cell));
      disturbances_.count(m);
      p50.push_back(m.p50_us);
      p99.push_back(m.p99_us);
      step.push_back(m.step_us);
      cpu.push_back(m.cpu_us);
      control50.push_back(m.control_p50_us);
      control99.push_back(m.control_p99_us);
    }
    m.p50_us = median(p50);
    m.p99_us = median(p99);
    m.step_us = median(step);
    m.cpu_us = median(cpu);
    m.control_p50_us = median(control50);
    m.control_p99_us = median(control99);
    return m;
  }

  Result<void> latencies() {
    SpmdCell hot;
    ASSIGN_OR_RETURN(hot_, sample(hot));
    line("C1", "overhead a step, TP=2, B=256, no compute, p50", "<= 60 us", hot_.p50_us, 60, "us");
    line("C1", "  p99", "<= 150 us", hot_.p99_us, 150, "us");
    SpmdCell cold;
    cold.compute_us = 3000;
    ASSIGN_OR_RETURN(cold_, sample(cold));
    line("C2", "with 3 ms of compute, less that measured, p50", "<= 100 us", cold_.control_p50_us, 100,
         "us");
    line("C2", "  p99", "<= 1000 us", cold_.control_p99_us, 1000, "us");
    line("C2", "  a step less 3000 us, p50 (reported)", "-", cold_.p50_us - 3000, 1e9, "us");
    SpmdCell cell;
    cell.context = 128;
    ASSIGN_OR_RETURN(const SpmdMeasured short_context, sample(cell));
    cell.context = 8000;
    ASSIGN_OR_RETURN(const SpmdMeasured long_context, sample(cell));
    line("C3", "overhead at 8k context / at 128", "<= 1.3",
         long_context.p50_us / short_context.p50_us, 1.3, "");
    line("C3", "  bytes a step at 8k / at 128", "= 1", long_context.bytes / short_context.bytes, 1,
         "");
    return {};
  }

  Result<void> slopes() {
    for (const SpmdArm arm : {SpmdArm::kExplicit, SpmdArm::kImplied}) {
      SpmdCell cell;
      cell.arm = arm;
      cell.batch = 1;
      ASSIGN_OR_RETURN(const SpmdMeasured one, sample(cell));
      cell.batch = 256;
      ASSIGN_OR_RETURN(const SpmdMeasured many, sample(cell));
      const bool implied = arm == SpmdArm::kImplied;
      line("C4", format("time a continuing request ({})", arm_name(arm)), "<= 0.1 us",
           (many.p50_us - one.p50_us) / 255, 0.1, "us");
      line("C4", format("  bytes a continuing request ({})", arm_name(arm)),
           implied ? "<= 1 B" : "<= 20 B", (many.bytes - one.bytes) / 255, implied ? 1 : 20, "B");
    }
    SpmdCell cell;
    cell.ranks = 1;
    ASSIGN_OR_RETURN(const SpmdMeasured hot_one, sample(cell));
    cell.compute_us = 3000;
    ASSIGN_OR_RETURN(const SpmdMeasured cold_one, sample(cell));
    line("C5", "one more local rank, no compute, p50", "<= 15 us", hot_.p50_us - hot_one.p50_us, 15,
         "us");
    line("C5", "  with 3 ms of compute", "<= 15 us", cold_.p50_us - cold_one.p50_us, 15, "us");
    return {};
  }

  Result<void> cpu() {
    line("C6", "processor time a step, all processes, 3 ms", "<= 250 us", cold_.cpu_us, 250, "us");
    ASSIGN_OR_RETURN(const double idle, measure_idle(seconds(o_.idle)));
    line("C6", format("  idle for {} s, share of a core", o_.idle), "<= 1 %", idle * 100, 1, "%");
    return {};
  }

  Result<void> ratios() {
    SpmdCell cell;
    cell.compute_us = 3000;
    cell.steps = o_.steps;
    std::vector<double> driver, varint, flat;
    for (int i = 0; i < o_.rounds; ++i) {
      const auto step_us = [&](SpmdArm arm) -> Result<double> {
        cell.arm = arm;
        ASSIGN_OR_RETURN(const SpmdMeasured m, measure(cell));
        disturbances_.count(m);
        return m.step_us;
      };
      ASSIGN_OR_RETURN(const double a, step_us(SpmdArm::kDriver));
      ASSIGN_OR_RETURN(const double b, step_us(SpmdArm::kImplied));
      ASSIGN_OR_RETURN(const double c, step_us(SpmdArm::kFullVarint));
      ASSIGN_OR_RETURN(const double d, step_us(SpmdArm::kFullFlat));
      driver.push_back(a / b);
      varint.push_back(b / c);
      flat.push_back(b / d);
    }
    line("C7", "throughput, full(varint) / delta, B=256, 1k", "<= 0.60", median(varint), 0.6, "");
    line("C7", "  delta / driver", ">= 0.97", median(driver), 0.97, "", true);
    line("C7", "  full(flat) / delta (reported)", "-", median(flat), 1e9, "");
    return {};
  }

  Result<void> overlap() {
    SpmdCell cell;
    cell.compute_us = 3000;
    cell.schedule_us = 1000;
    ASSIGN_OR_RETURN(const SpmdMeasured in_turn, sample(cell));
    cell.ahead = true;
    ASSIGN_OR_RETURN(const SpmdMeasured ahead, sample(cell));
    cell.schedule_us = 0;
    ASSIGN_OR_RETURN(const SpmdMeasured free, sample(cell));
    line("C8", "of 1 ms of scheduling a step, hidden one step ahead", ">= 90 %",
         100 * (1 - (ahead.step_us - free.step_us) / 1000), 90, "%", true);
    line("C8", "  step in turn / one step ahead (reported)", "-", in_turn.step_us / ahead.step_us,
         1e9, "");
    return {};
  }

  Result<void> faults() {
    ASSIGN_OR_RETURN(const SpmdFaults f, measure_faults(256, 1024));
    line("C9", "failure of a rank without outputs, to the caller", "<= 10 ms",
         f.failed_rank_us * 1e-3, 10, "ms");
    line("C10", "SIGKILL of a rank, to the caller", "<= 250 ms", f.killed_rank_us * 1e-3, 250, "ms");
    line("C10", "  another group of two ranks", "<= 2000 ms", f.new_group_ms, 2000, "ms");
    line("C12", format("full form of {:.2f} MB and the step again", f.resync_bytes * 1e-6),
         "<= 5 ms", f.resync_us * 1e-3, 5, "ms");
    return {};
  }

  const SpmdOptions& o_;
  bool met_ = true;
  Disturbances disturbances_;
  SpmdMeasured hot_, cold_;
};

// --- matrix -------------------------------------------------------------------------------------

struct Ratio {
  double driver_us = 0, spmd_us = 0;      // medians
  double ratio = 0, low = 0, high = 0;    // of the rounds' ratios: median, least, most
};

Result<Ratio> compare_modes(SpmdCell cell, int rounds, Disturbances& disturbances) {
  cell.solo_thread = true;
  std::vector<double> driver, spmd, ratios;
  const auto one = [&](SpmdArm arm) -> Result<double> {
    cell.arm = arm;
    cell.ahead = arm != SpmdArm::kDriver;
    ASSIGN_OR_RETURN(const SpmdMeasured m, measure(cell));
    disturbances.count(m);
    return m.step_us;
  };
  for (int i = 0; i < rounds; ++i) {
    // In turn first: what changes slowly on the machine favours nobody.
    double a = 0, b = 0;
    if (i % 2 == 0) {
      ASSIGN_OR_RETURN(a, one(SpmdArm::kDriver));
      ASSIGN_OR_RETURN(b, one(SpmdArm::kImplied));
    } else {
      ASSIGN_OR_RETURN(b, one(SpmdArm::kImplied));
      ASSIGN_OR_RETURN(a, one(SpmdArm::kDriver));
    }
    driver.push_back(a);
    spmd.push_back(b);
    ratios.push_back(a / b);
  }
  const auto [low, high] = std::ranges::minmax(ratios);
  return Ratio{median(driver), median(spmd), median(ratios), low, high};
}

Result<bool> run_matrix(const SpmdOptions& o) {
  bool met = true;
  Disturbances disturbances;
  if (!o.json) {
    std::puts("compute us  TP  PP  batch   driver us/step  SPMD us/step  SPMD/driver"
              "  (lowest, highest round)");
  }
  for (const int compute : o.compute_us) {
    for (const int ranks : o.tp) {
      for (const int stages : o.pp) {
        for (const int batch : o.batches) {
          SpmdCell cell;
          cell.ranks = ranks;
          cell.stages = stages;
          cell.batch = batch;
          cell.compute_us = compute;
          cell.steps = o.steps;
          ASSIGN_OR_RETURN(const Ratio r, compare_modes(cell, o.rounds, disturbances));
          met = met && r.ratio >= 1;
          if (o.json) {
            std::puts(Json::object({{"compute_us", compute}, {"tp", ranks}, {"pp", stages},
                                    {"batch", batch}, {"driver_us", r.driver_us},
                                    {"spmd_us", r.spmd_us}, {"ratio", r.ratio}, {"low", r.low},
                                    {"high", r.high}}).dump().c_str());
          } else {
            std::puts(format("{:>10}  {:>2}  {:>2}  {:>5}   {:>14.0f}  {:>12.0f}  {:>11.4f}  "
                             "({:.4f}, {:.4f})", compute, ranks, stages, batch, r.driver_us,
                             r.spmd_us, r.ratio, r.low, r.high).c_str());
          }
          std::fflush(stdout);
        }
      }
    }
  }
  disturbances.print();
  return met;
}

// --- ablation -----------------------------------------------------------------------------------

Result<void> run_ablation(const SpmdOptions& o) {
  Disturbances disturbances;
  if (!o.json) {
    std::puts("compute us  batch  context  arm              bytes/step  p50 us  overhead us  us/step"
              "  of delta-implied");
  }
  for (const int compute : o.compute_us) {
    for (const int batch : o.batches) {
      for (const int context : o.contexts) {
        double best = 0;
        for (const SpmdArm arm : {SpmdArm::kImplied, SpmdArm::kExplicit, SpmdArm::kDriver,
                                  SpmdArm::kFullFlat, SpmdArm::kFullVarint}) {
          if (std::ranges::find(o.arms, arm_name(arm)) == o.arms.end()) continue;
          SpmdCell cell;
          cell.arm = arm;
          cell.batch = batch;
          cell.context = context;
          cell.compute_us = compute;
          cell.steps = o.steps;
          ASSIGN_OR_RETURN(const SpmdMeasured m, measure(cell));
          disturbances.count(m);
          if (arm == SpmdArm::kImplied) best = m.step_us;
          if (o.json) {
            std::puts(Json::object({{"compute_us", compute}, {"batch", batch},
                                    {"context", context}, {"arm", arm_name(arm)},
                                    {"bytes", m.bytes}, {"p50_us", m.p50_us},
                                    {"step_us", m.step_us}, {"throughput", best > 0 ? best / m.step_us : 0}})
                          .dump().c_str());
          } else {
            std::puts(format("{:>10}  {:>5}  {:>7}  {:<15}  {:>10.0f}  {:>6.0f}  {:>11.0f}  {:>7.0f}"
                             "  {:>15.3f}", compute, batch, context, arm_name(arm), m.bytes, m.p50_us,
                             m.overhead_us(cell), m.step_us, best > 0 ? best / m.step_us : 0).c_str());
          }
          std::fflush(stdout);
        }
      }
    }
  }
  disturbances.print();
  return {};
}

Result<int> run(std::span<const std::string> args) {
  SpmdOptions o;
  OptionTable t = table(o);
  ASSIGN_OR_RETURN(const ParseOutcome outcome, t.parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  bool met = true;
  if (o.goals || (!o.matrix && !o.ablation)) {
    Goals goals(o);
    TRY(goals.run());
    met = met && goals.all_met();
  }
  if (o.matrix) {
    ASSIGN_OR_RETURN(const bool all, run_matrix(o));
    met = met && all;
  }
  if (o.ablation) TRY(run_ablation(o));
  return met ? 0 : 1;
}

void describe(void (*sink)(const OptionTable&)) {
  SpmdOptions o;
  sink(table(o));
}

}  // namespace

const Command kBenchSpmd = {"bench spmd", "SPMD ranks' control plane: goals, driver mode, ablation",
                            run, describe};

}  // namespace towline::cli
