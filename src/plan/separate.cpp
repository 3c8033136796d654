// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>

#include "base/fmt.hpp"
#include "plan/heuristics.hpp"

namespace towline::plan {

ArcIndex::ArcIndex(const PlanProblem& problem)
    : problem_(problem), by_from_(problem.units.size() + 1) {
  for (size_t i = 0; i < problem.arcs.size(); ++i) {
    by_from_[static_cast<size_t>(problem.arcs[i].from + 1)].emplace_back(problem.arcs[i].to, i);
  }
  for (auto& arcs : by_from_) std::sort(arcs.begin(), arcs.end());
}

Result<PlanArc> ArcIndex::find(int32_t from, int32_t to) const {
  const auto& arcs = by_from_[static_cast<size_t>(from + 1)];
  const auto found = std::lower_bound(arcs.begin(), arcs.end(), std::pair(to, size_t{0}));
  if (found == arcs.end() || found->first != to) {
    const auto name = [&](int32_t end) {
      return end == kSource ? "source" : end == kSink ? "sink" : problem_.unit_name(end);
    };
    return errorf(
        Code::kInvalidArgument,
        "this method needs a link from '{}' to '{}', which the cluster does not have; use "
        "a complete cluster, or the methods milp or auto",
        name(from), name(to));
  }
  return problem_.arcs[found->second];
}

Result<void> check_single_devices(const PlanProblem& problem) {
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (problem.cluster.nodes[problem.units[u].node].devices != 1) {
      return errorf(
          Code::kUnsupported,
          "'{}' has several devices, which this method does not know; use the method auto",
          problem.cluster.nodes[problem.units[u].node].name);
    }
    if (problem.max_layers(u) < 1) {
      return errorf(Code::kInvalidArgument,
                    "not one layer of '{}' fits on '{}', and this method uses every node; remove "
                    "the node or use the method auto",
                    problem.model.name, problem.unit_name(u));
    }
  }
  return {};
}

namespace {

// Spreads the layers evenly over units[0..n), the longer shares last, and links them in a chain.
Result<void> add_pipeline(const PlanProblem& problem, const ArcIndex& index,
                          std::span<const int32_t> units, LinkedPlacement& plan) {
  const auto n = static_cast<int32_t>(units.size());
  const int32_t share = problem.model.layers / n;
  const int32_t longer = problem.model.layers % n;
  int32_t begin = 0;
  int32_t previous = kSource;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t end = begin + share + (i >= n - longer ? 1 : 0);
    plan.placement.nodes[units[i]] = {begin, end};
    begin = end;
    ASSIGN_OR_RETURN(const PlanArc arc, index.find(previous, units[i]));
    plan.arcs.push_back(arc);
    previous = units[i];
  }
  ASSIGN_OR_RETURN(const PlanArc out, index.find(previous, kSink));
  plan.arcs.push_back(out);
  return {};
}

// Of equal shares, the largest.
int32_t share_of(const PlanProblem& problem, size_t machines) {
  const auto n = static_cast<int32_t>(std::min<size_t>(machines, problem.model.layers));
  return (problem.model.layers + n - 1) / n;
}

// Layers that fit on each of `units` by the rule that weights take half of the memory.
int32_t fits_on_all(const PlanProblem& problem, std::span<const int32_t> units) {
  int32_t fits = problem.model.layers;
  for (const int32_t u : units) fits = std::min(fits, problem.max_layers(u));
  return fits;
}

// Can they hold the model with memory left for a KV cache? The rule gives weights half of the
// memory, so twice the layers that it allows would leave nothing.
bool hold_model(const PlanProblem& problem, std::span<const int32_t> units) {
  return !units.empty() && share_of(problem, units.size()) < 2 * fits_on_all(problem, units);
}

// As many pipelines over `units` as fit by the rule; one even if none does.
Result<void> add_pipelines(const PlanProblem& problem, const ArcIndex& index,
                           std::span<const int32_t> units, LinkedPlacement& plan) {
  const int32_t fits = fits_on_all(problem, units);
  const auto needed = static_cast<size_t>((problem.model.layers + fits - 1) / fits);
  const size_t replicas = std::max<size_t>(1, units.size() / needed);
  const auto limit = static_cast<size_t>(problem.model.layers);  // a layer each at least
  size_t begin = 0;
  for (size_t r = 0; r < replicas; ++r) {
    const size_t end = units.size() * (r + 1) / replicas;
    const auto used = units.subspan(begin, std::min(end - begin, limit));
    TRY(add_pipeline(problem, index, used, plan));
    plan.written.insert(plan.written.end(), used.begin(), used.end());
    begin = end;
  }
  return {};
}

// The machines of every type, fast types first.
std::vector<std::vector<int32_t>> units_by_type(const PlanProblem& problem) {
  std::vector<std::vector<int32_t>> types(problem.tables.size());
  for (int32_t u = 0; u < problem.size(); ++u) types[problem.units[u].table].push_back(u);
  std::erase_if(types, [](const std::vector<int32_t>& units) { return units.empty(); });
  std::stable_sort(types.begin(), types.end(), [&](const auto& a, const auto& b) {
    return problem.table_rate(a.front(), 1) > problem.table_rate(b.front(), 1);
  });
  return types;
}

Result<LinkedPlacement> place_separately(const PlanProblem& problem, bool pool_the_rest) {
  TRY(check_single_devices(problem));
  LinkedPlacement plan;
  plan.method = "ILP";  // the heading of the published files
  plan.placement.nodes.resize(problem.units.size());
  const ArcIndex index(problem);
  std::vector<int32_t> rest;
  for (const std::vector<int32_t>& units : units_by_type(problem)) {
    if (hold_model(problem, units)) {
      TRY(add_pipelines(problem, index, units, plan));
    } else {
      rest.insert(rest.end(), units.begin(), units.end());
    }
  }
  if (pool_the_rest && hold_model(problem, rest)) TRY(add_pipelines(problem, index, rest, plan));
  if (plan.written.empty()) {
    return errorf(Code::kInvalidArgument,
                  "no machine type can hold the {} layers of '{}' by itself{}; use the method auto",
                  problem.model.layers, problem.model.name,
                  pool_the_rest ? ", nor can all together in equal shares" : "");
  }
  std::sort(plan.written.begin(), plan.written.end());
  return plan;
}

}  // namespace

Result<LinkedPlacement> separate(const PlanProblem& problem, const HeuristicOptions&) {
  return place_separately(problem, false);
}

Result<LinkedPlacement> separate_plus(const PlanProblem& problem, const HeuristicOptions&) {
  return place_separately(problem, true);
}

}  // namespace towline::plan
