// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_plan.hpp"

#include <gtest/gtest.h>

namespace towline::serve {
namespace {

struct Node {
  NodeId node;
  std::string name;
  LayerRange layers;
  double capacity;  // tokens/s
};

policy::AskPlan ask_of(const std::vector<Node>& nodes) {
  policy::AskPlan ask;
  ask.number = 7;
  for (const Node& node : nodes) ask.nodes.emplace_back(node.node, node.layers);
  return ask;
}

ClusterPlan plan_of(const policy::AskPlan& ask, const std::vector<Node>& nodes,
                    const std::vector<PlannedLink>& planned = {}) {
  std::map<NodeId, NodeRate> rates;
  for (const Node& node : nodes) {
    rates[node.node] = {node.name, node.capacity * node.layers.size()};
  }
  return plan_cluster(ask, rates, 8, planned);
}

double flow_of(const ClusterPlan& flow, int32_t from, int32_t to) {
  for (size_t i = 0; i < flow.made.links.size(); ++i) {
    if (flow.made.links[i].from == from && flow.made.links[i].to == to) return flow.made.flow[i];
  }
  return -1;
}

TEST(ClusterPlan, WithoutAPlanFileEqualNodesCarryEqualShares) {
  const std::vector<Node> nodes = {{NodeId(0), "a", {0, 4}, 300},
                                          {NodeId(1), "b", {4, 8}, 200},
                                          {NodeId(2), "c", {4, 8}, 200}};
  const ClusterPlan flow = plan_of(ask_of(nodes), nodes);
  EXPECT_EQ(flow.made.number, 7);
  EXPECT_NEAR(flow.made.max_flow, 300, 1e-3);
  EXPECT_NEAR(flow_of(flow, 0, 1), 150, 0.1);
  EXPECT_NEAR(flow_of(flow, 0, 2), 150, 0.1);
  EXPECT_TRUE(flow.report.units[0].in_cut);
  EXPECT_FALSE(flow.report.units[1].in_cut);
}

TEST(ClusterPlan, BrokenLinkIsNotUsed) {
  const std::vector<Node> nodes = {{NodeId(0), "a", {0, 4}, 300},
                                          {NodeId(1), "b", {4, 8}, 200},
                                          {NodeId(2), "c", {4, 8}, 200}};
  policy::AskPlan ask = ask_of(nodes);
  ask.broken.emplace_back(NodeId(0), NodeId(1));
  const ClusterPlan flow = plan_of(ask, nodes);
  EXPECT_NEAR(flow.made.max_flow, 200, 1e-3);
  EXPECT_EQ(flow_of(flow, 0, 1), -1);
}

// A plan's flows need not be those that our solver would find.
const std::vector<PlannedLink> kPlanned = {{"", "a", 1000, 250},  {"a", "b", 100, 90},
                                           {"a", "c", 1000, 160}, {"b", "", 1000, 90},
                                           {"c", "", 1000, 160}};

TEST(ClusterPlan, CompletePlanIsTakenAsItIs) {
  const std::vector<Node> nodes = {{NodeId(4), "a", {0, 4}, 300},
                                          {NodeId(5), "b", {4, 8}, 200},
                                          {NodeId(6), "c", {4, 8}, 200}};
  const ClusterPlan flow = plan_of(ask_of(nodes), nodes, kPlanned);
  EXPECT_DOUBLE_EQ(flow.made.max_flow, 250);
  EXPECT_DOUBLE_EQ(flow_of(flow, 4, 5), 90);
  EXPECT_DOUBLE_EQ(flow_of(flow, policy::kSourceNode, 4), 250);
  EXPECT_DOUBLE_EQ(flow_of(flow, 6, policy::kSinkNode), 160);
}

TEST(ClusterPlan, WhatIsLeftOfAPlanIsSolvedAnew) {
  const std::vector<Node> nodes = {{NodeId(0), "a", {0, 4}, 300},
                                          {NodeId(1), "b", {4, 8}, 200}};
  const ClusterPlan flow = plan_of(ask_of(nodes), nodes, kPlanned);
  EXPECT_NEAR(flow.made.max_flow, 100, 1e-6);  // the link's capacity
  EXPECT_EQ(flow_of(flow, 0, 2), -1);
}

ClusterNode holder(std::string name, LayerRange layers, double speed = 1) {
  ClusterNode node;
  node.name = std::move(name);
  node.layers = layers;
  node.speed = speed;
  return node;
}

TEST(ClusterPlan, AnUnlistedNodeFillsWhatIsMissingFirst) {
  const std::vector<ClusterNode> nodes = {holder("a", {0, 4}, 2), holder("b", {3, 8}, 8),
                                          holder("c", {4, 8}, 4)};
  const auto filled = [&](const std::vector<size_t>& present) {
    std::vector<const ClusterNode*> held;
    for (const size_t i : present) held.push_back(&nodes[i]);
    return range_to_fill(nodes, held)->name;
  };
  EXPECT_EQ(filled({}), "a");
  EXPECT_EQ(filled({0}), "b");
  EXPECT_EQ(filled({0, 2}), "a");     // b is not there, but its layers are
  EXPECT_EQ(filled({1, 2}), "a");
  EXPECT_EQ(filled({0, 1, 2}), "a");  // 0.5 a layer, against 1 and 2.6
  EXPECT_EQ(filled({0, 0, 0, 0, 0, 0, 1, 2}), "b");
}

}  // namespace
}  // namespace towline::serve
