// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the nodes of a running cluster hold, and how much should flow between them: contiguous
// layers in proportion to speed where nobody says otherwise, and the maximum flow over the nodes
// that are there. Without a plan file every link that layers allow is taken, and is boundless. With
// one, links carry what it says and no other link is used; while all of its nodes and links are
// there, its own flows are taken as they are. Pure functions.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "plan/flow_report.hpp"
#include "policy/coordinator_events.hpp"
#include "spec/model_desc.hpp"
#include "spec/scenario.hpp"

namespace towline::serve {

struct ClusterNode {
  std::string name;
  LayerRange layers;
  int32_t threads = 1;
  int64_t kv_tokens = 0;       // 0: chosen
  double speed = 1;            // relative, until it has measured itself
  double rate = 0;             // rows a second through one layer; 0: as it measures itself
  int32_t tensor_parallel = 1; // ranks of each stage
  int32_t stages = 1;
  Json executor;               // what replaces the decoder ({"kind": "emulated", ...}); or null
};

Json layers_json(LayerRange layers);  // [begin, end]

// The longest sequence: the scenario's, else the model's, up to 8192.
int32_t context_of(const spec::ScenarioServing& serving, const spec::ModelDesc& model);

// KV capacity of a node that holds real layers, in tokens: its own, else room for all sequences at
// full length as far as a GiB goes, but for one at least.
int64_t kv_tokens_of(const ClusterNode& node, const spec::ModelDesc& model,
                     const spec::ScenarioServing& serving);

// Rows of one run of a node, at most: a step's; an emulated device takes several steps together.
int32_t run_rows_of(const spec::ScenarioServing& serving, bool emulated);

// Layers for every node that has none: contiguous, in order, in proportion to speed. At least as
// many layers as nodes.
Result<void> assign_layers(std::vector<ClusterNode>& nodes, int32_t total_layers);

// Of `nodes`, not empty, one whose range is held least by `held` (nodes of `nodes`; one may be
// there several times): least by its thinnest layer, a layer's speed being the sum of its holders'
// speeds a layer; of equals the first. What a node that nobody listed should hold.
const ClusterNode* range_to_fill(const std::vector<ClusterNode>& nodes,
                                 const std::vector<const ClusterNode*>& held);

struct NodeRate {
  std::string name;
  double rate = 0;             // rows a second through one layer, as it measured; 0: unknown
};

struct ClusterPlan {
  policy::PlanMade made;
  plan::FlowReport report;     // the same, for people
};
// A link of a plan file. Names are nodes'; empty: the coordinator.
struct PlannedLink {
  std::string from, to;
  double capacity = 0;         // tokens/s
  double flow = 0;             // tokens/s
};

// A node carries its rate divided by the layers it holds. Without a plan file, of all maximum flows
// one that loads the nodes evenly.
ClusterPlan plan_cluster(const policy::AskPlan& ask, const std::map<NodeId, NodeRate>& rates,
                         int32_t total_layers, const std::vector<PlannedLink>& planned = {});

}  // namespace towline::serve
