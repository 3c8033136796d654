// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ServedCluster: what a scenario asks for, read from its files: the model and its text, the nodes
// with their layers, the plan's flows.
//
// Either all workers hold the real model, or all are emulated: what they hand on differs. An
// emulated cluster needs no model file; `model` is a built-in name, and StandInText stands in for
// its text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.hpp"
#include "serve/cluster_engine.hpp"
#include "serve/text_model.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/scenario.hpp"

namespace towline::cli {

struct ServedCluster {
  serve::ClusterModel model;
  uint64_t model_hash = 0;                  // 0: emulated
  std::unique_ptr<serve::TextModel> text;
  std::vector<serve::ClusterNode> nodes;
  std::vector<serve::PlannedLink> links;    // empty: whatever layers allow
  // Whose links are to be emulated too; times and speeds slowed as the devices are.
  std::optional<spec::ClusterDesc> machines;
};

Result<ServedCluster> load_served_cluster(const spec::Scenario& scenario);

}  // namespace towline::cli
