// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/evaluator.hpp"

#include <algorithm>
#include <numeric>

namespace towline::plan {
namespace {

constexpr int32_t kSourceVertex = 0;
constexpr int32_t kSinkVertex = 1;

}  // namespace

FlowEvaluator::FlowEvaluator(const Instance& instance, bool partial)
    : instance_(instance), partial_(partial) {
  const size_t nodes = static_cast<size_t>(instance.nodes());
  best_rate_.resize(nodes);
  double largest = 0;
  for (size_t i = 0; i < nodes; ++i) {
    for (const double rate : instance.rates[i]) best_rate_[i] = std::max(best_rate_[i], rate);
    largest = std::max(largest, best_rate_[i]);
  }
  tolerance_ = 1e-11 * largest;
  node_arc_.assign(nodes, -1);
  first_.assign(2 * nodes + 2, -1);
  level_.assign(2 * nodes + 2, -1);
  read_links();
  form_groups();
}

void FlowEvaluator::read_links() {
  const int32_t nodes = instance_.nodes();
  from_source_.assign(nodes, 0);
  to_sink_.assign(nodes, 0);
  const bool dense = nodes <= kDenseNodes;
  if (dense) dense_.assign(static_cast<size_t>(nodes) * nodes, 0);
  link_begin_.assign(nodes + 2, 0);
  for (const InstanceLink& link : instance_.links) {
    if (link.from == kSource) {
      if (link.to != kSink) from_source_[link.to] += link.capacity;
    } else if (link.to == kSink) {
      to_sink_[link.from] += link.capacity;
    } else if (dense) {
      dense_[static_cast<size_t>(link.from) * nodes + link.to] += link.capacity;
    } else {
      ++link_begin_[link.from + 2];
    }
  }
  if (dense) return;
  std::partial_sum(link_begin_.begin(), link_begin_.end(), link_begin_.begin());
  std::vector<int32_t> order(link_begin_.back());
  for (size_t l = 0; l < instance_.links.size(); ++l) {
    const InstanceLink& link = instance_.links[l];
    if (link.from != kSource && link.to != kSink) {
      order[link_begin_[link.from + 1]++] = static_cast<int32_t>(l);
    }
  }
  link_to_.resize(order.size());
  link_capacity_.resize(order.size());
  for (int32_t node = 0; node < nodes; ++node) {
    const auto begin = order.begin() + link_begin_[node];
    const auto end = order.begin() + link_begin_[node + 1];
    std::sort(begin, end,
              [&](int32_t a, int32_t b) { return instance_.links[a].to < instance_.links[b].to; });
  }
  for (size_t l = 0; l < order.size(); ++l) {
    link_to_[l] = instance_.links[order[l]].to;
    link_capacity_[l] = instance_.links[order[l]].capacity;
  }
}

double FlowEvaluator::capacity(int32_t from, int32_t to) const {
  if (!dense_.empty()) return dense_[static_cast<size_t>(from) * instance_.nodes() + to];
  const auto begin = link_to_.begin() + link_begin_[from];
  const auto end = link_to_.begin() + link_begin_[from + 1];
  const auto [low, high] = std::equal_range(begin, end, to);
  return std::accumulate(link_capacity_.begin() + (low - link_to_.begin()),
                         link_capacity_.begin() + (high - link_to_.begin()), 0.0);
}

bool FlowEvaluator::free_link(int32_t from, int32_t to) const {
  return capacity(from, to) >= std::min(best_rate_[from], best_rate_[to]);
}

// Greedy partition into cliques of free links: a node joins the first group that it is free with.
// With many nodes only the groups of its own neighbours are tried.
void FlowEvaluator::form_groups() {
  const int32_t nodes = instance_.nodes();
  group_.assign(nodes, -1);
  std::vector<std::vector<int32_t>> members;
  std::vector<int32_t> candidates;
  for (int32_t node = 0; node < nodes; ++node) {
    candidates.clear();
    if (dense_.empty()) {
      for (int32_t l = link_begin_[node]; l < link_begin_[node + 1]; ++l) {
        if (group_[link_to_[l]] >= 0) candidates.push_back(group_[link_to_[l]]);
      }
      std::sort(candidates.begin(), candidates.end());
      candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
    } else {
      candidates.resize(members.size());
      std::iota(candidates.begin(), candidates.end(), 0);
    }
    for (const int32_t g : candidates) {
      const bool fits = std::all_of(members[g].begin(), members[g].end(), [&](int32_t other) {
        return free_link(node, other) && free_link(other, node);
      });
      if (fits) {
        group_[node] = g;
        break;
      }
    }
    if (group_[node] < 0) {
      group_[node] = static_cast<int32_t>(members.size());
      members.emplace_back();
    }
    members[group_[node]].push_back(node);
  }
  groups_ = static_cast<int32_t>(members.size());
  hub_of_group_.assign(groups_, -1);
}

void FlowEvaluator::add_arc(int32_t tail, int32_t head, double capacity) {
  arcs_.push_back({head, first_[tail], capacity});
  first_[tail] = static_cast<int32_t>(arcs_.size()) - 1;
  arcs_.push_back({tail, first_[head], 0});
  first_[head] = static_cast<int32_t>(arcs_.size()) - 1;
}

// Counting sort of the nodes by first layer and by end.
void FlowEvaluator::sort_by_boundary(std::span<const LayerRange> ranges) {
  const size_t boundaries = static_cast<size_t>(instance_.layers) + 1;
  begins_at_.assign(boundaries + 2, 0);
  ends_at_.assign(boundaries + 2, 0);
  for (const LayerRange range : ranges) {
    if (range.empty()) continue;
    ++begins_at_[range.begin + 2];
    ++ends_at_[range.end + 2];
  }
  for (size_t b = 2; b < boundaries + 2; ++b) {
    begins_at_[b] += begins_at_[b - 1];
    ends_at_[b] += ends_at_[b - 1];
  }
  begins_.resize(ranges.size());
  ends_.resize(ranges.size());
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].empty()) continue;
    begins_[begins_at_[ranges[i].begin + 1]++] = static_cast<int32_t>(i);
    ends_[ends_at_[ranges[i].end + 1]++] = static_cast<int32_t>(i);
  }
}

void FlowEvaluator::build(std::span<const LayerRange> ranges) {
  sort_by_boundary(ranges);
  arcs_.clear();
  hub_boundary_.clear();
  first_.assign(2 * ranges.size() + 2, -1);
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto node = static_cast<int32_t>(i);
    const LayerRange range = ranges[i];
    node_arc_[i] = -1;
    if (range.empty()) continue;
    node_arc_[i] = static_cast<int32_t>(arcs_.size());
    add_arc(input(node), output(node), instance_.rate(node, range.size()));
    if (range.begin == 0 && from_source_[i] > 0) {
      add_arc(kSourceVertex, input(node), from_source_[i]);
    }
    if (range.end == instance_.layers && to_sink_[i] > 0) {
      add_arc(output(node), kSinkVertex, to_sink_[i]);
    }
  }
  for (int32_t boundary = 1; boundary < instance_.layers; ++boundary) {
    if (ends_at_[boundary] != ends_at_[boundary + 1]) join(boundary, ranges);
  }
}

// Arcs from the nodes that end at `boundary` to those that may take over there.
void FlowEvaluator::join(int32_t boundary, std::span<const LayerRange> ranges) {
  const std::span<const int32_t> enders(ends_.data() + ends_at_[boundary],
                                        ends_.data() + ends_at_[boundary + 1]);
  std::span<const int32_t> takers(begins_.data() + begins_at_[boundary],
                                  begins_.data() + begins_at_[boundary + 1]);
  if (partial_) {
    takers_.clear();
    for (size_t i = 0; i < ranges.size(); ++i) {
      if (ranges[i].contains(boundary)) takers_.push_back(static_cast<int32_t>(i));
    }
    takers = takers_;
  }
  if (takers.empty()) return;
  join_group_hubs(boundary, enders, takers);
  if (groups_ == 1) return;
  if (dense_.empty()) {
    for (const int32_t i : enders) {
      for (int32_t l = link_begin_[i]; l < link_begin_[i + 1]; ++l) {
        const int32_t j = link_to_[l];
        const bool takes = partial_ ? ranges[j].contains(boundary) : ranges[j].begin == boundary;
        if (group_[i] != group_[j] && !ranges[j].empty() && takes) {
          add_arc(output(i), input(j), link_capacity_[l]);
        }
      }
    }
    return;
  }
  for (const int32_t i : enders) {
    const double* row = dense_.data() + static_cast<size_t>(i) * instance_.nodes();
    for (const int32_t j : takers) {
      if (group_[i] != group_[j] && row[j] > 0) add_arc(output(i), input(j), row[j]);
    }
  }
}

void FlowEvaluator::join_group_hubs(int32_t boundary, std::span<const int32_t> enders,
                                    std::span<const int32_t> takers) {
  constexpr double kUnlimited = 1e18;
  constexpr int32_t kWanted = -2;
  for (const int32_t i : enders) hub_of_group_[group_[i]] = kWanted;
  for (const int32_t j : takers) {
    int32_t& hub = hub_of_group_[group_[j]];
    if (hub == kWanted) {
      hub = static_cast<int32_t>(first_.size());
      first_.push_back(-1);
      hub_boundary_.push_back(boundary);
    }
    if (hub >= 0) add_arc(hub, input(j), kUnlimited);
  }
  for (const int32_t i : enders) {
    const int32_t hub = hub_of_group_[group_[i]];
    if (hub >= 0) add_arc(output(i), hub, kUnlimited);
  }
  for (const int32_t i : enders) hub_of_group_[group_[i]] = -1;
}

// Breadth first from the source; stops early once the sink's level is complete.
bool FlowEvaluator::label_levels() {
  level_.assign(first_.size(), -1);
  queue_.clear();
  queue_.push_back(kSourceVertex);
  level_[kSourceVertex] = 0;
  for (size_t at = 0; at < queue_.size(); ++at) {
    const int32_t vertex = queue_[at];
    if (level_[kSinkVertex] >= 0 && level_[vertex] >= level_[kSinkVertex]) break;
    for (int32_t a = first_[vertex]; a >= 0; a = arcs_[a].next) {
      if (arcs_[a].rest > tolerance_ && level_[arcs_[a].to] < 0) {
        level_[arcs_[a].to] = level_[vertex] + 1;
        queue_.push_back(arcs_[a].to);
      }
    }
  }
  return level_[kSinkVertex] >= 0;
}

// Depth first along rising levels; after an augmentation it resumes at the first saturated arc.
double FlowEvaluator::augment_blocking() {
  double total = 0;
  current_ = first_;
  path_.clear();
  int32_t vertex = kSourceVertex;
  while (true) {
    if (vertex == kSinkVertex) {
      double amount = arcs_[path_[0]].rest;
      size_t narrowest = 0;
      for (size_t p = 1; p < path_.size(); ++p) {
        if (arcs_[path_[p]].rest < amount) {
          amount = arcs_[path_[p]].rest;
          narrowest = p;
        }
      }
      for (const int32_t a : path_) {
        arcs_[a].rest -= amount;
        arcs_[a ^ 1].rest += amount;
      }
      total += amount;
      vertex = arcs_[path_[narrowest] ^ 1].to;
      path_.resize(narrowest);
      continue;
    }
    int32_t& a = current_[vertex];
    while (a >= 0 && (arcs_[a].rest <= tolerance_ || level_[arcs_[a].to] != level_[vertex] + 1)) {
      a = arcs_[a].next;
    }
    if (a >= 0) {
      path_.push_back(a);
      vertex = arcs_[a].to;
      continue;
    }
    if (path_.empty()) return total;
    level_[vertex] = -1;  // a dead end for this phase
    vertex = arcs_[path_.back() ^ 1].to;
    path_.pop_back();
  }
}

double FlowEvaluator::flow(std::span<const LayerRange> ranges) {
  build(ranges);
  double total = 0;
  while (label_levels()) total += augment_blocking();
  return total;
}

double FlowEvaluator::node_flow(int32_t node) const {
  return node_arc_[node] < 0 ? 0 : arcs_[node_arc_[node] ^ 1].rest;
}

void FlowEvaluator::add_flows(int32_t vertex, std::vector<VertexFlow>& list) const {
  const auto station = [&](int32_t v) {
    if (v == kSourceVertex) return kSource;
    if (v == kSinkVertex) return kSink;
    const int32_t hubs_from = 2 * instance_.nodes() + 2;
    return v >= hubs_from ? instance_.nodes() + v - hubs_from : (v - 2) / 2;
  };
  for (int32_t a = first_[vertex]; a >= 0; a = arcs_[a].next) {
    // Arcs with an even number lead forwards; what they carry is the rest of their reverse.
    if ((a & 1) == 0 && arcs_[a ^ 1].rest > tolerance_) {
      list.push_back({station(vertex), station(arcs_[a].to), arcs_[a ^ 1].rest});
    }
  }
}

void FlowEvaluator::flows(std::vector<VertexFlow>& list) const {
  list.clear();
  if (first_.empty() || ends_at_.empty()) return;
  add_flows(kSourceVertex, list);
  size_t hub = 0;
  for (int32_t boundary = 1; boundary <= instance_.layers; ++boundary) {
    for (int32_t e = ends_at_[boundary]; e < ends_at_[boundary + 1]; ++e) {
      add_flows(output(ends_[e]), list);
    }
    for (; hub < hub_boundary_.size() && hub_boundary_[hub] == boundary; ++hub) {
      add_flows(2 * instance_.nodes() + 2 + static_cast<int32_t>(hub), list);
    }
  }
}

bool FlowEvaluator::in_cut(int32_t node) const {
  return node_arc_[node] >= 0 && input_reached(node) && !output_reached(node);
}

}  // namespace towline::plan
