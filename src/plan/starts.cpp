// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/starts.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <utility>

#include "base/fmt.hpp"
#include "plan/stage_ip.hpp"

namespace towline::plan {
namespace {

constexpr int32_t kLeastNodesPerPipeline = 2;

// The sets of nodes to choose from. All of them, unless machines can be divided in several ways:
// then, for every group size s, the division of each machine into as many groups of s devices as
// fit (or of its largest size below s).
std::vector<std::vector<int32_t>> node_choices(const Instance& instance) {
  std::vector<bool> divisible(instance.rates.size(), false);
  std::set<int32_t> sizes;
  for (const SharedMachine& machine : instance.machines) {
    for (const int32_t node : machine.nodes) divisible[node] = true;
    sizes.insert(machine.node_devices.begin(), machine.node_devices.end());
  }
  if (sizes.empty()) sizes.insert(1);
  std::vector<std::vector<int32_t>> choices;
  for (const int32_t size : sizes) {
    std::vector<int32_t> nodes;
    for (int32_t node = 0; node < instance.nodes(); ++node) {
      if (!divisible[node]) nodes.push_back(node);
    }
    for (const SharedMachine& machine : instance.machines) {
      int32_t chosen = 0;
      for (const int32_t devices : machine.node_devices) {
        if (devices <= size) chosen = std::max(chosen, devices);
      }
      int32_t left = machine.devices;
      for (size_t i = 0; i < machine.nodes.size(); ++i) {
        if (machine.node_devices[i] != chosen || left < chosen) continue;
        nodes.push_back(machine.nodes[i]);
        left -= chosen;
      }
    }
    choices.push_back(std::move(nodes));
  }
  return choices;
}

void lay_over(Placement& placement, const Placement& more) {
  for (size_t i = 0; i < more.nodes.size(); ++i) {
    if (!more.nodes[i].empty()) placement.nodes[i] = more.nodes[i];
  }
}

struct Pipelines {
  int32_t count = 0;
  double flow = 0;  // sum of the pipelines', links ignored
  Placement placement;
};

// Deals the nodes, type by type, to `parts` pipelines.
Pipelines deal(const Instance& instance, std::vector<int32_t> nodes, int32_t parts) {
  const std::vector<int32_t> types = node_types(instance, nodes);
  std::vector<size_t> order(nodes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return types[a] < types[b]; });
  std::vector<std::vector<int32_t>> hands(parts);
  std::vector<std::vector<int32_t>> hand_types(parts);
  for (size_t i = 0; i < order.size(); ++i) {
    hands[i % parts].push_back(nodes[order[i]]);
    hand_types[i % parts].push_back(types[order[i]]);
  }
  Pipelines result;
  result.count = parts;
  result.placement.nodes.resize(instance.rates.size());
  // Hands of the same mix make the same pipeline; plan it once.
  std::map<std::vector<int32_t>, StagePlan> known;
  std::map<std::vector<int32_t>, std::vector<int32_t>> known_hand;
  for (int32_t p = 0; p < parts; ++p) {
    auto [plan, fresh] = known.try_emplace(hand_types[p]);
    if (fresh) {
      plan->second = best_stages(instance, hands[p]);
      known_hand[hand_types[p]] = hands[p];
    }
    result.flow += plan->second.flow;
    const std::vector<int32_t>& first = known_hand[hand_types[p]];
    const Placement of_first = place(plan->second, instance);
    for (size_t i = 0; i < first.size(); ++i) {
      result.placement.nodes[hands[p][i]] = of_first.nodes[first[i]];
    }
  }
  return result;
}

Pipelines best_pipelines(const Instance& instance, const std::vector<int32_t>& nodes,
                         int32_t least) {
  Pipelines best;
  best.placement.nodes.resize(instance.rates.size());
  const auto most = static_cast<int32_t>(nodes.size()) / kLeastNodesPerPipeline;
  for (int32_t parts = least; parts <= std::max(least, most); parts += 1 + parts / 4) {
    if (parts > static_cast<int32_t>(nodes.size())) break;
    Pipelines pipelines = deal(instance, nodes, parts);
    if (pipelines.flow > best.flow) best = std::move(pipelines);
  }
  return best;
}

// S blocks of nearly equal depth; nodes in falling order of rate, each to the poorest block.
Pipelines balanced_blocks(const Instance& instance, const std::vector<int32_t>& nodes) {
  Pipelines best;
  best.placement.nodes.resize(instance.rates.size());
  for (int32_t blocks = 1; blocks <= instance.layers; ++blocks) {
    // The deepest block decides which nodes can take part.
    const int32_t depth = (instance.layers + blocks - 1) / blocks;
    std::vector<std::pair<double, int32_t>> rated;
    for (const int32_t node : nodes) {
      if (instance.max_count(node) >= depth) rated.emplace_back(-instance.rate(node, depth), node);
    }
    if (static_cast<int32_t>(rated.size()) < blocks) continue;
    std::sort(rated.begin(), rated.end());
    std::priority_queue<std::pair<double, int32_t>> poorest;  // (-rate so far, -block)
    for (int32_t b = 0; b < blocks; ++b) poorest.emplace(0.0, -b);
    Placement placement;
    placement.nodes.resize(instance.rates.size());
    for (const auto& [negative_rate, node] : rated) {
      const auto [sum, negative_block] = poorest.top();
      poorest.pop();
      poorest.emplace(sum + negative_rate, negative_block);
      const int64_t block = -negative_block;
      placement.nodes[node] = {static_cast<int32_t>(block * instance.layers / blocks),
                               static_cast<int32_t>((block + 1) * instance.layers / blocks)};
    }
    const double flow = -poorest.top().first;
    if (flow > best.flow) best = {blocks, flow, std::move(placement)};
  }
  return best;
}

// The whole model on the one node that serves it best.
Pipelines best_single_node(const Instance& instance) {
  Pipelines best;
  best.placement.nodes.resize(instance.rates.size());
  int32_t chosen = -1;
  std::vector<double> in(instance.rates.size(), 0);
  std::vector<double> out(instance.rates.size(), 0);
  for (const InstanceLink& link : instance.links) {
    if (link.from == kSource && link.to != kSink) in[link.to] += link.capacity;
    if (link.to == kSink && link.from != kSource) out[link.from] += link.capacity;
  }
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    if (instance.max_count(node) < instance.layers) continue;
    const double flow = std::min({instance.rate(node, instance.layers), in[node], out[node]});
    if (flow <= best.flow) continue;
    best.flow = flow;
    chosen = node;
  }
  if (chosen >= 0) best.placement.nodes[chosen] = {0, instance.layers};
  return best;
}

}  // namespace

std::vector<Start> make_starts(const Instance& instance, const std::vector<int32_t>& group) {
  std::vector<Start> starts;
  const Pipelines single = best_single_node(instance);
  if (single.flow > 0) starts.push_back({"single node", single.placement});

  Pipelines one, several, blocks, grouped;
  for (const std::vector<int32_t>& nodes : node_choices(instance)) {
    const auto keep_better = [](Pipelines& best, Pipelines other) {
      if (other.flow >= best.flow) best = std::move(other);
    };
    keep_better(one, deal(instance, nodes, 1));
    keep_better(several, best_pipelines(instance, nodes, 2));
    keep_better(blocks, balanced_blocks(instance, nodes));
    std::map<int32_t, std::vector<int32_t>> members;
    for (const int32_t node : nodes) members[group[node]].push_back(node);
    if (members.size() < 2 || members.size() == nodes.size()) continue;
    Pipelines united;
    united.placement.nodes.resize(instance.rates.size());
    for (const auto& [_, of_group] : members) {
      const Pipelines found = best_pipelines(instance, of_group, 1);
      united.flow += found.flow;
      lay_over(united.placement, found.placement);
    }
    keep_better(grouped, std::move(united));
  }
  starts.push_back({"stages", one.placement});
  if (several.flow > 0) {
    starts.push_back({format("{} pipelines", several.count), several.placement});
  }
  if (grouped.flow > 0) starts.push_back({"group pipelines", grouped.placement});
  if (blocks.flow > 0) {
    starts.push_back({format("{} balanced blocks", blocks.count), blocks.placement});
  }
  return starts;
}

}  // namespace towline::plan
