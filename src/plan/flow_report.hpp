// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FlowReport: what a plan can serve, and why not more. The judge of every plan: maximum flow on the
// full graph by max_flow(), sharing no code with the search's evaluator.
//
// The graph is the one that Helix's scheduler plans on (Mei et al., ASPLOS'25, section 5.1). For a
// cluster: each unit is a chain in -> start -> end -> out whose arcs are the NIC inwards, T(k), and
// the NIC outwards; the coordinator has an out side (source) and an in side (sink) with its NIC;
// links join out sides to in sides. Capacities are tokens/s: a link or NIC carries bytes/s over the
// bytes that a token costs there, which is a token id at the coordinator and a token id plus an
// activation between units (only a token id at a unit whose one neighbour on that side is the
// coordinator). For an instance, which has its capacities ready: an arc T(k) through each node, and
// the links.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "plan/instance.hpp"
#include "plan/max_flow.hpp"
#include "plan/problem.hpp"
#include "spec/plan_desc.hpp"

namespace towline::plan {

// A flow graph and what its arcs stand for.
struct PlanGraph {
  FlowGraph graph;
  int32_t source = 0;
  int32_t sink = 1;
  std::vector<std::string> vertex_names;  // "source", "0_out", "2_start", ... as Helix calls them
  std::vector<int32_t> unit_arc;          // [unit] its T(k) arc, -1 if idle
  std::vector<int32_t> link_arc;          // [link of the plan]
};

PlanGraph build_graph(const PlanProblem& problem, const LinkedPlacement& plan);
// `links` are indices into instance.links; those whose ends hold no matching layers are the
// caller's to leave out (valid_links()).
PlanGraph build_graph(const Instance& instance, const Placement& placement,
                      const std::vector<int32_t>& links);
std::vector<int32_t> valid_links(const Instance& instance, const Placement& placement,
                                 bool partial);

struct LinkFlow {
  int32_t from = kSource;
  int32_t to = kSink;
  double flow = 0;      // tokens/s
  double capacity = 0;  // tokens/s
  double share = 0;     // of what leaves `from`: the weight of this link in interleaved weighted
                        // round robin; 0 where nothing leaves
  bool in_cut = false;  // part of the minimum cut
};

struct UnitFlow {
  std::string name;
  std::string kind;     // machine type, may be empty
  std::string region;   // may be empty
  LayerRange layers;    // empty: idle
  double flow = 0;      // tokens/s through the unit
  double capacity = 0;  // T(k) as far as it counts in the graph
  bool in_cut = false;
  double flow_without = 0;     // maximum flow of the plan after this unit fails
  std::string unused_because;  // empty when flow > 0
};

struct FlowReport {
  int32_t layers = 0;
  double max_flow = 0;        // tokens/s
  double max_compute = 0;     // the trivial bound: sum_i max_k k T_i(k) / L
  double upper_bound = 0;     // no placement on this cluster can exceed it (plan/bounds.hpp)
  double n_minus_1_flow = 0;  // the least flow_without
  std::vector<LinkFlow> links;
  std::vector<UnitFlow> units;
  // [layer] the sum of capacities of the units that hold it; 0: the plan leaves the layer
  // uncovered.
  std::vector<double> coverage;
  std::string bottleneck;  // one sentence: what the minimum cut is made of

  // The part of the bound that the plan leaves, 0 to 1.
  double gap() const { return upper_bound > max_flow ? 1 - max_flow / upper_bound : 0; }
};

struct ReportOptions {
  bool failures = true;  // compute flow_without (one maximum flow for each unit that carries flow)
};

FlowReport report_flow(const PlanProblem& problem, const LinkedPlacement& plan,
                       const ReportOptions& options = {});
FlowReport report_flow(const Instance& instance, const Placement& placement, bool partial,
                       const ReportOptions& options = {});

// Layers that no unit holds, as ranges.
std::vector<LayerRange> uncovered_layers(const FlowReport& report);

// The plan with its flows, as the native plan file has it. `model` may be empty.
spec::PlanDesc to_plan_desc(const FlowReport& report, std::string method, std::string model);

Json report_to_json(const FlowReport& report);
// For people: totals, the bottleneck, then a table of units (with the reason of each unused one).
std::string print_report(const FlowReport& report);

}  // namespace towline::plan
