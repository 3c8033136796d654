// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/max_flow.hpp"

#include <gtest/gtest.h>
#include <lemon/preflow.h>
#include <lemon/smart_graph.h>

#include <algorithm>

#include "base/for_seeds.hpp"

namespace towline::plan {
namespace {

FlowGraph random_graph(Rng& rng, int32_t vertices, int32_t arcs, bool wide) {
  FlowGraph graph{vertices, {}};
  for (int32_t a = 0; a < arcs; ++a) {
    double capacity = rng.unit() < 0.1 ? 0.0 : 2000 * rng.unit();
    if (wide && rng.unit() < 0.2) capacity = 5e9;
    graph.add_arc(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vertices))),
                  static_cast<int32_t>(rng.below(static_cast<uint64_t>(vertices))), capacity);
  }
  return graph;
}

double cut_capacity(const FlowGraph& graph, const std::vector<bool>& source_side) {
  double sum = 0;
  for (const FlowArc& arc : graph.arcs) {
    if (source_side[arc.from] && !source_side[arc.to]) sum += arc.capacity;
  }
  return sum;
}

// The slow, obvious twin: the least capacity over every cut that separates source and sink.
double brute_force_min_cut(const FlowGraph& graph) {
  double best = 1e300;
  for (uint32_t side = 0; side < (1u << graph.vertices); ++side) {
    if ((side & 1u) == 0 || ((side >> (graph.vertices - 1)) & 1u) != 0) continue;
    std::vector<bool> source_side(graph.vertices);
    for (int32_t v = 0; v < graph.vertices; ++v) source_side[v] = ((side >> v) & 1u) != 0;
    best = std::min(best, cut_capacity(graph, source_side));
  }
  return best;
}

double lemon_max_flow(const FlowGraph& graph) {
  lemon::SmartDigraph digraph;
  std::vector<lemon::SmartDigraph::Node> nodes;
  for (int32_t v = 0; v < graph.vertices; ++v) nodes.push_back(digraph.addNode());
  lemon::SmartDigraph::ArcMap<double> capacity(digraph);
  for (const FlowArc& arc : graph.arcs) {
    capacity[digraph.addArc(nodes[arc.from], nodes[arc.to])] = arc.capacity;
  }
  lemon::Preflow<lemon::SmartDigraph, lemon::SmartDigraph::ArcMap<double>> preflow(
      digraph, capacity, nodes.front(), nodes.back());
  preflow.run();
  return preflow.flowValue();
}

void expect_valid(const FlowGraph& graph, const MaxFlow& result) {
  std::vector<double> excess(graph.vertices);
  for (size_t a = 0; a < graph.arcs.size(); ++a) {
    EXPECT_GE(result.flow[a], 0);
    EXPECT_LE(result.flow[a], graph.arcs[a].capacity);
    excess[graph.arcs[a].from] -= result.flow[a];
    excess[graph.arcs[a].to] += result.flow[a];
  }
  for (int32_t v = 1; v + 1 < graph.vertices; ++v) EXPECT_NEAR(excess[v], 0, 1e-6);
  EXPECT_NEAR(excess.back(), result.value, 1e-6);
  EXPECT_TRUE(result.source_side.front());
  EXPECT_FALSE(result.source_side.back());
  EXPECT_NEAR(cut_capacity(graph, result.source_side), result.value, 1e-6);
}

TEST(MaxFlow, EqualsTheLeastCutOfSmallGraphs) {
  for_seeds(300, [](Rng& rng) {
    const auto vertices = static_cast<int32_t>(rng.between(2, 8));
    const FlowGraph graph =
        random_graph(rng, vertices, static_cast<int32_t>(rng.between(0, 24)), false);
    const MaxFlow result = max_flow(graph, 0, vertices - 1);
    expect_valid(graph, result);
    EXPECT_NEAR(result.value, brute_force_min_cut(graph), 1e-6);
  });
}

TEST(MaxFlow, EqualsLemonOnRandomGraphs) {
  for_seeds(100, [](Rng& rng) {
    const auto vertices = static_cast<int32_t>(rng.between(2, 120));
    const FlowGraph graph =
        random_graph(rng, vertices, static_cast<int32_t>(rng.between(0, 900)), true);
    const MaxFlow result = max_flow(graph, 0, vertices - 1);
    EXPECT_NEAR(result.value, lemon_max_flow(graph), 1e-4);
    // 5e9 and 1e3 in one sum: LEMON's own rounding is what the tolerance is for.
    EXPECT_NEAR(cut_capacity(graph, result.source_side), result.value, 1e-4);
  });
}

TEST(MaxFlow, DoesNotDependOnTheNamesOfVertices) {
  for_seeds(100, [](Rng& rng) {
    const int32_t vertices = 12;
    const FlowGraph graph = random_graph(rng, vertices, 50, false);
    std::vector<int32_t> name(vertices);
    for (int32_t v = 0; v < vertices; ++v) name[v] = v;
    std::shuffle(name.begin(), name.end(), rng);
    FlowGraph renamed{vertices, {}};
    for (const FlowArc& arc : graph.arcs) {
      renamed.add_arc(name[arc.from], name[arc.to], arc.capacity);
    }
    EXPECT_NEAR(max_flow(graph, 0, vertices - 1).value,
                max_flow(renamed, name[0], name[vertices - 1]).value, 1e-6);
  });
}

TEST(MaxFlow, KeepsSmallFlowsExactBesideHugeCapacities) {
  FlowGraph graph{4, {}};
  graph.add_arc(0, 1, 5e9);
  const int32_t narrow = graph.add_arc(1, 2, 1289.5557702751464);
  graph.add_arc(2, 3, 5e9);
  const MaxFlow result = max_flow(graph, 0, 3);
  EXPECT_EQ(result.value, 1289.5557702751464);
  EXPECT_EQ(result.flow[narrow], 1289.5557702751464);
}

TEST(MaxFlow, IsSafeOnAChainOfAHundredThousand) {
  const int32_t length = 100'000;
  FlowGraph graph{length, {}};
  for (int32_t v = 0; v + 1 < length; ++v) graph.add_arc(v, v + 1, 7);
  EXPECT_EQ(max_flow(graph, 0, length - 1).value, 7);
}

}  // namespace
}  // namespace towline::plan
