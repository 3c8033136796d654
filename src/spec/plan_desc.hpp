// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// PlanDesc: a finished plan as pure data, for whoever runs it: which layers each node holds, and
// how requests spread over the links. Nodes and links are named as in the cluster file; the
// coordinator is "source" as the origin of a link and "sink" as its end.
//
// The native file is TOML (JSON of the same shape is read too):
//
//   schema = 1
//   method = "auto"
//   model = "llama2-70b"        # may be missing
//   layers = 80
//   max_flow = 2045.64          # tokens/s
//   upper_bound = 2045.64
//   [[nodes]]
//   name = "compute_node_2"
//   begin = 7                   # layers [begin, end); begin = end: idle
//   end = 11
//   flow = 1289.5               # tokens/s
//   [[links]]
//   from = "source"
//   to = "compute_node_2"
//   flow = 1289.5
//   capacity = 500000000.0
//   share = 1.0                 # of the requests that leave `from`
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::spec {

struct PlannedNode {
  std::string name;
  LayerRange layers;  // empty: idle
  TokensPerSec flow;

  friend bool operator==(const PlannedNode&, const PlannedNode&) = default;
};

struct PlannedLink {
  std::string from;  // "source" or a node
  std::string to;    // "sink" or a node
  TokensPerSec flow;
  TokensPerSec capacity;
  double share = 0;  // 0..1

  friend bool operator==(const PlannedLink&, const PlannedLink&) = default;
};

struct PlanDesc {
  std::string method;
  std::string model;
  int32_t layers = 0;
  TokensPerSec max_flow;
  TokensPerSec upper_bound;
  std::vector<PlannedNode> nodes;
  std::vector<PlannedLink> links;

  const PlannedNode* find(std::string_view name) const;
  friend bool operator==(const PlanDesc&, const PlanDesc&) = default;
};

// Names unique and known, ranges inside [0, layers), every layer held by someone, numbers finite.
// What the readers promise of a plan they return.
Result<void> validate(const PlanDesc& plan);

// `source` names the text in errors. parse_plan(parse_toml(print_plan(p))) == p.
Result<PlanDesc> parse_plan(const Json& tree, std::string_view source);
Result<PlanDesc> load_plan(const std::string& path);  // .toml or .json
std::string print_plan(const PlanDesc& plan);

}  // namespace towline::spec
