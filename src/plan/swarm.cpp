// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/fmt.hpp"
#include "base/mt19937_py.hpp"
#include "plan/heuristics.hpp"

namespace towline::plan {
namespace {

// Layers of a stage: as asked, or the most that divide the model and fit on every node.
Result<int32_t> stage_layers(const PlanProblem& problem, int32_t stages) {
  int32_t fits = problem.model.layers;
  for (int32_t u = 0; u < problem.size(); ++u) fits = std::min(fits, problem.max_layers(u));
  if (stages == 0) {
    int32_t count = fits;
    while (problem.model.layers % count != 0) --count;
    return count;
  }
  if (stages < 1 || problem.model.layers % stages != 0) {
    return errorf(Code::kInvalidArgument,
                  "swarm: {} stages do not divide the {} layers of '{}' evenly; choose a divisor",
                  stages, problem.model.layers, problem.model.name);
  }
  const int32_t count = problem.model.layers / stages;
  if (count > fits) {
    return errorf(Code::kInvalidArgument,
                  "swarm: {} stages mean {} layers on every node, but one has room for {}; choose "
                  "more stages",
                  stages, count, fits);
  }
  return count;
}

// The nodes of each stage, in the order in which they joined.
std::vector<std::vector<int32_t>> form_stages(const PlanProblem& problem, int32_t count) {
  std::vector<std::pair<double, int32_t>> order;
  for (int32_t u = 0; u < problem.size(); ++u) order.emplace_back(problem.rate(u, count), u);
  std::sort(order.rbegin(), order.rend());
  std::vector<std::vector<int32_t>> stages(static_cast<size_t>(problem.model.layers / count));
  std::vector<double> throughput(stages.size());
  for (const auto& [rate, u] : order) {
    const auto weakest = std::min_element(throughput.begin(), throughput.end());
    *weakest += rate;
    stages[static_cast<size_t>(weakest - throughput.begin())].push_back(u);
  }
  return stages;
}

}  // namespace

Result<LinkedPlacement> swarm(const PlanProblem& problem, const HeuristicOptions& options) {
  TRY(check_capacity(problem));
  TRY(check_single_devices(problem));
  ASSIGN_OR_RETURN(const int32_t count, stage_layers(problem, options.stages));
  const std::vector<std::vector<int32_t>> stages = form_stages(problem, count);
  if (stages.back().empty()) {
    return errorf(
        Code::kInvalidArgument,
        "swarm: {} stages of {} layers need {} nodes and the cluster has {}; choose fewer "
        "stages",
        stages.size(), count, stages.size(), problem.size());
  }
  LinkedPlacement plan;
  plan.method = "heterogeneous Swarm";
  plan.placement.nodes.resize(problem.units.size());
  const ArcIndex index(problem);
  const auto join = [&](int32_t from, int32_t to) -> Result<void> {
    ASSIGN_OR_RETURN(const PlanArc arc, index.find(from, to));
    plan.arcs.push_back(arc);
    return {};
  };
  for (const int32_t u : stages.front()) TRY(join(kSource, u));
  for (const int32_t u : stages.back()) TRY(join(u, kSink));
  PyRandom random(options.seed);
  for (size_t s = 0; s < stages.size(); ++s) {
    for (const int32_t u : stages[s]) {
      const auto begin = static_cast<int32_t>(s) * count;
      plan.placement.nodes[u] = {begin, begin + count};
      if (s + 1 == stages.size()) continue;
      const size_t degree =
          std::min(static_cast<size_t>(std::max(1, options.max_out_links)), stages[s + 1].size());
      for (const int32_t next : random.sample(stages[s + 1], degree)) TRY(join(u, next));
    }
  }
  for (int32_t u = 0; u < problem.size(); ++u) plan.written.push_back(u);
  return plan;
}

}  // namespace towline::plan
