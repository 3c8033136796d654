// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// KV caches of `towline simulate --policy towline`: prompt and decode nodes, the search for their
// ratio, copies on other nodes, swapping.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/simulate_options.hpp"
#include "cli/simulate_workload.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/profile.hpp"

namespace towline::cli {

// The rows of these options.
void add_roles_options(OptionTable& table, SimulateOptions& o);

struct PlacedMachine {
  std::string name;
  LayerRange layers;
  policy::NodeRole role = policy::NodeRole::kBoth;
};

// The cluster's machines with the model on `prompt_machines` of them for prompts, and once more on
// the others for decoding; each side is planned by itself. Prompts go to those that are fastest at
// them compared with their decoding. Fails if a side cannot hold the model.
Result<std::vector<PlacedMachine>> place_roles(const spec::ClusterDesc& cluster,
                                               const spec::Profile& profile, int prompt_machines);

// Rates by role, and no way from one side to the other.
void settle_roles(sim::HelixInput& input);

// --replicate and --swap-*; and links for caches wherever one is needed and none is there,
// as good as the best that the sender sends over and the receiver receives over.
Result<void> apply_kv(const SimulateOptions& o, sim::HelixInput& input);

// --find-pd-ratio. `input_of`: the cluster with so many machines for prompts; 0: all do both.
Result<int> find_pd_ratio(const SimulateOptions& o, const sim::StageOptions& options,
                          const Workload& work, int machines,
                          const std::function<Result<sim::HelixInput>(int)>& input_of);

}  // namespace towline::cli
