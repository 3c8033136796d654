// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/objectives.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <memory>

#include "base/fmt.hpp"

namespace towline::plan {
namespace {

constexpr double kTieBreak = 0.01;      // of the flow, beside what remains after a failure
constexpr double kIncomplete = 0.5;     // of a plan's worth, at most, where least_n1 is not met

// The state that one thread's evaluations share.
struct Appraiser {
  Objective objective;
  std::unique_ptr<ServingEstimator> estimator;
  std::vector<VertexFlow> flows;
  std::vector<LayerRange> survivors;
  std::vector<bool> used;
  double all_prices = 0;

  double survival(FlowEvaluator& evaluator, std::span<const LayerRange> ranges, double flow) {
    evaluator.flows(flows);
    std::vector<int32_t> users;
    for (const VertexFlow& arc : flows) {
      if (arc.to >= 0 && arc.to < static_cast<int32_t>(ranges.size())) users.push_back(arc.to);
    }
    std::sort(users.begin(), users.end());
    users.erase(std::unique(users.begin(), users.end()), users.end());
    survivors.assign(ranges.begin(), ranges.end());
    double least = flow;
    for (const int32_t node : users) {
      survivors[node] = {};
      least = std::min(least, evaluator.flow(survivors));
      survivors[node] = ranges[node];
      if (least <= 0) break;
    }
    return least;
  }

  double price_of_users(const FlowEvaluator& evaluator, size_t nodes) {
    evaluator.flows(flows);
    used.assign(nodes, false);
    double price = 0;
    for (const VertexFlow& arc : flows) {
      if (arc.to < 0 || static_cast<size_t>(arc.to) >= nodes || used[arc.to]) continue;
      used[arc.to] = true;
      price += objective.prices[arc.to];
    }
    return price;
  }

  double cost_worth(const FlowEvaluator& evaluator, size_t nodes, double flow) {
    if (flow < objective.target_rate * (1 - 1e-9)) return 0.5 * flow;
    const double saved = 1 - price_of_users(evaluator, nodes) / all_prices;
    return 0.5 * objective.target_rate * (1 + saved);
  }

  double operator()(FlowEvaluator& evaluator, std::span<const LayerRange> ranges, double flow) {
    double worth = flow;
    if (objective.goal == Goal::kCost) worth = cost_worth(evaluator, ranges.size(), flow);
    if (estimator != nullptr) {
      const LatencyGoals goals =
          objective.goal == Goal::kGoodput ? objective.latency : LatencyGoals{};
      worth = estimator->estimate(evaluator, ranges, flow, goals, objective.stretch).tokens;
    }
    if (objective.goal != Goal::kSurvival && objective.least_n1 <= 0) return worth;
    const double remains = survival(evaluator, ranges, flow);
    if (objective.goal == Goal::kSurvival) {
      worth = kTieBreak * flow + (1 - kTieBreak) * remains;
    }
    if (remains >= objective.least_n1) return worth;
    return worth * kIncomplete * (0.1 + 0.9 * remains / objective.least_n1);
  }
};

Result<double> parse_time(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  const double factor = unit.empty() || unit == "s" ? 1 : unit == "ms" ? 1e-3 : 0;
  if (error != std::errc() || factor == 0 || !(value > 0 && value < 1e9)) {
    return errorf(Code::kInvalidArgument, "'{}' is not a time above 0; write it like 0.25 or 250ms",
                  text);
  }
  return value * factor;
}

}  // namespace

WorthMaker worth_of(const Objective& objective) {
  if (objective.is_flow()) return {};
  return [objective]() -> Worth {
    const auto appraiser = std::make_shared<Appraiser>();
    appraiser->objective = objective;
    for (const double price : objective.prices) appraiser->all_prices += price;
    if (objective.goal == Goal::kServed || objective.goal == Goal::kGoodput) {
      appraiser->estimator = std::make_unique<ServingEstimator>(*objective.model);
    }
    return [appraiser](FlowEvaluator& evaluator, std::span<const LayerRange> ranges, double flow) {
      return (*appraiser)(evaluator, ranges, flow);
    };
  };
}

double n_minus_1_flow(FlowEvaluator& evaluator, std::span<const LayerRange> ranges, double flow) {
  return Appraiser().survival(evaluator, ranges, flow);
}

Placement without_unused(const Instance& instance, const Placement& placement, bool partial) {
  FlowEvaluator evaluator(instance, partial);
  evaluator.flow(placement.nodes);
  std::vector<VertexFlow> flows;
  evaluator.flows(flows);
  Placement kept;
  kept.nodes.resize(placement.nodes.size());
  for (const VertexFlow& arc : flows) {
    if (arc.to >= 0 && arc.to < instance.nodes()) kept.nodes[arc.to] = placement.nodes[arc.to];
  }
  return kept;
}

double cost_bound(const Instance& instance, const std::vector<double>& prices, double rate) {
  std::vector<std::pair<double, double>> offers;  // (price of a layer-token/s, layer-tokens/s)
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    double supply = 0;
    for (int32_t k = 1; k <= instance.max_count(node); ++k) {
      supply = std::max(supply, k * std::min(instance.rate(node, k), rate));
    }
    if (supply > 0) offers.emplace_back(prices[node] / supply, supply);
  }
  std::sort(offers.begin(), offers.end());
  double needed = rate * instance.layers * (1 - 1e-9);
  double cost = 0;
  for (const auto& [price, supply] : offers) {
    const double taken = std::min(supply, needed);
    cost += taken * price;
    needed -= taken;
    if (needed <= 0) return cost;
  }
  return std::numeric_limits<double>::infinity();
}

Result<LatencyGoals> parse_latency_goals(std::string_view text) {
  LatencyGoals goals;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view item = text.substr(at, comma - at);
    at = comma + 1;
    const size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    if (equals == std::string_view::npos || (name != "ttft" && name != "tpot")) {
      return errorf(Code::kInvalidArgument, "--slo '{}': write it like ttft=2,tpot=0.25 (seconds)",
                    text);
    }
    Result<double> time = parse_time(item.substr(equals + 1));
    if (!time) return std::move(time).error();
    (name == "ttft" ? goals.ttft : goals.tpot) = *time;
  }
  return goals;
}

}  // namespace towline::plan
