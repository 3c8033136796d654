// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/flow_report.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "plan/bounds.hpp"
#include "plan/iwrr.hpp"

namespace towline::plan {
namespace {

constexpr double kNoFlow = 1e-6;  // tokens/s below which a unit counts as unused

// Why a unit carries nothing: the first link of the chain source .. unit .. sink that is missing.
std::string why_unused(const FlowReport& report, int32_t unit) {
  const UnitFlow& self = report.units[unit];
  if (self.layers.empty()) return "the plan gives it no layers";
  bool entered = false;
  bool left = false;
  bool supplied = false;
  bool drained = false;
  for (const LinkFlow& link : report.links) {
    if (link.to == unit) {
      entered = true;
      supplied |= link.from == kSource || report.units[link.from].flow > kNoFlow;
    }
    if (link.from == unit) {
      left = true;
      drained |= link.to == kSink || report.units[link.to].flow > kNoFlow;
    }
  }
  if (!entered && self.layers.begin > 0) {
    return format("no link from a node that ends at layer {}", self.layers.begin);
  }
  if (!entered) return "no link from the coordinator";
  if (!left && self.layers.end < report.layers) {
    return format("no link to a node that takes over at layer {}", self.layers.end);
  }
  if (!left) return "no link to the coordinator";
  if (!supplied) return "nothing reaches it: no node before it carries flow";
  if (!drained) return "nothing leaves it: no node behind it carries flow";
  return "its layers are served by others; the bottleneck lies elsewhere";
}

std::string endpoint_name(const FlowReport& report, int32_t endpoint) {
  return endpoint == kSource ? "source" : endpoint == kSink ? "sink" : report.units[endpoint].name;
}

// The members of the minimum cut in a sentence.
std::string describe_cut(const FlowReport& report) {
  for (const LayerRange& range : uncovered_layers(report)) {
    return format("no node holds layer{} {}", range.size() == 1 ? "" : "s",
                  range.size() == 1 ? std::to_string(range.begin)
                                    : format("{} to {}", range.begin, range.end - 1));
  }
  std::string text;
  int members = 0;
  constexpr int kShown = 6;
  const auto add = [&](const std::string& name, double capacity) {
    if (++members <= kShown) {
      text += format("{}{} ({:.6g})", text.empty() ? "" : ", ", name, capacity);
    }
  };
  for (const UnitFlow& unit : report.units) {
    if (unit.in_cut) add(unit.name, unit.capacity);
  }
  for (const LinkFlow& link : report.links) {
    if (link.in_cut && link.capacity > 0) {
      add(endpoint_name(report, link.from) + " -> " + endpoint_name(report, link.to),
          link.capacity);
    }
  }
  if (members > kShown) text += format(" and {} more", members - kShown);
  if (text.empty()) return "no chain of links leads through all layers";
  return "the minimum cut, tokens/s: " + text;
}

// Everything that follows from the graph and the units' ranges.
void fill_flows(FlowReport& report, const PlanGraph& plan, const ReportOptions& options) {
  const MaxFlow flow = max_flow(plan.graph, plan.source, plan.sink);
  report.max_flow = flow.value;
  const auto cut = [&](int32_t arc) {
    return flow.source_side[plan.graph.arcs[arc].from] &&
           !flow.source_side[plan.graph.arcs[arc].to];
  };
  report.coverage.assign(static_cast<size_t>(report.layers), 0);
  for (size_t u = 0; u < report.units.size(); ++u) {
    UnitFlow& unit = report.units[u];
    if (plan.unit_arc[u] < 0) continue;
    unit.flow = flow.flow[plan.unit_arc[u]];
    unit.capacity = plan.graph.arcs[plan.unit_arc[u]].capacity;
    unit.in_cut = cut(plan.unit_arc[u]);
    for (int32_t layer = unit.layers.begin; layer < unit.layers.end; ++layer) {
      report.coverage[layer] += unit.capacity;
    }
  }
  for (size_t i = 0; i < report.links.size(); ++i) {
    LinkFlow& link = report.links[i];
    link.flow = flow.flow[plan.link_arc[i]];
    link.capacity = plan.graph.arcs[plan.link_arc[i]].capacity;
    link.in_cut = cut(plan.link_arc[i]);
  }
  set_shares(report.links);
  report.n_minus_1_flow = report.units.empty() ? 0 : report.max_flow;
  FlowGraph failed = plan.graph;
  for (size_t u = 0; u < report.units.size(); ++u) {
    UnitFlow& unit = report.units[u];
    unit.flow_without = report.max_flow;
    if (unit.flow > kNoFlow && options.failures) {
      failed.arcs[plan.unit_arc[u]].capacity = 0;
      unit.flow_without = max_flow(failed, plan.source, plan.sink).value;
      failed.arcs[plan.unit_arc[u]].capacity = unit.capacity;
    }
    report.n_minus_1_flow = std::min(report.n_minus_1_flow, unit.flow_without);
  }
  for (size_t u = 0; u < report.units.size(); ++u) {
    if (report.units[u].flow <= kNoFlow) {
      report.units[u].unused_because = why_unused(report, static_cast<int32_t>(u));
    }
  }
  report.bottleneck = describe_cut(report);
}

// Does the plan use partial inference?
bool takes_over_midway(const LinkedPlacement& plan) {
  return std::any_of(plan.arcs.begin(), plan.arcs.end(), [&](const PlanArc& arc) {
    return arc.from >= 0 && arc.to >= 0 &&
           plan.placement.nodes[arc.from].end != plan.placement.nodes[arc.to].begin;
  });
}

}  // namespace

FlowReport report_flow(const PlanProblem& problem, const LinkedPlacement& plan,
                       const ReportOptions& options) {
  FlowReport report;
  report.layers = problem.model.layers;
  const Instance instance = to_instance(problem);
  report.max_compute = capacity_bound(instance);
  report.upper_bound = link_aware_bound(instance, takes_over_midway(plan));
  const std::vector<std::string> regions = spec::infer_regions(problem.cluster);
  for (int32_t u = 0; u < problem.size(); ++u) {
    UnitFlow unit;
    unit.name = problem.unit_name(u);
    unit.kind = problem.table(u).type;
    unit.region = regions[problem.units[u].node];
    unit.layers = plan.placement.nodes[u];
    report.units.push_back(std::move(unit));
  }
  for (const PlanArc& arc : plan.arcs) report.links.push_back({arc.from, arc.to, 0, 0, 0, false});
  fill_flows(report, build_graph(problem, plan), options);
  std::vector<bool> divided(problem.cluster.nodes.size(), false);  // machines with a group at work
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (!report.units[u].layers.empty()) divided[problem.units[u].node] = true;
  }
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (report.units[u].layers.empty() && divided[problem.units[u].node]) {
      report.units[u].unused_because = "the machine's devices work in other groups";
    }
  }
  return report;
}

FlowReport report_flow(const Instance& instance, const Placement& placement, bool partial,
                       const ReportOptions& options) {
  FlowReport report;
  report.layers = instance.layers;
  report.max_compute = capacity_bound(instance);
  report.upper_bound = link_aware_bound(instance, partial);
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    UnitFlow unit;
    unit.name = instance.name(i);
    unit.layers = placement.nodes[i];
    report.units.push_back(std::move(unit));
  }
  const std::vector<int32_t> links = valid_links(instance, placement, partial);
  for (const int32_t i : links) {
    report.links.push_back({instance.links[i].from, instance.links[i].to, 0, 0, 0, false});
  }
  fill_flows(report, build_graph(instance, placement, links), options);
  return report;
}

std::vector<LayerRange> uncovered_layers(const FlowReport& report) {
  std::vector<LayerRange> ranges;
  std::vector<bool> held(static_cast<size_t>(report.layers));
  for (const UnitFlow& unit : report.units) {
    for (int32_t layer = unit.layers.begin; layer < unit.layers.end; ++layer) held[layer] = true;
  }
  for (int32_t layer = 0; layer < report.layers; ++layer) {
    if (held[layer]) continue;
    if (!ranges.empty() && ranges.back().end == layer) {
      ++ranges.back().end;
    } else {
      ranges.push_back({layer, layer + 1});
    }
  }
  return ranges;
}

spec::PlanDesc to_plan_desc(const FlowReport& report, std::string method, std::string model) {
  spec::PlanDesc plan;
  plan.method = std::move(method);
  plan.model = std::move(model);
  plan.layers = report.layers;
  plan.max_flow = TokensPerSec(report.max_flow);
  plan.upper_bound = TokensPerSec(report.upper_bound);
  for (const UnitFlow& unit : report.units) {
    const LayerRange layers = unit.layers.empty() ? LayerRange{} : unit.layers;
    plan.nodes.push_back({unit.name, layers, TokensPerSec(unit.flow)});
  }
  for (const LinkFlow& link : report.links) {
    plan.links.push_back({endpoint_name(report, link.from), endpoint_name(report, link.to),
                          TokensPerSec(link.flow), TokensPerSec(link.capacity), link.share});
  }
  return plan;
}

Json report_to_json(const FlowReport& report) {
  Json units = Json::array();
  Json cut = Json::array();
  for (const UnitFlow& unit : report.units) {
    Json tree = Json::object({{"name", unit.name}});
    if (!unit.kind.empty()) tree.set("type", unit.kind);
    if (!unit.region.empty()) tree.set("region", unit.region);
    tree.set("layers", Json::array({unit.layers.begin, unit.layers.end}));
    tree.set("flow", unit.flow);
    tree.set("capacity", unit.capacity);
    tree.set("flow_without", unit.flow_without);
    if (!unit.unused_because.empty()) tree.set("unused_because", unit.unused_because);
    units.push(std::move(tree));
    if (unit.in_cut) cut.push(Json::object({{"node", unit.name}, {"capacity", unit.capacity}}));
  }
  Json links = Json::array();
  for (const LinkFlow& link : report.links) {
    const std::string from = endpoint_name(report, link.from);
    const std::string to = endpoint_name(report, link.to);
    links.push(Json::object({{"from", from},
                             {"to", to},
                             {"flow", link.flow},
                             {"capacity", link.capacity},
                             {"share", link.share}}));
    if (link.in_cut) {
      cut.push(Json::object({{"from", from}, {"to", to}, {"capacity", link.capacity}}));
    }
  }
  Json coverage = Json::array();
  for (const double rate : report.coverage) coverage.push(rate);
  return Json::object({{"max_flow", report.max_flow},
                       {"max_compute", report.max_compute},
                       {"upper_bound", report.upper_bound},
                       {"gap", report.gap()},
                       {"n_minus_1_flow", report.n_minus_1_flow},
                       {"bottleneck", report.bottleneck},
                       {"min_cut", std::move(cut)},
                       {"coverage", std::move(coverage)},
                       {"nodes", std::move(units)},
                       {"links", std::move(links)}});
}

std::string print_report(const FlowReport& report) {
  std::string text;
  text += format("max flow          {:>14.4f} tokens/s\n", report.max_flow);
  text += format("upper bound       {:>14.4f} tokens/s   (gap {:.2f} %)\n", report.upper_bound,
                 100 * report.gap());
  text += format("compute alone     {:>14.4f} tokens/s\n", report.max_compute);
  text += format("after one failure {:>14.4f} tokens/s   (the worst)\n", report.n_minus_1_flow);
  text += format("bottleneck        {}\n\n", report.bottleneck);
  size_t name_width = 4;
  for (const UnitFlow& unit : report.units) name_width = std::max(name_width, unit.name.size());
  text += format("{:<{}}  {:<6} {:>9} {:>12} {:>12} {:>6} {:>12}\n", "node", name_width, "type",
                 "layers", "flow", "capacity", "used", "if it fails");
  for (const UnitFlow& unit : report.units) {
    const std::string layers =
        unit.layers.empty() ? "-" : format("{}..{}", unit.layers.begin, unit.layers.end - 1);
    text += format("{:<{}}  {:<6} {:>9} {:>12.4f} {:>12.4f} {:>5.0f}% {:>12.4f}{}{}\n", unit.name,
                   name_width, unit.kind, layers, unit.flow, unit.capacity,
                   unit.capacity > 0 ? 100 * unit.flow / unit.capacity : 0, unit.flow_without,
                   unit.in_cut ? "  <- cut" : "",
                   unit.unused_because.empty() ? "" : "  unused: " + unit.unused_because);
  }
  return text;
}

}  // namespace towline::plan
