// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the nodes of a running cluster hold, and how much should flow between them: contiguous layers
// in proportion to speed where nobody says otherwise, and the maximum flow over the nodes that are
// there. Pure functions.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "plan/flow_report.hpp"
#include "policy/coordinator_events.hpp"

namespace towline::serve {

struct ClusterNode {
  std::string name;
  LayerRange layers;
  int32_t threads = 1;
  int64_t kv_tokens = 0;       // 0: chosen
  double speed = 1;            // relative, until it has measured itself
  Json executor;               // what replaces the real decoder ({"kind": "emulated", ...}); or null
};

// Layers for every node that has none: contiguous, in order, in proportion to speed. At least as
// many layers as nodes.
Result<void> assign_layers(std::vector<ClusterNode>& nodes, int32_t total_layers);

struct NodeRate {
  std::string name;
  double rate = 0;             // rows a second through one layer, as it measured; 0: unknown
};

struct ClusterPlan {
  policy::PlanMade made;
  plan::FlowReport report;     // the same, for people
};
// Every link that layers allow and that is not broken; a node carries its rate divided by the layers
// it holds, links are boundless. Of all maximum flows one that loads the nodes evenly.
ClusterPlan plan_cluster(const policy::AskPlan& ask, const std::map<NodeId, NodeRate>& rates,
                         int32_t total_layers);

}  // namespace towline::serve
