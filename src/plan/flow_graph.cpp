// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The graphs of flow_report.hpp.
#include <numeric>

#include "base/fmt.hpp"
#include "plan/flow_report.hpp"

namespace towline::plan {
namespace {

// What kinds of neighbours a unit has.
struct Neighbours {
  bool from_source = false;
  bool from_unit = false;
  bool to_sink = false;
  bool to_unit = false;
};

// Helix numbers a unit by its place in the simulator cluster, from 2 on.
std::vector<int32_t> vertex_numbers(const LinkedPlacement& plan) {
  std::vector<int32_t> numbers(plan.placement.nodes.size());
  std::iota(numbers.begin(), numbers.end(), spec::kHelixNameOffset);
  for (size_t i = 0; i < plan.written.size(); ++i) {
    numbers[plan.written[i]] = static_cast<int32_t>(i) + spec::kHelixNameOffset;
  }
  return numbers;
}

}  // namespace

PlanGraph build_graph(const PlanProblem& problem, const LinkedPlacement& linked) {
  const auto token = static_cast<double>(problem.model.token_bytes.value);
  const double message = token + static_cast<double>(problem.model.activation_bytes.value);
  PlanGraph plan;
  FlowGraph& graph = plan.graph;
  const auto vertex = [&](std::string name) {
    plan.vertex_names.push_back(std::move(name));
    return graph.add_vertex();
  };
  plan.source = vertex("source");
  plan.sink = vertex("sink");
  const int32_t coordinator_out = vertex("0_out");
  const int32_t coordinator_in = vertex("1_in");
  graph.add_arc(plan.source, coordinator_out, problem.cluster.coordinator_nic_out.value / token);
  graph.add_arc(coordinator_in, plan.sink, problem.cluster.coordinator_nic_in.value / token);

  std::vector<Neighbours> neighbours(problem.units.size());
  for (const PlanArc& arc : linked.arcs) {
    if (arc.to != kSink) {
      (arc.from == kSource ? neighbours[arc.to].from_source : neighbours[arc.to].from_unit) = true;
    }
    if (arc.from != kSource) {
      (arc.to == kSink ? neighbours[arc.from].to_sink : neighbours[arc.from].to_unit) = true;
    }
  }
  // Bytes a token costs a NIC: its id alone if every neighbour on that side is the coordinator.
  const auto nic_bytes = [&](bool coordinator, bool unit) {
    return coordinator && !unit ? token : message;
  };
  const std::vector<int32_t> numbers = vertex_numbers(linked);
  std::vector<int32_t> in_vertex(problem.units.size(), -1);
  std::vector<int32_t> out_vertex(problem.units.size(), -1);
  plan.unit_arc.assign(problem.units.size(), -1);
  for (int32_t u = 0; u < problem.size(); ++u) {
    const int32_t layers = linked.placement.nodes[u].size();
    if (layers <= 0) continue;
    const spec::MachineType& machine = problem.machine(u);
    const int32_t id = numbers[u];
    in_vertex[u] = vertex(format("{}_in", id));
    const int32_t start = vertex(format("{}_start", id));
    const int32_t end = vertex(format("{}_end", id));
    out_vertex[u] = vertex(format("{}_out", id));
    graph.add_arc(
        in_vertex[u], start,
        machine.nic_in.value / nic_bytes(neighbours[u].from_source, neighbours[u].from_unit));
    plan.unit_arc[u] = graph.add_arc(start, end, problem.table_rate(u, layers));
    graph.add_arc(end, out_vertex[u],
                  machine.nic_out.value / nic_bytes(neighbours[u].to_sink, neighbours[u].to_unit));
  }
  for (const PlanArc& arc : linked.arcs) {
    const int32_t from = arc.from == kSource ? coordinator_out : out_vertex[arc.from];
    const int32_t to = arc.to == kSink ? coordinator_in : in_vertex[arc.to];
    const bool outer = arc.from == kSource || arc.to == kSink;
    // An arc at an idle unit carries nothing; it keeps its place in the list.
    plan.link_arc.push_back(
        from < 0 || to < 0 ? graph.add_arc(coordinator_in, coordinator_out, 0)
                           : graph.add_arc(from, to, arc.bandwidth / (outer ? token : message)));
  }
  return plan;
}

std::vector<int32_t> valid_links(const Instance& instance, const Placement& placement,
                                 bool partial) {
  std::vector<int32_t> links;
  for (size_t i = 0; i < instance.links.size(); ++i) {
    const InstanceLink& link = instance.links[i];
    const LayerRange from = link.from == kSource ? LayerRange{0, 0} : placement.nodes[link.from];
    const LayerRange to = link.to == kSink ? LayerRange{instance.layers, instance.layers + 1}
                                           : placement.nodes[link.to];
    if ((link.from != kSource && from.empty()) || to.empty()) continue;
    const bool outer = link.from == kSource || link.to == kSink;
    if (usable(from, to, partial && !outer)) links.push_back(static_cast<int32_t>(i));
  }
  return links;
}

PlanGraph build_graph(const Instance& instance, const Placement& placement,
                      const std::vector<int32_t>& links) {
  PlanGraph plan;
  FlowGraph& graph = plan.graph;
  plan.vertex_names = {"source", "sink"};
  plan.source = graph.add_vertex();
  plan.sink = graph.add_vertex();
  plan.unit_arc.assign(placement.nodes.size(), -1);
  std::vector<int32_t> in_vertex(placement.nodes.size(), -1);
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    if (placement.nodes[i].empty()) continue;
    in_vertex[i] = graph.add_vertex();
    const int32_t out = graph.add_vertex();
    plan.vertex_names.push_back(format("{}_in", i));
    plan.vertex_names.push_back(format("{}_out", i));
    plan.unit_arc[i] =
        graph.add_arc(in_vertex[i], out, instance.rate(i, placement.nodes[i].size()));
  }
  for (const int32_t index : links) {
    const InstanceLink& link = instance.links[index];
    const int32_t from = link.from == kSource ? plan.source : in_vertex[link.from] + 1;
    const int32_t to = link.to == kSink ? plan.sink : in_vertex[link.to];
    plan.link_arc.push_back(graph.add_arc(from, to, link.capacity));
  }
  return plan;
}

}  // namespace towline::plan
