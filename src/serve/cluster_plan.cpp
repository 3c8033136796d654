// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_plan.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "base/fmt.hpp"
#include "plan/max_flow.hpp"

namespace towline::serve {
namespace {

constexpr double kBoundless = 1e12;
constexpr int32_t kDefaultContext = 8192;
constexpr int64_t kDefaultKvBytes = int64_t{1} << 30;
constexpr double kUnknownRate = 1000;  // of a node that has measured nothing

// Of all maximum flows one that loads the nodes evenly: the greatest share of a node's speed that
// is used is made as small as it can be; nodes that cannot do with less are settled, and so on with
// the rest. (A maximum flow as the algorithm finds it may leave one of two equal nodes idle.) The
// first `nodes` arcs are the nodes'.
plan::MaxFlow even_max_flow(plan::FlowGraph graph, size_t nodes, int32_t source, int32_t sink) {
  constexpr size_t kMostRounds = 64;
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
  for (size_t round = 0; round < std::min(nodes, kMostRounds); ++round) {
    double low = 0, high = 1;
    for (int i = 0; i < 24; ++i) {
      const double share = (low + high) / 2;
      (with_share(share).value >= enough ? high : low) = share;
    }
    flow = with_share(high);
    std::vector<size_t> bound;  // nodes that the maximum needs at this share
    for (size_t i = 0; i < nodes; ++i) {
      if (settled[i] || flow.flow[i] < high * speed[i] * (1 - 1e-4)) continue;
      graph.arcs[i].capacity *= 0.99;
      if (plan::max_flow(graph, source, sink).value < enough) bound.push_back(i);
      graph.arcs[i].capacity /= 0.99;
    }
    for (const size_t i : bound) settled[i] = true;
    if (bound.empty()) break;
  }
  flow.value = best.value;
  return flow;
}

struct NodeForPlan {
  NodeId node;
  std::string name;
  LayerRange layers;
  double capacity = 0;  // tokens/s through all of its layers
};

struct Link {
  int32_t from, to;       // places in `nodes`; plan::kSource, plan::kSink
  double capacity = kBoundless;
  double flow = 0;
};

bool is_broken(const policy::AskPlan& ask, NodeId from, NodeId to) {
  return std::ranges::find(ask.broken, std::pair(from, to)) != ask.broken.end();
}

std::vector<Link> links_of_layers(const policy::AskPlan& ask, const std::vector<NodeForPlan>& nodes,
                                  int32_t total_layers) {
  std::vector<Link> out;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const LayerRange mine = nodes[i].layers;
    const auto here = static_cast<int32_t>(i);
    if (mine.begin == 0) out.push_back({plan::kSource, here});
    if (mine.end == total_layers) out.push_back({here, plan::kSink});
    for (size_t k = 0; k < nodes.size(); ++k) {
      const LayerRange theirs = nodes[k].layers;
      const bool joins = k != i && theirs.begin <= mine.end && theirs.end > mine.end;
      if (joins && !is_broken(ask, nodes[i].node, nodes[k].node)) {
        out.push_back({here, static_cast<int32_t>(k)});
      }
    }
  }
  return out;
}

// `complete`: nothing of the plan is missing.
std::vector<Link> links_of_plan(const policy::AskPlan& ask, const std::vector<NodeForPlan>& nodes,
                                const std::vector<PlannedLink>& planned, bool& complete) {
  std::map<std::string, int32_t> place;
  for (size_t i = 0; i < nodes.size(); ++i) place[nodes[i].name] = static_cast<int32_t>(i);
  std::vector<Link> out;
  complete = true;
  for (const PlannedLink& link : planned) {
    const auto from = place.find(link.from), to = place.find(link.to);
    const bool there = (link.from.empty() || from != place.end()) &&
                       (link.to.empty() || to != place.end());
    if (!there || (!link.from.empty() && !link.to.empty() &&
                   is_broken(ask, nodes[static_cast<size_t>(from->second)].node,
                             nodes[static_cast<size_t>(to->second)].node))) {
      complete = false;
      continue;
    }
    out.push_back({link.from.empty() ? plan::kSource : from->second,
                   link.to.empty() ? plan::kSink : to->second, link.capacity, link.flow});
  }
  return out;
}

// Sets the links' flows; the value is the maximum.
double solve(const std::vector<NodeForPlan>& nodes, std::vector<Link>& links, bool evenly) {
  plan::FlowGraph graph;
  const int32_t source = graph.add_vertex(), sink = graph.add_vertex();
  std::vector<int32_t> in, out, arcs;
  for (const NodeForPlan& node : nodes) {
    in.push_back(graph.add_vertex());
    out.push_back(graph.add_vertex());
    graph.add_arc(in.back(), out.back(), node.capacity);
  }
  for (const Link& link : links) {
    arcs.push_back(graph.add_arc(
        link.from == plan::kSource ? source : out[static_cast<size_t>(link.from)],
        link.to == plan::kSink ? sink : in[static_cast<size_t>(link.to)], link.capacity));
  }
  const plan::MaxFlow flow = evenly ? even_max_flow(graph, nodes.size(), source, sink)
                                    : plan::max_flow(graph, source, sink);
  for (size_t i = 0; i < links.size(); ++i) {
    links[i].flow = flow.flow[static_cast<size_t>(arcs[i])];
  }
  return flow.value;
}

plan::FlowReport report_of(const std::vector<NodeForPlan>& nodes, const std::vector<Link>& links,
                           double max_flow, int32_t total_layers, bool bounded) {
  plan::FlowReport report;
  report.layers = total_layers;
  report.max_flow = max_flow;
  report.coverage.assign(static_cast<size_t>(total_layers), 0.0);
  for (const NodeForPlan& node : nodes) {
    plan::UnitFlow unit;
    unit.name = node.name;
    unit.layers = node.layers;
    unit.capacity = node.capacity;
    report.max_compute += unit.capacity * unit.layers.size() / total_layers;
    for (int32_t l = unit.layers.begin; l < unit.layers.end; ++l) {
      report.coverage[static_cast<size_t>(l)] += unit.capacity;
    }
    report.units.push_back(std::move(unit));
  }
  for (const Link& link : links) {
    if (link.to >= 0) report.units[static_cast<size_t>(link.to)].flow += link.flow;
    double leaves = 0;
    for (const Link& other : links) leaves += other.from == link.from ? other.flow : 0;
    plan::LinkFlow entry;
    entry.from = link.from;
    entry.to = link.to;
    entry.flow = link.flow;
    entry.capacity = bounded ? link.capacity : std::max(link.flow, max_flow);
    entry.share = leaves > 0 ? link.flow / leaves : 0;
    report.links.push_back(entry);
  }
  for (plan::UnitFlow& unit : report.units) {
    unit.in_cut = unit.flow >= unit.capacity * (1 - 1e-6);
  }
  report.upper_bound = report.max_compute;
  report.bottleneck = bounded ? "as the plan file has it"
                              : "the speed of the workers; links are taken to be boundless";
  return report;
}

}  // namespace

Json layers_json(LayerRange layers) {
  return Json::array({Json(int64_t{layers.begin}), Json(int64_t{layers.end})});
}

int32_t context_of(const spec::ScenarioServing& serving, const spec::ModelDesc& model) {
  return serving.context > 0 ? serving.context : std::min(model.context, kDefaultContext);
}

int32_t run_rows_of(const spec::ScenarioServing& serving, bool emulated) {
  constexpr int64_t kEmulatedSteps = 4;
  const int64_t rows = int64_t{serving.step_tokens} * (emulated ? kEmulatedSteps : 1);
  return static_cast<int32_t>(std::min<int64_t>(rows, 1 << 30));
}

int64_t kv_tokens_of(const ClusterNode& node, const spec::ModelDesc& model,
                     const spec::ScenarioServing& serving) {
  if (node.kv_tokens > 0) return node.kv_tokens;
  const int64_t each = node.layers.size() * model.kv_bytes_per_token_layer().value;
  const int64_t affordable = kDefaultKvBytes / std::max<int64_t>(each, 1);
  const int64_t context = context_of(serving, model);
  return std::max(context, std::min(affordable, serving.sequences * context));
}

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

const ClusterNode* range_to_fill(const std::vector<ClusterNode>& nodes,
                                 const std::vector<const ClusterNode*>& held) {
  std::map<int32_t, double> speed;  // of each layer that somebody holds
  for (const ClusterNode* node : held) {
    for (int32_t l = node->layers.begin; l < node->layers.end; ++l) {
      speed[l] += node->speed / node->layers.size();
    }
  }
  const auto thinnest = [&](const ClusterNode& node) {
    double least = kBoundless;
    for (int32_t l = node.layers.begin; l < node.layers.end; ++l) {
      const auto at = speed.find(l);
      least = std::min(least, at == speed.end() ? 0.0 : at->second);
    }
    return least;
  };
  const auto found = std::ranges::min_element(nodes, {}, thinnest);
  return found == nodes.end() ? nullptr : &*found;
}

ClusterPlan plan_cluster(const policy::AskPlan& ask, const std::map<NodeId, NodeRate>& rates,
                         int32_t total_layers, const std::vector<PlannedLink>& planned) {
  std::vector<NodeForPlan> nodes;
  for (const auto& [id, layers] : ask.nodes) {
    const auto known = rates.find(id);
    const double rate = known != rates.end() ? known->second.rate : 0;
    nodes.push_back({id, known != rates.end() ? known->second.name : format("node {}", id), layers,
                     (rate > 0 ? rate : kUnknownRate) / layers.size()});
  }
  ClusterPlan out;
  bool complete = false;
  std::vector<Link> links = planned.empty() ? links_of_layers(ask, nodes, total_layers)
                                            : links_of_plan(ask, nodes, planned, complete);
  double max_flow = 0;
  if (complete) {
    for (const Link& link : links) max_flow += link.from == plan::kSource ? link.flow : 0;
  } else {
    max_flow = solve(nodes, links, planned.empty());
  }
  out.made.number = ask.number;
  out.made.max_flow = max_flow;
  const auto id = [&](int32_t place) {
    return place == plan::kSource ? policy::kSourceNode
           : place == plan::kSink ? policy::kSinkNode
                                  : nodes[static_cast<size_t>(place)].node.value;
  };
  for (const Link& link : links) {
    out.made.links.push_back({id(link.from), id(link.to)});
    out.made.flow.push_back(link.flow);
  }
  out.report = report_of(nodes, links, max_flow, total_layers, !planned.empty());
  return out;
}

}  // namespace towline::serve
