// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Placements to start a search from, quickly made, for clusters of up to tens of thousands of
// nodes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/instance.hpp"

namespace towline::plan {

struct Start {
  std::string name;  // "stages", "3 pipelines", "balanced blocks", ...
  Placement placement;
};

// In this order, each valid for the instance:
//   single node       the whole model on the best node that can hold it (if one can)
//   stages            one pipeline of aligned stages of all nodes (stage_ip.hpp)
//   p pipelines       the nodes of every type dealt to p pipelines of stages, the best p
//   group pipelines   the same inside each group of freely linked nodes; `group` is [node]
//   balanced blocks   S blocks of layers of equal depth, nodes dealt out longest-first, the best S
// Links are ignored: what a start is worth shows its flow.
std::vector<Start> make_starts(const Instance& instance, const std::vector<int32_t>& group);

}  // namespace towline::plan
