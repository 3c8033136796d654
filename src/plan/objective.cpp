// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/objective.hpp"

#include "plan/max_flow.hpp"

namespace towline::plan {

double static_flow(const Instance& instance, const Placement& placement, bool partial) {
  FlowGraph graph;
  const int32_t source = graph.add_vertex();
  const int32_t sink = graph.add_vertex();
  graph.vertices += 2 * instance.nodes();
  const auto input = [](int32_t node) { return 2 * node + 2; };
  const auto output = [](int32_t node) { return 2 * node + 3; };
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    const LayerRange range = placement.nodes[node];
    if (!range.empty()) {
      graph.add_arc(input(node), output(node), instance.rate(node, range.size()));
    }
  }
  for (const InstanceLink& link : instance.links) {
    const LayerRange from = link.from == kSource ? LayerRange{} : placement.nodes[link.from];
    const LayerRange to = link.to == kSink ? LayerRange{} : placement.nodes[link.to];
    if (link.from == kSource) {
      if (link.to != kSink && !to.empty() && to.begin == 0) {
        graph.add_arc(source, input(link.to), link.capacity);
      }
    } else if (link.to == kSink) {
      if (!from.empty() && from.end == instance.layers) {
        graph.add_arc(output(link.from), sink, link.capacity);
      }
    } else if (!from.empty() && !to.empty() && usable(from, to, partial)) {
      graph.add_arc(output(link.from), input(link.to), link.capacity);
    }
  }
  return max_flow(graph, source, sink).value;
}

}  // namespace towline::plan
