// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Instance and Placement: the placement problem reduced to numbers, and an
// answer to it.
//
// An Instance is what Helix's MILP sees (Mei et al., ASPLOS'25, section 4): L
// layers; for every node the tokens/s T(k) it sustains when it holds k
// consecutive layers; directed links with a capacity in tokens/s, among them
// links from the source (prompt tokens in) and to the sink (tokens out). It is
// derived from a cluster, a profile and a model, or read from an `.inst` file.
// A Placement gives every node its layers. Its static worth is the maximum flow
// from source to sink through nodes whose ranges meet (see usable()).
//
// Files (data/placement; described in docs/planner.md, "Instances"). '#' begins
// a comment line.
//   X.inst    "L n m", then n lines "K T(1) .. T(K)", then m lines "from to
//   capacity";
//             node numbers 0..n-1, -1 = the source (as `from`), -2 = the sink
//             (as `to`)
//   X.helix   "node start count" per line; a node not listed, or with count 0,
//   holds nothing
// Both readers are safe against hostile input: memory is bounded by a small
// multiple of the input's size, and every fault is one sentence with the line.
//
// Plain values, no invariants kept by the types: whoever builds an Instance by
// hand calls validate().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace towline::plan {

inline constexpr int32_t kSource = -1;
inline constexpr int32_t kSink = -2;
inline constexpr double kMaxRate = 1e15;  // tokens/s; larger figures are mistakes

// A directed link; capacity in tokens/s, finite and not negative. Parallel
// links add up.
struct InstanceLink {
  int32_t from = kSource;  // kSource or a node
  int32_t to = kSink;      // kSink or a node
  double capacity = 0;
};

// Nodes that are alternative uses of the devices of one machine
// (tensor-parallel groups). A machine with four devices is, say, seven nodes of
// 4, 2, 2, 1, 1, 1, 1 devices, of which those that hold layers may use at most
// four devices together.
struct SharedMachine {
  int32_t devices = 0;
  std::vector<int32_t> nodes;         // indices of its nodes
  std::vector<int32_t> node_devices;  // [nodes.size()] devices each of them uses
};

struct Instance {
  static constexpr int32_t kMaxLayers = 10'000;
  static constexpr int32_t kMaxNodes = 100'000;

  int32_t layers = 0;
  std::vector<std::vector<double>>
      rates;  // [node][k-1] = T(k) tokens/s; not always decreasing in k
  std::vector<InstanceLink> links;
  std::vector<std::string> names;       // [node], or empty: nodes are called by their number
  std::vector<SharedMachine> machines;  // empty: every node is a machine of its own

  int32_t nodes() const { return static_cast<int32_t>(rates.size()); }
  int32_t max_count(int32_t node) const { return static_cast<int32_t>(rates[node].size()); }
  double rate(int32_t node, int32_t count) const { return rates[node][count - 1]; }
  std::string name(int32_t node) const;
};

struct Placement {
  std::vector<LayerRange> nodes;  // [node]; empty range: idle

  friend bool operator==(const Placement&, const Placement&) = default;
};

// May a token go from a node holding `a` to one holding `b`? Strict: b begins
// where a ends. With `partial` inference also when b begins earlier but ends
// later (it then runs only [a.end, b.end)).
constexpr bool usable(LayerRange a, LayerRange b, bool partial) {
  return a.end == b.begin || (partial && b.begin < a.end && a.end < b.end);
}

// Counts, ids and capacities within bounds. Every function of plan/ assumes a
// valid instance.
Result<void> validate(const Instance& instance);
// One range per node, inside [0, layers), no longer than the node's table;
// machines not overdrawn.
Result<void> validate(const Placement& placement, const Instance& instance);

// Can the nodes that links join to the coordinator, both ways, hold all layers? What every planner
// asks first; the error says what is missing.
Result<void> check_room(const Instance& instance);

// `source` names the text in errors.
Result<Instance> parse_instance(std::string_view text, std::string_view source);
Result<Instance> load_instance(const std::string& path);
std::string print_instance(const Instance& instance);  // parse_instance(print_instance(x)) == x

Result<Placement> parse_placement(std::string_view text, std::string_view source,
                                  const Instance& instance);
Result<Placement> load_placement(const std::string& path, const Instance& instance);
std::string print_placement(const Placement& placement);

}  // namespace towline::plan
