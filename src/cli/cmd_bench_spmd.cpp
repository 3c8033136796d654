// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline bench spmd`: goals C1 to C12 of the SPMD design, the throughput matrix against driver
// mode, and the ablation of full and delta steps.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/fmt.hpp"
#include "base/rng.hpp"
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
  std::vector<std::string> only;
  int steps = 0;
  int rounds = 0;
  int idle = 5;
  bool json = false;
};

OptionTable table(SpmdOptions& o) {
  OptionTable t("bench spmd", "Measure the SPMD ranks' control plane on a model of no arithmetic.");
  t.describe("Ranks are processes of this machine; the null model sleeps for the compute time, as "
             "the host does while an accelerator works. --goals prints the table of design goals "
             "with what was measured, --matrix the throughput of SPMD ranks over driver mode, "
             "--ablation what each way of telling a step costs. Without any of them: --goals. "
             "What is compared is alive at once and takes turns, so that the machine's moods favour "
             "nobody; a figure is the median of its rounds. A round during which other programs ran "
             "is made again, twice at most.");
  t.flag("goals", &o.goals, "the goals C1 to C12");
  t.flag("matrix", &o.matrix, "--tp x --pp x --batch: SPMD / driver");
  t.flag("ablation", &o.ablation, "driver, full (varint, flat), delta (explicit, implied)");
  t.value("batch", &o.batches, "sequences that generate").range(1, 2000);
  t.value("context", &o.contexts, "tokens of each, for --ablation").range(32, 8192);
  t.value("tp", &o.tp, "tensor-parallel ranks of a node, for --matrix").range(1, 16);
  t.value("pp", &o.pp, "stages of the node that follow each other, for --matrix").range(1, 2);
  t.value("arm", &o.arms, "ways of telling a step, for --ablation; may be repeated")
      .one_of({"delta-implied", "delta-explicit", "driver", "full-flat", "full-varint"});
  t.value("compute-us", &o.compute_us, "the null model's time of a step").range(0, 1e6);
  t.value("only", &o.only, "goals to measure, for --goals: C1,C2, or repeated")
      .one_of({"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C12"});
  t.value("steps", &o.steps, "measured in a turn; 0: 200, with --matrix 40").range(0, 1e6);
  t.value("rounds", &o.rounds, "turns of each cell; 0: 5, with --matrix 20").range(0, 1000);
  t.value("idle", &o.idle, "seconds to watch an idle group (--goals)").range(1, 600);
  t.flag("json", &o.json, "one JSON line a figure");
  t.example("towline bench spmd --goals");
  t.example("towline bench spmd --goals --only C2,C6");
  t.example("towline bench spmd --matrix --tp 2 --pp 1,2");
  t.example("towline bench spmd --ablation --batch 256 --context 1024,4096");
  return t;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

std::vector<double> each(const std::vector<SpmdMeasured>& rounds, double SpmdMeasured::*field) {
  std::vector<double> values;
  for (const SpmdMeasured& m : rounds) values.push_back(m.*field);
  return values;
}

// Round by round, a / b.
std::vector<double> ratios(const std::vector<SpmdMeasured>& a, const std::vector<SpmdMeasured>& b) {
  std::vector<double> values;
  for (size_t i = 0; i < a.size(); ++i) values.push_back(a[i].step_us / b[i].step_us);
  return values;
}

// What the machine did besides.
struct Disturbances {
  int again = 0, kept = 0;
  void count(const std::vector<SpmdMeasured>& rounds) {
    for (const SpmdMeasured& m : rounds) {
      again += m.again;
      kept += m.disturbed ? 1 : 0;
    }
  }
  void print() const {
    if (again == 0) return;
    std::fputs(format("note: other programs ran on this machine: {} rounds were made again, {} count "
                      "although it was no better\n", again - kept, kept).c_str(), stderr);
  }
};

// --- goals --------------------------------------------------------------------------------------

class Goals {
 public:
  explicit Goals(const SpmdOptions& o)
      : o_(o), steps_(o.steps > 0 ? o.steps : 200), rounds_(o.rounds > 0 ? o.rounds : 5) {}

  Result<void> run() {
    if (!o_.json) {
      std::puts("id   goal                                             target           measured"
                "         met");
    }
    if (wanted({"C1", "C3", "C4", "C5"})) TRY(without_compute());
    if (wanted({"C2", "C5", "C6"})) TRY(with_compute());
    if (wanted({"C6"})) TRY(idle());
    if (wanted({"C7"})) TRY(ways_of_telling());
    if (wanted({"C8"})) TRY(overlap());
    if (wanted({"C9", "C10", "C12"})) TRY(faults());
    disturbances_.print();
    return {};
  }
  bool all_met() const { return met_; }

 private:
  bool wanted(std::initializer_list<const char*> ids) const {
    return o_.only.empty() || std::ranges::any_of(ids, [&](const char* id) {
      return std::ranges::find(o_.only, id) != o_.only.end();
    });
  }
  // `value` against `limit`; below is good unless `above`.
  void line(const char* id, const std::string& what, const std::string& target, double value,
            double limit, const char* unit, bool above = false) {
    if (!wanted({id})) return;
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

  // The rounds of some cells in turns; then the median of one field of one of them.
  Result<void> measure(std::vector<SpmdCell> cells, int untimed, int steps) {
    ASSIGN_OR_RETURN(turns_, take_turns(cells, untimed, steps, rounds_));
    for (const auto& rounds : turns_) disturbances_.count(rounds);
    return {};
  }
  double of(size_t cell, double SpmdMeasured::*field) const {
    return median(each(turns_[cell], field));
  }

  Result<void> without_compute() {
    const SpmdCell hot;
    SpmdCell single = hot, explicit_one = hot, explicit_many = hot, one_rank = hot,
             short_context = hot, long_context = hot;
    single.batch = explicit_one.batch = 1;
    explicit_one.arm = explicit_many.arm = SpmdArm::kExplicit;
    one_rank.ranks = 1;
    short_context.context = 128;
    long_context.context = 8000;
    // Ends that slept long try less often to wait awake: some steps until they do again.
    TRY(measure({hot, single, explicit_one, explicit_many, one_rank, short_context, long_context}, 150,
                steps_ * 5));
    const auto p50 = &SpmdMeasured::p50_us;
    const auto bytes = &SpmdMeasured::bytes;
    line("C1", "overhead a step, TP=2, B=256, no compute, p50", "<= 60 us", of(0, p50), 60, "us");
    line("C1", "  p99", "<= 150 us", of(0, &SpmdMeasured::p99_us), 150, "us");
    line("C3", "overhead at 8k context / at 128", "<= 1.3", of(6, p50) / of(5, p50), 1.3, "");
    line("C3", "  bytes a step at 8k / at 128", "= 1", of(6, bytes) / of(5, bytes), 1, "");
    line("C4", "time a continuing request (explicit)", "<= 0.1 us", (of(3, p50) - of(2, p50)) / 255,
         0.1, "us");
    line("C4", "  bytes", "<= 20 B", (of(3, bytes) - of(2, bytes)) / 255, 20, "B");
    line("C4", "time a continuing request (implied)", "<= 0.1 us", (of(0, p50) - of(1, p50)) / 255,
         0.1, "us");
    line("C4", "  bytes", "<= 1 B", (of(0, bytes) - of(1, bytes)) / 255, 1, "B");
    line("C5", "one more local rank, no compute, p50", "<= 15 us", of(0, p50) - of(4, p50), 15, "us");
    return {};
  }

  Result<void> with_compute() {
    SpmdCell cold;
    cold.compute_us = 3000;
    SpmdCell one_rank = cold;
    one_rank.ranks = 1;
    TRY(measure({cold, one_rank}, 10, steps_));
    const auto p50 = &SpmdMeasured::p50_us;
    line("C2", "with 3 ms of compute, less that measured, p50", "<= 100 us",
         of(0, &SpmdMeasured::control_p50_us), 100, "us");
    line("C2", "  p99", "<= 1000 us", of(0, &SpmdMeasured::control_p99_us), 1000, "us");
    line("C2", "  a step less 3000 us, p50 (reported)", "-", of(0, p50) - 3000, 1e9, "us");
    line("C5", "one more local rank, 3 ms of compute, p50", "<= 15 us", of(0, p50) - of(1, p50), 15,
         "us");
    if (wanted({"C2", "C5"})) TRY(bare_wake_ups());
    line("C6", "processor time a step, all processes, 3 ms", "<= 250 us",
         of(0, &SpmdMeasured::cpu_us), 250, "us");
    return {};
  }

  // What of C2 and C5 is the machine's.
  Result<void> bare_wake_ups() {
    WakeFloor two, one;
    std::vector<double> p50, p99, more;
    for (int i = 0; i < rounds_; ++i) {
      ASSIGN_OR_RETURN(one, measure_wake_floor(1, milliseconds(3), steps_));
      ASSIGN_OR_RETURN(two, measure_wake_floor(2, milliseconds(3), steps_));
      p50.push_back(two.p50_us);
      p99.push_back(two.p99_us);
      more.push_back(two.p50_us - one.p50_us);
    }
    line("C2", "  two bare processes woken and back, p50 (reported)", "-", median(p50), 1e9, "us");
    line("C2", "    p99 (reported)", "-", median(p99), 1e9, "us");
    line("C5", "  one more bare process (reported)", "-", median(more), 1e9, "us");
    return {};
  }

  Result<void> idle() {
    ASSIGN_OR_RETURN(const double share, measure_idle(seconds(o_.idle)));
    line("C6", format("idle for {} s, share of a core", o_.idle), "<= 1 %", share * 100, 1, "%");
    return {};
  }

  Result<void> ways_of_telling() {
    SpmdCell delta;
    delta.compute_us = 3000;
    SpmdCell driver = delta, varint = delta, flat = delta;
    driver.arm = SpmdArm::kDriver;
    varint.arm = SpmdArm::kFullVarint;
    flat.arm = SpmdArm::kFullFlat;
    TRY(measure({delta, driver, varint, flat}, 10, steps_));
    line("C7", "throughput, full(varint) / delta, B=256, 1k", "<= 0.60",
         median(ratios(turns_[0], turns_[2])), 0.6, "");
    line("C7", "  delta / driver", ">= 0.97", median(ratios(turns_[1], turns_[0])), 0.97, "", true);
    line("C7", "  full(flat) / delta (reported)", "-", median(ratios(turns_[0], turns_[3])), 1e9, "");
    return {};
  }

  Result<void> overlap() {
    SpmdCell in_turn;
    in_turn.compute_us = 3000;
    in_turn.schedule_us = 1000;
    SpmdCell ahead = in_turn;
    ahead.ahead = true;
    SpmdCell free = ahead;
    free.schedule_us = 0;
    TRY(measure({in_turn, ahead, free}, 10, steps_));
    const auto step = &SpmdMeasured::step_us;
    line("C8", "of 1 ms of scheduling a step, hidden one step ahead", ">= 90 %",
         100 * (1 - (of(1, step) - of(2, step)) / 1000), 90, "%", true);
    line("C8", "  step in turn / one step ahead (reported)", "-", of(0, step) / of(1, step), 1e9, "");
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
  const int steps_, rounds_;
  bool met_ = true;
  Disturbances disturbances_;
  SpmdTurns turns_;  // of the cells measured last
};

// --- matrix -------------------------------------------------------------------------------------

// The bounds of 95 % of the medians of samples drawn from `values` with replacement.
std::pair<double, double> confidence(const std::vector<double>& values) {
  constexpr int kSamples = 2000;
  Rng rng(1);
  std::vector<double> medians, sample(values.size());
  for (int i = 0; i < kSamples; ++i) {
    for (double& v : sample) v = values[rng.below(values.size())];
    medians.push_back(median(sample));
  }
  std::ranges::sort(medians);
  return {medians[kSamples / 40], medians[kSamples - 1 - kSamples / 40]};
}

Result<bool> run_matrix_cell(const SpmdOptions& o, SpmdCell cell, Disturbances& disturbances) {
  cell.solo_thread = true;
  cell.scheduler = true;
  SpmdCell driver = cell;
  driver.arm = SpmdArm::kDriver;
  cell.ahead = true;
  const SpmdCell cells[] = {driver, cell};
  ASSIGN_OR_RETURN(const SpmdTurns turns,
                   take_turns(cells, 4, o.steps > 0 ? o.steps : 40, o.rounds > 0 ? o.rounds : 20));
  for (const auto& rounds : turns) disturbances.count(rounds);
  const std::vector<double> pairs = ratios(turns[0], turns[1]);
  const double ratio = median(pairs);
  const auto [low, high] = confidence(pairs);
  const double driver_us = median(each(turns[0], &SpmdMeasured::step_us));
  const double spmd_us = median(each(turns[1], &SpmdMeasured::step_us));
  const bool met = ratio >= 1 && low >= 0.97;
  if (o.json) {
    std::puts(Json::object({{"compute_us", cell.compute_us}, {"tp", cell.ranks},
                            {"pp", cell.stages}, {"batch", cell.batch}, {"driver_us", driver_us},
                            {"spmd_us", spmd_us}, {"ratio", ratio}, {"low", low}, {"high", high},
                            {"met", met}}).dump().c_str());
  } else {
    std::puts(format("{:>10}  {:>2}  {:>2}  {:>5}   {:>14.0f}  {:>12.0f}  {:>11.4f}  ({:.4f}, {:.4f})"
                     "  {}", cell.compute_us, cell.ranks, cell.stages, cell.batch, driver_us,
                     spmd_us, ratio, low, high, met ? "yes" : "NO").c_str());
  }
  std::fflush(stdout);
  return met;
}

Result<bool> run_matrix(const SpmdOptions& o) {
  bool met = true;
  Disturbances disturbances;
  if (!o.json) {
    std::puts("compute us  TP  PP  batch   driver us/step  SPMD us/step  SPMD/driver"
              "  (95 % of medians)  met");
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
          ASSIGN_OR_RETURN(const bool cell_met, run_matrix_cell(o, cell, disturbances));
          met = met && cell_met;
        }
      }
    }
  }
  disturbances.print();
  return met;
}

// --- ablation -----------------------------------------------------------------------------------

Result<void> ablate(const SpmdOptions& o, SpmdCell cell, Disturbances& disturbances) {
  std::vector<SpmdCell> cells;
  for (const SpmdArm arm : {SpmdArm::kImplied, SpmdArm::kExplicit, SpmdArm::kDriver,
                            SpmdArm::kFullFlat, SpmdArm::kFullVarint}) {
    if (std::ranges::find(o.arms, arm_name(arm)) == o.arms.end()) continue;
    cell.arm = arm;
    cells.push_back(cell);
  }
  ASSIGN_OR_RETURN(const SpmdTurns turns,
                   take_turns(cells, 10, o.steps > 0 ? o.steps : 100, o.rounds > 0 ? o.rounds : 3));
  for (size_t i = 0; i < cells.size(); ++i) {
    disturbances.count(turns[i]);
    const auto of = [&](double SpmdMeasured::*field) { return median(each(turns[i], field)); };
    const double p50 = of(&SpmdMeasured::p50_us), step = of(&SpmdMeasured::step_us);
    const double bytes = of(&SpmdMeasured::bytes), ratio = median(ratios(turns[0], turns[i]));
    const char* name = arm_name(cells[i].arm);
    if (o.json) {
      std::puts(Json::object({{"compute_us", cell.compute_us}, {"batch", cell.batch},
                              {"context", cell.context}, {"arm", name}, {"bytes", bytes},
                              {"p50_us", p50}, {"step_us", step}, {"of", arm_name(cells[0].arm)},
                              {"throughput", ratio}}).dump().c_str());
    } else {
      std::puts(format("{:>10}  {:>5}  {:>7}  {:<15}  {:>10.0f}  {:>6.0f}  {:>11.0f}  {:>7.0f}  {:.3f}",
                       cell.compute_us, cell.batch, cell.context, name, bytes, p50,
                       p50 - static_cast<double>(cell.compute_us), step, ratio).c_str());
    }
    std::fflush(stdout);
  }
  return {};
}

Result<void> run_ablation(const SpmdOptions& o) {
  Disturbances disturbances;
  if (!o.json) {
    std::puts("compute us  batch  context  arm              bytes/step  p50 us  overhead us  us/step"
              "  throughput of the first arm's");
  }
  for (const int compute : o.compute_us) {
    for (const int batch : o.batches) {
      for (const int context : o.contexts) {
        SpmdCell cell;
        cell.batch = batch;
        cell.context = context;
        cell.compute_us = compute;
        TRY(ablate(o, cell, disturbances));
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
