// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_milp.hpp"

#include <algorithm>

#include "base/file.hpp"
#include "plan/heuristics.hpp"

namespace towline::cli {
namespace {

// The heuristic start, or nothing if the cluster lacks a link it needs (a pruned one may).
std::optional<plan::Placement> start_of(const plan::PlanProblem& problem, const std::string& name) {
  using Method =
      Result<plan::LinkedPlacement> (*)(const plan::PlanProblem&, const plan::HeuristicOptions&);
  const Method method = name == "petals"        ? plan::petals
                        : name == "swarm"       ? plan::swarm
                        : name == "homogeneous" ? plan::homogeneous
                                                : nullptr;
  if (method == nullptr) return std::nullopt;
  Result<plan::LinkedPlacement> plan = method(problem, {});
  if (!plan) return std::nullopt;
  return std::move(plan->placement);
}

}  // namespace

void MilpInputs::add_to(OptionTable& table) {
  table.value("milp-start", &start, "milp: heuristic that the solver starts from")
      .one_of({"petals", "swarm", "homogeneous", "none"});
  table.value("milp-seconds", &seconds, "milp: stop after so long").range(0.01, 1e7);
  table
      .value("early-stop-seconds", &early_stop_seconds,
             "milp: stop after so long without progress, once near the bound")
      .range(0, 1e7);
  table
      .value("early-stop-threshold", &early_stop_threshold,
             "milp: how near: incumbent over upper bound")
      .range(0, 1);
  table.flag("keep-redundant", &keep_redundant, "milp: also the rows that switch links on");
  table
      .value("from-solution", &from_solution,
             "milp: rebuild the plan from this .sol file (of any solver) instead of solving")
      .metavar("FILE");
}

Result<MilpPlan> plan_by_milp(const plan::Instance& instance,
                              std::optional<plan::Placement> start, const MilpInputs& inputs,
                              bool partial, const std::atomic<bool>* stop,
                              const MilpProgress& progress) {
  plan::MilpOptions options;
  options.form = {.partial = partial, .remove_redundant = !inputs.keep_redundant};
  options.seconds = inputs.seconds;
  options.early_stop_seconds = inputs.early_stop_seconds;
  options.early_stop_threshold = inputs.early_stop_threshold;
  options.stop = stop;
  options.progress = progress;
  ASSIGN_OR_RETURN(const plan::MilpModel model, plan::build_milp(instance, options.form));

  MilpPlan result;
  result.lp = plan::print_lp(model);
  std::vector<double> values;
  if (!inputs.from_solution.empty()) {
    ASSIGN_OR_RETURN(const std::string text, read_file(inputs.from_solution, int64_t{1} << 30));
    ASSIGN_OR_RETURN(values, plan::parse_sol(model, text, inputs.from_solution));
    result.linked.placement = plan::placement_of(model, values);
    result.stopped_by = "solution file";
  } else {
    options.start = std::move(start);
    ASSIGN_OR_RETURN(plan::MilpOutcome outcome, plan::solve_milp(model, instance, options));
    result.linked.placement = std::move(outcome.placement);
    result.bound = outcome.bound;
    result.optimal = outcome.optimal;
    result.stopped_by = outcome.stopped_by;
    values = std::move(outcome.values);
  }
  result.sol = plan::print_sol(model, values);
  return result;
}

Result<MilpPlan> plan_by_milp(const plan::PlanProblem& problem, const MilpInputs& inputs,
                              bool partial, const std::atomic<bool>* stop,
                              const MilpProgress& progress) {
  TRY(plan::check_capacity(problem));
  std::optional<plan::Placement> start;
  if (inputs.from_solution.empty()) start = start_of(problem, inputs.start);
  ASSIGN_OR_RETURN(MilpPlan result, plan_by_milp(plan::to_instance(problem), std::move(start),
                                                 inputs, partial, stop, progress));
  result.linked.method = "ILP";
  result.linked.arcs = plan::valid_arcs(problem, result.linked.placement, partial);
  for (int32_t u = 0; u < problem.size(); ++u) result.linked.written.push_back(u);
  return result;
}

}  // namespace towline::cli
