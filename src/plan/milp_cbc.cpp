// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The only file that knows CBC (COIN-OR branch and cut). Its C++ interface, because the C one
// cannot stop a run on our conditions without redirecting the process's
// signals and standard output.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <coin/CbcEventHandler.hpp>
#include <coin/CbcModel.hpp>
#include <coin/CbcSolver.hpp>
#include <coin/CoinError.hpp>
#include <coin/CoinPackedMatrix.hpp>
#include <coin/OsiClpSolverInterface.hpp>

#include "base/fmt.hpp"
#include "plan/bounds.hpp"
#include "plan/milp.hpp"

namespace towline::plan {
namespace {

// What the run knows of itself; outlives the solver's copies of the event handler.
struct Watch {
  using Clock = std::chrono::steady_clock;
  const MilpOptions* options = nullptr;
  double upper_bound = 0;  // of any placement
  Clock::time_point begin = Clock::now();
  Clock::time_point improved = begin;
  double incumbent = 0;
  std::string stopped_by;

  double seconds_since(Clock::time_point then) const {
    return std::chrono::duration<double>(Clock::now() - then).count();
  }

  // True if the run should end now. `objective` is the incumbent's flow, `bound` the solver's.
  bool look(double objective, double bound) {
    if (objective > incumbent * (1 + 1e-9) + 1e-9) {
      incumbent = objective;
      improved = Clock::now();
      report(bound);
    }
    const MilpOptions& o = *options;
    if (o.stop != nullptr && o.stop->load()) {
      stopped_by = "interrupt";
    } else if (seconds_since(begin) >= o.seconds) {
      stopped_by = "time";
    } else if (incumbent >= o.good_enough * upper_bound) {
      stopped_by = "good enough";
    } else if (incumbent >= o.early_stop_threshold * upper_bound &&
               seconds_since(improved) >= o.early_stop_seconds) {
      stopped_by = "no progress";
    }
    return !stopped_by.empty();
  }

  void report(double bound) const {
    if (options->progress) {
      options->progress({seconds_since(begin), incumbent, std::min(bound, upper_bound)});
    }
  }
};

class Handler : public CbcEventHandler {
 public:
  explicit Handler(Watch* watch) : watch_(watch) {}
  CbcEventHandler* clone() const override { return new Handler(*this); }

  CbcAction event(CbcEvent) override {
    // Sub-problems of heuristics have models of their own, with objectives that mean nothing here.
    if (model_ == nullptr || (model_->specialOptions() & 2048) != 0) return noAction;
    const double best = model_->getMinimizationObjValue();
    const double bound = model_->getBestPossibleObjValue();
    const bool found = model_->bestSolution() != nullptr && best < 1e40;
    return watch_->look(found ? -best : 0, bound > -1e40 ? -bound : watch_->upper_bound) ? stop
                                                                                         : noAction;
  }

 private:
  Watch* watch_;
};

void load(const MilpModel& model, OsiClpSolverInterface& solver) {
  const double infinity = solver.getInfinity();
  const auto columns = static_cast<int>(model.columns.size());
  CoinPackedMatrix matrix(false, 0, 0);
  matrix.setDimensions(0, columns);
  std::vector<double> row_lower, row_upper;
  for (const MilpRow& row : model.rows) {
    CoinPackedVector terms;
    for (const auto& [column, coefficient] : row.terms) {
      if (coefficient != 0) terms.insert(column, coefficient);
    }
    matrix.appendRow(terms);
    row_lower.push_back(row.sense == MilpRow::Sense::kLess ? -infinity : row.right);
    row_upper.push_back(row.sense == MilpRow::Sense::kGreater ? infinity : row.right);
  }
  std::vector<double> lower, upper, objective;
  for (const MilpColumn& column : model.columns) {
    lower.push_back(column.lower);
    upper.push_back(std::isinf(column.upper) ? infinity : column.upper);
    objective.push_back(-column.objective);  // CBC minimises
  }
  solver.loadProblem(matrix, lower.data(), upper.data(), objective.data(), row_lower.data(),
                     row_upper.data());
  solver.setIntParam(OsiNameDiscipline, 1);
  for (size_t r = 0; r < model.rows.size(); ++r) {
    solver.setRowName(static_cast<int>(r), model.rows[r].name);
  }
  for (int c = 0; c < columns; ++c) {
    solver.setColName(c, model.columns[c].name);
    if (model.columns[c].kind != MilpColumn::Kind::kContinuous) solver.setInteger(c);
  }
}

// Called by CBC's driver between its stages; 0 lets it go on.
int go_on(CbcModel*, int) { return 0; }

void run(const MilpModel& model, const Instance& instance, Watch& watch, MilpOutcome& outcome) {
  OsiClpSolverInterface solver;
  solver.setHintParam(OsiDoReducePrint, true, OsiHintTry);
  solver.messageHandler()->setLogLevel(0);
  load(model, solver);
  CbcModel cbc(solver);
  cbc.setLogLevel(0);
  cbc.messageHandler()->setLogLevel(0);
  const Handler handler(&watch);
  cbc.passInEventHandler(&handler);
  if (watch.options->start) {
    const std::vector<double> values = milp_values(model, instance, *watch.options->start);
    std::vector<std::pair<std::string, double>> start;
    for (size_t c = 0; c < values.size(); ++c) {
      if (model.columns[c].kind != MilpColumn::Kind::kContinuous) {
        start.emplace_back(model.columns[c].name, values[c]);
      }
    }
    cbc.setMIPStart(start);
  }
  CbcSolverUsefulData data;
  data.noPrinting_ = true;
  CbcMain0(cbc, data);
  cbc.setLogLevel(0);
  const std::string seconds = format("{}", std::max(0.01, watch.options->seconds));
  const char* arguments[] = {"towline",  "-log",          "0",      "-timeMode", "elapsed",
                             "-seconds", seconds.c_str(), "-solve", "-quit"};
  CbcMain1(static_cast<int>(std::size(arguments)), arguments, cbc, go_on, data);
  outcome.optimal = cbc.isProvenOptimal() && watch.stopped_by.empty();
  outcome.bound = -cbc.getBestPossibleObjValue();
  if (const double* best = cbc.bestSolution(); best != nullptr) {
    outcome.values.assign(best, best + model.columns.size());
    outcome.objective = -cbc.getMinimizationObjValue();
  }
}

}  // namespace

Result<MilpOutcome> solve_milp(const MilpModel& model, const Instance& instance,
                               const MilpOptions& options) {
  Watch watch;
  watch.options = &options;
  watch.upper_bound = truncated_capacity_bound(instance);
  MilpOutcome outcome;
  try {
    run(model, instance, watch, outcome);
  } catch (const CoinError& error) {
    return errorf(Code::kInternal, "the solver gave up: {}", error.message());
  } catch (const std::exception& error) {
    return errorf(Code::kInternal, "the solver gave up: {}", error.what());
  }
  outcome.seconds = watch.seconds_since(watch.begin);
  outcome.stopped_by = outcome.optimal            ? "optimal"
                       : watch.stopped_by.empty() ? "time"
                                                  : watch.stopped_by;
  if (options.start) {  // never worse than the start, whatever the solver made of it
    std::vector<double> values = milp_values(model, instance, *options.start);
    double flow = 0;
    for (size_t c = 0; c < values.size(); ++c) flow += model.columns[c].objective * values[c];
    if (outcome.values.empty() || flow > outcome.objective) {
      outcome.objective = flow;
      outcome.values = std::move(values);
      outcome.optimal = false;
    }
  }
  if (outcome.values.empty() || outcome.objective <= 0) {
    return errorf(Code::kDeadline,
                  "the MILP found no placement with flow in {:.1f} s ({}); give it a heuristic "
                  "start, more seconds, or use the method auto",
                  outcome.seconds, outcome.stopped_by);
  }
  outcome.bound =
      std::max(outcome.objective,
               std::min(outcome.optimal ? outcome.objective : outcome.bound, watch.upper_bound));
  outcome.placement = placement_of(model, outcome.values);
  return outcome;
}

}  // namespace towline::plan
