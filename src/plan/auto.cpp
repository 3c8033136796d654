// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/auto.hpp"

#include <algorithm>
#include <cmath>
#include <thread>

#include "base/fmt.hpp"
#include "plan/bounds.hpp"
#include "plan/evaluator.hpp"
#include "plan/local_search.hpp"
#include "plan/objective.hpp"
#include "plan/starts.hpp"

namespace towline::plan {
namespace {

constexpr int32_t kManyNodes = 64;
constexpr double kMet = 1 - 1e-9;  // a flow this close to the bound meets it

// What one annealing run of the portfolio does.
struct RunPlan {
  bool from_incumbent;
  double hot;
  double cover_weight;
  // Coverage is rewarded up to this part of the incumbent's flow, or, while there is none, of the
  // bound: just above what the run may hope for.
  double incumbent_cap, bound_cap;
};

RunPlan run_plan(int64_t run) {
  static constexpr double kIncumbentCap[] = {1.05, 1.08, 1.03, 1.12};
  static constexpr double kBoundCap[] = {0.9, 0.95, 0.85, 0.8};
  const int64_t round = run / kRunsPerRound;
  const double incumbent_cap = kIncumbentCap[(round + run) % 4];
  const double bound_cap = kBoundCap[run % 4];
  switch (run % kRunsPerRound) {
    case 0: return {false, 0.01, 1, incumbent_cap, bound_cap};
    case 1: return {false, 0.005, 1, incumbent_cap, bound_cap};
    case 2: return {round > 0, 0.01, 0.3, incumbent_cap, bound_cap};
    default: return {round > 0, 0.003, 1, incumbent_cap, bound_cap};
  }
}

using Met = std::vector<std::pair<double, Placement>>;  // (worth, placement)

class Portfolio {
 public:
  Portfolio(const Instance& instance, const SearchOptions& options, SearchResult& result,
            const std::vector<Start>& starts, Met& met)
      : instance_(instance), options_(options), result_(result), starts_(starts), met_(met) {
    scale_ = truncated_capacity_bound(instance);
    dense_ = FlowEvaluator(instance, options.partial).groups() == 1;
    total_steps_ = options.steps > 0   ? options.steps
                   : options.spare_one ? 400'000  // a maximum flow for each node, each step
                   : options.worth     ? 3'200'000
                   : dense_            ? 400'000
                                       : 16'000'000;
    if (options.steps == 0 && instance.nodes() > kManyNodes) {
      // A step costs about as much as there are nodes, and tells less.
      const double shrink = std::pow(1.0 * kManyNodes / instance.nodes(), 2.5);
      total_steps_ = static_cast<int64_t>(static_cast<double>(total_steps_) * shrink);
    }
    const int64_t most_rounds = options.worth ? 6 : dense_ ? 2 : 4;
    const int64_t rounds = std::clamp<int64_t>(total_steps_ / 400'000, 1, most_rounds);
    steps_per_run_ = std::max<int64_t>(total_steps_ / (rounds * kRunsPerRound), 1);
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
        met_.emplace_back(found[i].worth, found[i].placement);
        if (found[i].worth > result_.worth * (1 + 1e-12)) {
          result_.worth = found[i].worth;
          result_.placement = found[i].placement;
          result_.found_by = format("annealing run {}", round * kRunsPerRound + i + 1);
        }
      }
      if (options_.progress) {
        options_.progress({result_.steps, result_.worth, result_.bound, result_.found_by});
      }
    }
  }

 private:
  bool done() const {
    const bool stopped = options_.stop != nullptr && options_.stop->load();
    return stopped || result_.worth >= result_.bound * options_.worth_per_flow * kMet;
  }

  // One node more or less is a larger part of the flow where there are few.
  double small_scale() const { return std::clamp(24.0 / instance_.nodes(), 1.0, 6.0); }

  // The first run of a round starts from the stages, the others from each start in turn.
  const Placement& fresh_start(int64_t run) const {
    const size_t turn = run % kRunsPerRound == 0 ? 0 : static_cast<size_t>(run);
    return starts_[turn % starts_.size()].placement;
  }

  AnnealResult one_run(int64_t run) const {
    const RunPlan plan = run_plan(run);
    AnnealOptions anneal;
    anneal.seed = mix64(options_.seed) ^ mix64(static_cast<uint64_t>(run));
    anneal.steps = steps_per_run_;
    anneal.hot = plan.hot * small_scale();
    anneal.cover_weight = plan.cover_weight;
    anneal.bound = scale_;
    const bool near = options_.worth ? result_.worth > 0 : result_.worth > 0.5 * scale_;
    anneal.cover_cap =
        near ? std::min(plan.incumbent_cap * result_.worth, scale_) : plan.bound_cap * scale_;
    anneal.stop = options_.stop;
    if (options_.worth) anneal.worth = options_.worth();
    anneal.worth_per_flow = options_.worth_per_flow;
    anneal.spare_one = options_.spare_one;
    anneal.spare_cap = 1.02 * options_.spare_cap;
    anneal.enough = result_.bound;
    return Annealer(instance_, options_.partial)
        .run(plan.from_incumbent ? result_.placement : fresh_start(run), anneal);
  }

  const Instance& instance_;
  const SearchOptions& options_;
  SearchResult& result_;
  const std::vector<Start>& starts_;
  Met& met_;
  double scale_;  // of the flow: temperatures and caps are parts of it
  bool dense_;
  int64_t total_steps_;
  int64_t steps_per_run_;
};

}  // namespace

SearchResult search_placement(const Instance& instance, const SearchOptions& options) {
  SearchResult result;
  result.bound = link_aware_bound(instance, options.partial);
  result.placement.nodes.resize(instance.rates.size());
  if (result.bound <= 0) return result;

  Met met;
  FlowEvaluator evaluator(instance, options.partial);
  const Worth worth = options.worth ? options.worth() : Worth();
  const auto offer = [&](const Placement& placement, const std::string& name) {
    const double flow = evaluator.flow(placement.nodes);
    if (flow <= 0) return;
    const double value = worth ? worth(evaluator, placement.nodes, flow) : flow;
    met.emplace_back(value, placement);
    if (value <= result.worth) return;
    result.worth = value;
    result.placement = placement;
    result.found_by = name;
  };
  std::vector<int32_t> group;
  for (int32_t node = 0; node < instance.nodes(); ++node) group.push_back(evaluator.group(node));
  std::vector<Start> starts = make_starts(instance, group);
  for (size_t s = 0; s < options.starts.size(); ++s) {
    starts.push_back({format("start {}", s + 1), options.starts[s]});
  }
  for (const Start& start : starts) offer(start.placement, start.name);
  if (options.progress) {
    options.progress({0, result.worth, result.bound, result.found_by});
  }
  // The pool of the annealing runs begins with the stages; whatever passes no flow beside something
  // that does is left in: it may be closer to a better plan.
  std::stable_partition(starts.begin(), starts.end(),
                        [](const Start& start) { return start.name == "stages"; });
  Portfolio(instance, options, result, starts, met).run();
  std::stable_sort(met.begin(), met.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (const auto& [_, placement] : met) {
    if (std::find(result.best.begin(), result.best.end(), placement) == result.best.end()) {
      result.best.push_back(placement);
    }
  }
  result.flow = static_flow(instance, result.placement, options.partial);
  if (!options.worth) result.worth = result.flow;
  result.optimal = result.worth >= result.bound * kMet;
  return result;
}

}  // namespace towline::plan
