// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/judge.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "base/rng.hpp"
#include "sim/helix_engine.hpp"
#include "sim/helix_load.hpp"

namespace towline::sim {

std::vector<std::pair<int32_t, int32_t>> typical_lengths() {
  constexpr size_t kPairs = 4096;
  Rng rng(1);
  const auto draw = [&](double median, double sigma, double least, double most) {
    for (;;) {
      const double angle = 2 * std::numbers::pi * rng.unit();
      const double z = std::sqrt(-2 * std::log(1 - rng.unit())) * std::cos(angle);
      const double x = std::round(median * std::exp(sigma * z));
      if (x >= least && x <= most) return static_cast<int32_t>(x);
    }
  };
  std::vector<std::pair<int32_t, int32_t>> lengths;
  for (size_t i = 0; i < kPairs; ++i) {
    const int32_t input = draw(800, 0.9, 4, 2047);
    lengths.emplace_back(input, draw(180, 0.85, 4, 1000));
  }
  return lengths;
}

namespace {

// The tables of speeds are those of the whole cluster: its machines as they are divided into groups
// by the plan, idle ones as one group of the largest size.
spec::MachineMix machines_of(const plan::PlanProblem& problem, const plan::LinkedPlacement& plan) {
  std::map<std::string, int32_t> counts;
  std::vector<bool> used(problem.cluster.nodes.size(), false);
  for (const int32_t unit : plan.written) {
    ++counts[problem.table(unit).type];
    used[problem.units[unit].node] = true;
  }
  for (int32_t unit = 0; unit < problem.size(); ++unit) {
    if (used[problem.units[unit].node]) continue;
    used[problem.units[unit].node] = true;  // a machine's first unit is its largest group
    ++counts[problem.table(unit).type];
  }
  return {counts.begin(), counts.end()};
}

}  // namespace

Result<Judgement> judge(const plan::PlanProblem& problem, const plan::LinkedPlacement& plan,
                        const spec::Profile& profile, const JudgeOptions& options) {
  const spec::MachineMix counts = machines_of(problem, plan);
  spec::HelixSimCluster cluster = plan::to_sim_cluster(problem, plan);
  for (size_t i = 0; i < plan.written.size(); ++i) {
    cluster.nodes[i].name = spec::helix_node_name(plan.written[i]);  // it goes by these names
  }
  ASSIGN_OR_RETURN(HelixInput input,
                   make_helix_input(cluster,
                                    plan::to_helix_solution(plan.placement), profile,
                                    counts));
  plan_flow(input);
  Judgement judgement;
  judgement.max_flow = input.max_flow;
  HelixOptions helix;
  helix.seed = options.seed;
  helix.warm_up = options.warm_up;
  helix.duration = options.duration;
  HelixTraffic traffic{options.lengths.empty() ? typical_lengths() : options.lengths, {}};
  ASSIGN_OR_RETURN(HelixEngine engine,
                   HelixEngine::make(std::move(input), helix, std::move(traffic)));
  ASSIGN_OR_RETURN(const HelixReport report, engine.run(nullptr, nullptr));
  judgement.decode_tps = report.decode_tps;
  judgement.prompt_latency = report.prompt.mean;
  judgement.decode_latency = report.decode.mean;
  judgement.in_flight = report.active;
  return judgement;
}

}  // namespace towline::sim
