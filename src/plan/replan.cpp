// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/replan.hpp"

#include <algorithm>
#include <numeric>

#include "plan/evaluator.hpp"
#include "plan/local_search.hpp"
#include "plan/objective.hpp"
#include "plan/stage_ip.hpp"

namespace towline::plan {
namespace {

// Steps of the search when none are given: a failure must be answered within half a second.
constexpr int64_t kQuickSteps = 80'000;

// What of the running plan is still possible on the changed cluster.
Placement remains(const Instance& instance, const Placement& running) {
  Placement left;
  left.nodes.resize(instance.rates.size());
  for (size_t i = 0; i < left.nodes.size() && i < running.nodes.size(); ++i) {
    const LayerRange range = running.nodes[i];
    const bool fits = !range.empty() && range.begin >= 0 && range.end <= instance.layers &&
                      range.size() <= instance.max_count(static_cast<int32_t>(i));
    if (fits) left.nodes[i] = range;
  }
  for (const SharedMachine& machine : instance.machines) {
    int64_t used = 0;
    for (size_t i = 0; i < machine.nodes.size(); ++i) {
      LayerRange& range = left.nodes[machine.nodes[i]];
      if (range.empty()) continue;
      used += machine.node_devices[i];
      if (used > machine.devices) range = {};
    }
  }
  return left;
}

// Nodes with the same table may exchange their ranges, where links allow, at no loss: hands the
// ranges of each type to the nodes that hold most of them already.
Placement relabel(const Instance& instance, const Placement& now, const Placement& next) {
  Placement result = next;
  std::vector<int32_t> all(instance.rates.size());
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int32_t> types = node_types(instance, all);
  struct Pair {
    int32_t overlap, node, range_of;
  };
  std::vector<Pair> pairs;
  for (const int32_t a : all) {
    for (const int32_t b : all) {
      if (types[a] != types[b]) continue;
      const int32_t begin = std::max(now.nodes[a].begin, next.nodes[b].begin);
      const int32_t end = std::min(now.nodes[a].end, next.nodes[b].end);
      pairs.push_back({std::max(end - begin, 0), a, b});
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Pair& a, const Pair& b) { return a.overlap > b.overlap; });
  std::vector<bool> served(all.size(), false);
  std::vector<bool> taken(all.size(), false);
  for (const Pair& pair : pairs) {
    if (served[pair.node] || taken[pair.range_of]) continue;
    served[pair.node] = taken[pair.range_of] = true;
    result.nodes[pair.node] = next.nodes[pair.range_of];
  }
  return result;
}

// Takes back changes, the ones that move most first, as long as the flow stays at `floor`.
void take_back(FlowEvaluator& evaluator, const Instance& instance, const Placement& now,
               Placement& next, double floor) {
  std::vector<int32_t> order(next.nodes.size());
  std::iota(order.begin(), order.end(), 0);
  const auto moved = [&](int32_t node) {
    int64_t sum = 0;
    for (const LayerRange range : layers_to_load(now.nodes[node], next.nodes[node])) {
      sum += range.size();
    }
    return sum;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return moved(a) > moved(b); });
  for (const int32_t node : order) {
    const LayerRange planned = next.nodes[node];
    if (moved(node) == 0) continue;
    for (const LayerRange other : {now.nodes[node], LayerRange{}}) {
      next.nodes[node] = other;
      const bool sound = instance.machines.empty() || validate(next, instance);
      if (sound && evaluator.flow(next.nodes) >= floor) break;
      next.nodes[node] = planned;
    }
  }
}

// Good placements near the present one: annealing from it, with a price on every layer to load.
std::vector<Placement> stay_near(const Instance& instance, const Placement& now,
                                 const SearchResult& found, const SearchOptions& search) {
  // Loading the whole model once costs this part of the best flow.
  static constexpr double kPrices[] = {0.05, 0.15, 0.4};
  std::vector<Placement> near;
  Annealer annealer(instance, search.partial);
  for (const double price : kPrices) {
    AnnealOptions options;
    options.seed = mix64(search.seed + near.size());
    options.steps = search.steps / 4;
    options.bound = found.bound;
    options.cover_cap = found.flow;
    options.home = &now;
    options.move_price = price * found.flow / instance.layers;
    options.stop = search.stop;
    near.push_back(annealer.run(near.empty() ? now : near.back(), options).placement);
  }
  near.push_back(annealer
                     .run(found.placement, {.seed = search.seed,
                                            .steps = search.steps / 4,
                                            .bound = found.bound,
                                            .cover_cap = found.flow,
                                            .move_price = 0.1 * found.flow / instance.layers,
                                            .home = &now,
                                            .stop = search.stop})
                     .placement);
  return near;
}

}  // namespace

std::vector<LayerRange> layers_to_load(LayerRange now, LayerRange next) {
  if (next.empty()) return {};
  if (now.empty() || now.end <= next.begin || next.end <= now.begin) return {next};
  std::vector<LayerRange> ranges;
  if (next.begin < now.begin) ranges.push_back({next.begin, now.begin});
  if (now.end < next.end) ranges.push_back({now.end, next.end});
  return ranges;
}

int64_t moved_layers(const Placement& now, const Placement& next) {
  int64_t sum = 0;
  for (size_t i = 0; i < next.nodes.size(); ++i) {
    for (const LayerRange range : layers_to_load(now.nodes[i], next.nodes[i])) sum += range.size();
  }
  return sum;
}

ReplanResult replan(const Instance& instance, const Placement& running,
                    const ReplanOptions& options) {
  ReplanResult result;
  const Placement now = remains(instance, running);
  FlowEvaluator evaluator(instance, options.search.partial);
  result.flow_before = evaluator.flow(now.nodes);

  SearchOptions search = options.search;
  search.starts.push_back(now);
  if (search.steps == 0) search.steps = kQuickSteps;
  // Half of the steps seek the best value, half stay near the running plan.
  const SearchResult found = search_placement(instance, search);
  result.bound = found.bound;
  result.best_flow = found.flow;
  result.best_moved_layers = moved_layers(now, found.placement);
  if (result.flow_before > 0 && result.flow_before >= options.hysteresis * found.flow) {
    result.stays = true;
    result.placement = now;
    result.flow = static_flow(instance, now, search.partial);
    return result;
  }
  const double floor = options.keep * found.flow;
  std::vector<Placement> candidates = found.best;
  for (Placement& near : stay_near(instance, now, found, search)) {
    candidates.push_back(std::move(near));
  }
  result.placement = found.placement;
  int64_t least = result.best_moved_layers;
  for (const Placement& candidate : candidates) {
    for (const bool renamed : {true, false}) {
      Placement next = renamed ? relabel(instance, now, candidate) : candidate;
      if (evaluator.flow(next.nodes) < floor) continue;
      take_back(evaluator, instance, now, next, floor);
      const int64_t moved = moved_layers(now, next);
      if (moved >= least) continue;
      least = moved;
      result.placement = std::move(next);
    }
  }
  result.moved_layers = moved_layers(now, result.placement);
  result.flow = static_flow(instance, result.placement, search.partial);
  return result;
}

std::vector<Transition> transitions(const Placement& now, const Placement& next,
                                    const TransferCosts& costs) {
  std::vector<Transition> list;
  const size_t nodes = next.nodes.size();
  for (size_t node = 0; node < nodes; ++node) {
    for (const LayerRange load : layers_to_load(now.nodes[node], next.nodes[node])) {
      Transition transition;
      transition.node = static_cast<int32_t>(node);
      transition.load = load;
      transition.bytes = costs.layer_bytes * load.size();
      double speed = costs.disk.empty() ? 0 : costs.disk[node];
      for (size_t from = 0; from < nodes && !costs.links.empty(); ++from) {
        const LayerRange held = now.nodes[from];
        const double link = costs.links[from * nodes + node];
        if (from == node || held.begin > load.begin || held.end < load.end || link <= speed) {
          continue;
        }
        speed = link;
        transition.from = static_cast<int32_t>(from);
      }
      const auto bytes = static_cast<double>(transition.bytes.value);
      transition.seconds = speed > 0 ? bytes / speed : 0;
      list.push_back(transition);
    }
  }
  return list;
}

}  // namespace towline::plan
