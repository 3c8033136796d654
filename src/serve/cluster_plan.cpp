// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_plan.hpp"

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"
#include "plan/max_flow.hpp"

namespace towline::serve {
namespace {

constexpr double kBoundless = 1e12;
constexpr double kUnknownRate = 1000;  // of a node that has measured nothing

// Of all maximum flows one that loads the nodes evenly: the greatest share of a node's speed that is
// used is made as small as it can be, then the next greatest, and so on. (A maximum flow as the
// algorithm finds it may leave one of two equal nodes idle.) The first `nodes` arcs are the nodes'.
plan::MaxFlow even_max_flow(plan::FlowGraph graph, size_t nodes, int32_t source, int32_t sink) {
  const plan::MaxFlow best = plan::max_flow(graph, source, sink);
  const double enough = best.value * (1 - 1e-6);
  if (best.value <= 0) return best;
  std::vector<double> speed;
  for (size_t i = 0; i < nodes; ++i) speed.push_back(graph.arcs[i].capacity);
  std::vector<bool> settled(nodes, false);
  plan::MaxFlow flow = best;
  const auto with_share = [&](double share) {
    for (size_t i = 0; i < nodes; ++i) {
      if (!settled[i]) graph.arcs[i].capacity = share * speed[i];
    }
    return plan::max_flow(graph, source, sink);
  };
  for (size_t round = 0; round < nodes; ++round) {
    double low = 0, high = 1;
    for (int i = 0; i < 24; ++i) {
      const double share = (low + high) / 2;
      (with_share(share).value >= enough ? high : low) = share;
    }
    flow = with_share(high);
    bool left = false;
    for (size_t i = 0; i < nodes; ++i) {
      if (settled[i]) continue;
      settled[i] = flow.flow[i] >= high * speed[i] * (1 - 1e-4);
      left = left || !settled[i];
    }
    if (!left) break;
  }
  flow.value = best.value;
  return flow;
}

plan::FlowReport report_of(const policy::AskPlan& ask, const policy::PlanMade& made,
                           const plan::FlowGraph& graph, const plan::MaxFlow& flow,
                           const std::map<NodeId, NodeRate>& rates, int32_t total_layers) {
  plan::FlowReport report;
  report.layers = total_layers;
  report.max_flow = flow.value;
  report.coverage.assign(static_cast<size_t>(total_layers), 0.0);
  std::map<int32_t, int32_t> unit_of;
  for (size_t i = 0; i < ask.nodes.size(); ++i) {  // arc i is node i's own
    plan::UnitFlow unit;
    const auto known = rates.find(ask.nodes[i].first);
    unit.name = known != rates.end() ? known->second.name : format("node {}", ask.nodes[i].first);
    unit.layers = ask.nodes[i].second;
    unit.flow = flow.flow[i];
    unit.capacity = graph.arcs[i].capacity;
    unit.in_cut = unit.flow >= unit.capacity * (1 - 1e-9);
    report.max_compute += unit.capacity * unit.layers.size() / total_layers;
    for (int32_t l = unit.layers.begin; l < unit.layers.end; ++l) {
      report.coverage[static_cast<size_t>(l)] += unit.capacity;
    }
    unit_of[ask.nodes[i].first.value] = static_cast<int32_t>(i);
    report.units.push_back(std::move(unit));
  }
  report.upper_bound = report.max_compute;
  for (size_t i = 0; i < made.links.size(); ++i) {
    plan::LinkFlow link;
    link.from = made.links[i].from < 0 ? plan::kSource : unit_of.at(made.links[i].from);
    link.to = made.links[i].to < 0 ? plan::kSink : unit_of.at(made.links[i].to);
    link.flow = made.flow[i];
    link.capacity = std::max(link.flow, report.max_flow);
    report.links.push_back(link);
  }
  for (plan::LinkFlow& link : report.links) {
    double out = 0;
    for (const plan::LinkFlow& other : report.links) {
      out += other.from == link.from ? other.flow : 0;
    }
    link.share = out > 0 ? link.flow / out : 0;
  }
  report.bottleneck = "the speed of the workers; links are taken to be boundless";
  return report;
}

}  // namespace

Result<void> assign_layers(std::vector<ClusterNode>& nodes, int32_t total_layers) {
  std::vector<ClusterNode*> open;
  for (ClusterNode& node : nodes) {
    if (node.layers.empty()) open.push_back(&node);
  }
  if (open.empty()) return {};
  if (static_cast<int32_t>(open.size()) > total_layers) {
    return errorf(Code::kInvalidArgument,
                  "{} workers cannot share {} layers; give fewer workers or explicit layers",
                  open.size(), total_layers);
  }
  double sum = 0;
  for (const ClusterNode* node : open) sum += std::max(node->speed, 1e-9);
  double share = 0;
  int32_t begin = 0;
  for (size_t i = 0; i < open.size(); ++i) {
    share += std::max(open[i]->speed, 1e-9);
    const auto left = static_cast<int32_t>(open.size() - i - 1);
    const auto ideal = static_cast<int32_t>(share / sum * total_layers + 0.5);
    const int32_t end =
        left == 0 ? total_layers : std::clamp(ideal, begin + 1, total_layers - left);
    open[i]->layers = {begin, end};
    begin = end;
  }
  return {};
}

ClusterPlan plan_cluster(const policy::AskPlan& ask, const std::map<NodeId, NodeRate>& rates,
                         int32_t total_layers) {
  policy::PlanMade plan;
  plan.number = ask.number;
  plan::FlowGraph graph;
  const int32_t source = graph.add_vertex(), sink = graph.add_vertex();
  std::vector<int32_t> in, out, arcs;
  for (const auto& [node, layers] : ask.nodes) {
    in.push_back(graph.add_vertex());
    out.push_back(graph.add_vertex());
    const auto known = rates.find(node);
    const double rate = known != rates.end() ? known->second.rate : 0;
    graph.add_arc(in.back(), out.back(), (rate > 0 ? rate : kUnknownRate) / layers.size());
  }
  const auto link = [&](int32_t from, int32_t to, int32_t a, int32_t b) {
    plan.links.push_back({from, to});
    arcs.push_back(graph.add_arc(a, b, kBoundless));
  };
  for (size_t i = 0; i < ask.nodes.size(); ++i) {
    const auto& [node, layers] = ask.nodes[i];
    if (layers.begin == 0) link(policy::kSourceNode, node.value, source, in[i]);
    if (layers.end == total_layers) link(node.value, policy::kSinkNode, out[i], sink);
    for (size_t k = 0; k < ask.nodes.size(); ++k) {
      const auto& [other, theirs] = ask.nodes[k];
      const bool joins = k != i && theirs.begin <= layers.end && theirs.end > layers.end;
      if (!joins || std::ranges::find(ask.broken, std::pair(node, other)) != ask.broken.end()) {
        continue;
      }
      link(node.value, other.value, out[i], in[k]);
    }
  }
  const plan::MaxFlow flow = even_max_flow(graph, ask.nodes.size(), source, sink);
  plan.max_flow = flow.value;
  for (const int32_t arc : arcs) plan.flow.push_back(flow.flow[static_cast<size_t>(arc)]);
  plan::FlowReport report = report_of(ask, plan, graph, flow, rates, total_layers);
  return {std::move(plan), std::move(report)};
}

}  // namespace towline::serve
