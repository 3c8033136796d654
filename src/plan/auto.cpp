// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/auto.hpp"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <thread>

#include "base/fmt.hpp"
#include "plan/bounds.hpp"
#include "plan/evaluator.hpp"
#include "plan/local_search.hpp"
#include "plan/objective.hpp"
#include "plan/stage_ip.hpp"

namespace towline::plan {
namespace {

constexpr double kMet = 1 - 1e-9;  // a flow this close to the bound meets it

// The whole model on the one node that serves it best.
Placement best_single_node(const Instance& instance) {
  Placement placement;
  placement.nodes.resize(instance.rates.size());
  FlowEvaluator evaluator(instance, false);
  double best = 0;
  int32_t best_node = -1;
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    if (instance.max_count(node) < instance.layers) continue;
    placement.nodes[node] = {0, instance.layers};
    const double flow = evaluator.flow(placement.nodes);
    placement.nodes[node] = {};
    if (flow > best) {
      best = flow;
      best_node = node;
    }
  }
  if (best_node >= 0) placement.nodes[best_node] = {0, instance.layers};
  return placement;
}

// What one annealing run of the portfolio does.
struct RunPlan {
  std::vector<double> lent;  // link lent to every pair, parts of the bound, in order; the last is 0
  double hot;
  double surrogate;
  bool from_incumbent;
};

RunPlan run_plan(int64_t run, bool dense) {
  static constexpr double kHot[] = {0.01, 0.003, 0.03};
  const double hot = kHot[(run / kRunsPerRound) % 3];
  switch (run % kRunsPerRound) {
    case 0:
      return {dense ? std::vector<double>{0} : std::vector<double>{0.5, 0.2, 0.1, 0.05, 0}, hot,
              0.3, false};
    case 1:
      return {dense ? std::vector<double>{0} : std::vector<double>{0.5, 0.2, 0.1, 0.05, 0}, hot, 1,
              false};
    case 2: return {{0}, hot, 0.3, dense};
    default: return {{0}, 0.003, 0.3, true};
  }
}

class Portfolio {
 public:
  Portfolio(const Instance& instance, const SearchOptions& options, SearchResult& result,
            const Placement& stage_start)
      : instance_(instance), options_(options), result_(result), stage_start_(stage_start) {
    dense_ = FlowEvaluator(instance, options.partial).groups() == 1;
    total_steps_ = options.steps > 0 ? options.steps : dense_ ? 800'000 : 16'000'000;
    steps_per_run_ = std::max<int64_t>(total_steps_ / (dense_ ? 4 : 12), 1);
  }

  void run() {
    for (int64_t round = 0; result_.steps < total_steps_ && !done(); ++round) {
      std::vector<AnnealResult> found(kRunsPerRound);
      const int32_t threads = std::clamp(options_.threads, 1, kRunsPerRound);
      std::vector<std::thread> crew;
      const auto work = [&](int32_t worker) {
        for (int32_t i = worker; i < kRunsPerRound; i += threads) {
          found[i] = one_run(round * kRunsPerRound + i);
        }
      };
      for (int32_t t = 1; t < threads; ++t) crew.emplace_back(work, t);
      work(0);
      for (std::thread& member : crew) member.join();
      for (int32_t i = 0; i < kRunsPerRound; ++i) {
        result_.steps += found[i].steps;
        result_.evaluations += found[i].evaluations;
        if (found[i].flow > result_.flow * (1 + 1e-12)) {
          result_.flow = found[i].flow;
          result_.placement = std::move(found[i].placement);
          result_.found_by = format("annealing run {}", round * kRunsPerRound + i + 1);
        }
      }
      if (options_.progress) {
        options_.progress({result_.steps, result_.flow, result_.bound, result_.found_by});
      }
    }
  }

 private:
  bool done() const {
    const bool stopped = options_.stop != nullptr && options_.stop->load();
    return stopped || result_.flow >= result_.bound * kMet;
  }

  AnnealResult one_run(int64_t run) const {
    const RunPlan plan = run_plan(run, dense_);
    AnnealResult total;
    total.placement = plan.from_incumbent ? result_.placement : stage_start_;
    for (size_t phase = 0; phase < plan.lent.size(); ++phase) {
      AnnealOptions anneal;
      anneal.seed = mix64(options_.seed) ^ mix64(static_cast<uint64_t>(run) * 16 + phase);
      anneal.steps = steps_per_run_ / static_cast<int64_t>(plan.lent.size());
      anneal.hot = plan.hot;
      anneal.cold = plan.lent[phase] > 0 ? plan.hot / 3 : 0.0003;
      anneal.surrogate = plan.surrogate;
      anneal.bound = result_.bound;
      anneal.stop = options_.stop;
      Annealer annealer(instance_, options_.partial, plan.lent[phase] * result_.bound);
      const AnnealResult found = annealer.run(total.placement, anneal);
      total.placement = found.placement;
      total.flow = plan.lent[phase] > 0 ? 0 : found.flow;
      total.steps += found.steps;
      total.evaluations += found.evaluations;
    }
    return total;
  }

  const Instance& instance_;
  const SearchOptions& options_;
  SearchResult& result_;
  const Placement& stage_start_;
  bool dense_;
  int64_t total_steps_;
  int64_t steps_per_run_;
};

}  // namespace

SearchResult search_placement(const Instance& instance, const SearchOptions& options) {
  SearchResult result;
  result.bound = truncated_capacity_bound(instance);
  result.placement.nodes.resize(instance.rates.size());
  if (result.bound <= 0) return result;

  FlowEvaluator evaluator(instance, options.partial);
  const auto offer = [&](const Placement& placement, const std::string& name) {
    const double flow = evaluator.flow(placement.nodes);
    if (flow <= result.flow) return;
    result.flow = flow;
    result.placement = placement;
    result.found_by = name;
  };
  offer(best_single_node(instance), "single node");
  for (size_t s = 0; s < options.starts.size(); ++s) {
    offer(options.starts[s], format("start {}", s + 1));
  }
  std::vector<int32_t> all(instance.rates.size());
  std::iota(all.begin(), all.end(), 0);
  const Placement stages = place(best_stages(instance, all), instance);
  offer(stages, "stages");
  if (options.progress) {
    options.progress({0, result.flow, result.bound, result.found_by});
  }
  Portfolio(instance, options, result, stages).run();
  result.flow = static_flow(instance, result.placement, options.partial);
  result.optimal = result.flow >= result.bound * kMet;
  return result;
}

}  // namespace towline::plan
