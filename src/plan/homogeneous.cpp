// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/mt19937_py.hpp"
#include "plan/heuristics.hpp"

namespace towline::plan {
namespace {

// All nodes, types with the greatest layers x throughput first, the nodes of a type shuffled.
std::vector<int32_t> packing_order(const PlanProblem& problem, uint64_t seed) {
  std::vector<std::vector<int32_t>> by_table(problem.tables.size());
  for (int32_t u = 0; u < problem.size(); ++u) by_table[problem.units[u].table].push_back(u);
  std::erase_if(by_table, [](const std::vector<int32_t>& units) { return units.empty(); });
  const auto speed = [&](const std::vector<int32_t>& units) {
    const int32_t layers = problem.max_layers(units.front());
    return layers * problem.rate(units.front(), layers);
  };
  std::stable_sort(by_table.begin(), by_table.end(),
                   [&](const auto& a, const auto& b) { return speed(a) > speed(b); });
  PyRandom random(seed);
  std::vector<int32_t> order;
  for (std::vector<int32_t>& units : by_table) {
    random.shuffle(units);
    order.insert(order.end(), units.begin(), units.end());
  }
  return order;
}

}  // namespace

Result<LinkedPlacement> homogeneous(const PlanProblem& problem, const HeuristicOptions& options) {
  TRY(check_capacity(problem));
  TRY(check_single_devices(problem));
  std::vector<std::vector<int32_t>> pipelines(1);
  int32_t held = 0;
  for (const int32_t u : packing_order(problem, options.seed)) {
    pipelines.back().push_back(u);
    held += problem.max_layers(u);
    if (held >= problem.model.layers) {
      pipelines.emplace_back();
      held = 0;
    }
  }
  pipelines.pop_back();  // the last one is incomplete or empty
  LinkedPlacement plan;
  plan.method = "Homogeneous";
  plan.placement.nodes.resize(problem.units.size());
  const ArcIndex index(problem);
  for (const std::vector<int32_t>& pipeline : pipelines) {
    ASSIGN_OR_RETURN(const PlanArc in, index.find(kSource, pipeline.front()));
    ASSIGN_OR_RETURN(const PlanArc out, index.find(pipeline.back(), kSink));
    plan.arcs.push_back(in);
    plan.arcs.push_back(out);
  }
  for (const std::vector<int32_t>& pipeline : pipelines) {
    int32_t begin = 0;
    for (size_t i = 0; i < pipeline.size(); ++i) {
      const int32_t u = pipeline[i];
      const int32_t end = std::min(begin + problem.max_layers(u), problem.model.layers);
      plan.placement.nodes[u] = {begin, end};
      begin = end;
      plan.written.push_back(u);
      if (i + 1 == pipeline.size()) continue;
      ASSIGN_OR_RETURN(const PlanArc arc, index.find(u, pipeline[i + 1]));
      plan.arcs.push_back(arc);
    }
  }
  std::sort(plan.written.begin(), plan.written.end());
  return plan;
}

}  // namespace towline::plan
