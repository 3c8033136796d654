// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/plan_cluster.hpp"

#include "base/fmt.hpp"
#include "plan/heuristics.hpp"

namespace towline::plan {

LinkedPlacement link_all(const PlanProblem& problem, Placement placement, bool partial,
                         std::string method) {
  LinkedPlacement linked;
  linked.method = std::move(method);
  linked.arcs = valid_arcs(problem, placement, partial);
  for (int32_t unit = 0; unit < problem.size(); ++unit) {
    if (!placement.nodes[unit].empty()) linked.written.push_back(unit);
  }
  linked.placement = std::move(placement);
  return linked;
}

std::vector<LinkedPlacement> baseline_plans(const PlanProblem& problem, const Instance& instance,
                                            uint64_t seed) {
  std::vector<LinkedPlacement> plans;
  for (const auto method : {petals, swarm, homogeneous, separate}) {
    Result<LinkedPlacement> plan = method(problem, {.seed = seed});
    // A baseline may not apply to this cluster, or exceed the memory rule: then it is no start.
    if (plan && validate(plan->placement, instance)) plans.push_back(*std::move(plan));
  }
  return plans;
}

Result<ClusterPlan> plan_cluster(spec::ClusterDesc cluster, const spec::Profile& profile,
                                 const ClusterPlanOptions& options) {
  ClusterPlan planned;
  ASSIGN_OR_RETURN(planned.problem, make_problem(std::move(cluster), profile));
  const PlanProblem& problem = planned.problem;
  TRY(check_capacity(problem));
  const Instance instance = to_instance(problem);
  TRY(check_room(instance));
  SearchOptions search;
  search.seed = options.seed;
  search.steps = options.steps;
  search.threads = options.threads;
  search.partial = options.partial;
  search.stop = options.stop;
  for (LinkedPlacement& start : baseline_plans(problem, instance, options.seed)) {
    search.starts.push_back(std::move(start.placement));
  }
  planned.search = search_placement(instance, search);
  planned.linked = link_all(problem, planned.search.placement, options.partial, "auto");
  planned.report = report_flow(problem, planned.linked);
  if (planned.report.max_flow <= 0) {
    return errorf(Code::kExhausted,
                  "no placement of the {} layers was found that passes any flow: the machines are "
                  "too small or too badly linked",
                  problem.model.layers);
  }
  planned.desc = to_plan_desc(planned.report, "auto", problem.model.name);
  return planned;
}

}  // namespace towline::plan
