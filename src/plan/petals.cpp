// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tuple>

#include "base/fmt.hpp"
#include "base/mt19937_py.hpp"
#include "plan/heuristics.hpp"

namespace towline::plan {
namespace {

// Where `count` layers are needed most: the window whose throughputs, sorted, are least in
// lexicographic order; the earliest of equal ones.
int32_t weakest_window(const std::vector<double>& throughput, int32_t count) {
  std::vector<double> best;
  int32_t best_begin = 0;
  for (size_t begin = 0; begin + static_cast<size_t>(count) <= throughput.size(); ++begin) {
    const auto first = throughput.begin() + static_cast<std::ptrdiff_t>(begin);
    std::vector<double> window(first, first + count);
    std::sort(window.begin(), window.end());
    if (best.empty() || window < best) {
      best = std::move(window);
      best_begin = static_cast<int32_t>(begin);
    }
  }
  return best_begin;
}

// The links that leave a node: to nodes that begin where it ends, then, if there is room, to those
// that overlap its end; the slowest first (as the reference does; of no effect with room for all).
Result<std::vector<PlanArc>> leaving_arcs(const PlanProblem& problem, const Placement& placement,
                                          const ArcIndex& index, int32_t from, size_t most) {
  struct Candidate {
    bool overlaps;
    double capacity;
    int32_t to;
    PlanArc arc;
  };
  std::vector<Candidate> candidates;
  for (int32_t to = 0; to < problem.size(); ++to) {
    if (to == from || !usable(placement.nodes[from], placement.nodes[to], true)) continue;
    ASSIGN_OR_RETURN(const PlanArc arc, index.find(from, to));
    const bool overlaps = placement.nodes[from].end != placement.nodes[to].begin;
    candidates.push_back({overlaps, problem.arc_capacity(arc), to, arc});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.overlaps, a.capacity, a.to) < std::tie(b.overlaps, b.capacity, b.to);
  });
  std::vector<PlanArc> arcs;
  for (const Candidate& candidate : candidates) {
    if (arcs.size() < most) arcs.push_back(candidate.arc);
  }
  return arcs;
}

// Links the placement; a node that nothing leads to makes the plan unfit for the router.
Result<void> link(const PlanProblem& problem, size_t most, LinkedPlacement& plan) {
  const ArcIndex index(problem);
  std::vector<bool> reached(problem.units.size());
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (plan.placement.nodes[u].begin == 0) {
      ASSIGN_OR_RETURN(const PlanArc arc, index.find(kSource, u));
      plan.arcs.push_back(arc);
      reached[u] = true;
    }
    if (plan.placement.nodes[u].end == problem.model.layers) {
      ASSIGN_OR_RETURN(const PlanArc arc, index.find(u, kSink));
      plan.arcs.push_back(arc);
    }
  }
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (plan.placement.nodes[u].end == problem.model.layers) continue;
    ASSIGN_OR_RETURN(const std::vector<PlanArc> arcs,
                     leaving_arcs(problem, plan.placement, index, u, most));
    for (const PlanArc& arc : arcs) reached[arc.to] = true;
    plan.arcs.insert(plan.arcs.end(), arcs.begin(), arcs.end());
  }
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (!reached[u]) {
      return errorf(Code::kInvalidArgument,
                    "petals: no link leads to '{}'; raise --max-out-links above {}",
                    problem.unit_name(u), most);
    }
  }
  return {};
}

}  // namespace

Result<LinkedPlacement> petals(const PlanProblem& problem, const HeuristicOptions& options) {
  TRY(check_capacity(problem));
  TRY(check_single_devices(problem));
  std::vector<std::pair<double, int32_t>> order;
  for (int32_t u = 0; u < problem.size(); ++u) {
    order.emplace_back(problem.rate(u, problem.max_layers(u)), u);
  }
  PyRandom random(options.seed);
  random.shuffle(order);
  LinkedPlacement plan;
  plan.method = "heterogeneous Petals";
  plan.placement.nodes.resize(problem.units.size());
  std::vector<double> throughput(static_cast<size_t>(problem.model.layers));
  for (const auto& [rate, u] : order) {
    const int32_t count = problem.max_layers(u);
    const int32_t begin = weakest_window(throughput, count);
    plan.placement.nodes[u] = {begin, begin + count};
    for (int32_t layer = begin; layer < begin + count; ++layer) throughput[layer] += rate;
  }
  for (int32_t u = 0; u < problem.size(); ++u) plan.written.push_back(u);
  TRY(link(problem, static_cast<size_t>(std::max(1, options.max_out_links)), plan));
  return plan;
}

}  // namespace towline::plan
