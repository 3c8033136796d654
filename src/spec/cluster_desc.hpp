// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterDesc: the machines and the links between them, as pure data.
//
// Speeds are bytes/s and latencies one-way seconds. Links are directed: a cable is two of them. The
// coordinator is where requests enter and tokens leave; as the origin of a link it is called the
// source, as its end the sink (kSource and kSink stand for it in links).
//
// Files: native TOML or JSON (parse_cluster), or Helix's pair of cluster.ini and
// machine_profile.ini (spec/helix_cluster.hpp). docs/cluster-files.md describes both.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::spec {

inline constexpr int32_t kSource = -1;
inline constexpr int32_t kSink = -2;

// A kind of machine. Tables of speeds (spec/profile.hpp) are found by its name.
struct MachineType {
  std::string name;
  Bytes memory;        // of one device, for weights and KV cache
  BytesPerSec nic_in;  // of the whole machine
  BytesPerSec nic_out;
  BytesPerSec disk;  // weights are loaded at this speed
  // Of one device; 0: not known. Needed where there is no measured profile (spec/roofline.hpp).
  double flops = 0;  // peak operations/s on 2-byte floats
  BytesPerSec memory_bandwidth{};
  double price = 0;  // of a machine with one device, in any currency an hour; 0: not known

  friend bool operator==(const MachineType&, const MachineType&) = default;
};

struct ClusterNode {
  std::string name;
  int32_t type = 0;     // index into ClusterDesc::types
  int32_t devices = 1;  // equal devices that may work as tensor-parallel groups
  std::string region;   // may be empty: infer_regions()

  friend bool operator==(const ClusterNode&, const ClusterNode&) = default;
};

struct ClusterLink {
  int32_t from = kSource;  // kSource or a node
  int32_t to = kSink;      // kSink or a node
  BytesPerSec bandwidth;
  Seconds latency;

  friend bool operator==(const ClusterLink&, const ClusterLink&) = default;
};

struct ClusterDesc {
  static constexpr int32_t kMaxNodes = 100'000;

  std::string name;
  BytesPerSec coordinator_nic_in;   // tokens come back here (the sink)
  BytesPerSec coordinator_nic_out;  // prompts leave from here (the source)
  std::vector<MachineType> types;
  std::vector<ClusterNode> nodes;
  std::vector<ClusterLink> links;

  int32_t size() const { return static_cast<int32_t>(nodes.size()); }
  const MachineType& type_of(int32_t node) const { return types[nodes[node].type]; }
  std::string endpoint_name(int32_t endpoint) const;  // "source", "sink" or the node's name

  friend bool operator==(const ClusterDesc&, const ClusterDesc&) = default;
};

// Speeds positive, ids in range, names unique, no link twice, none from a node to itself. What the
// readers promise of every ClusterDesc they return.
Result<void> validate(const ClusterDesc& cluster);

// A region for every node: as given, or, where none is given, the groups of nodes that are joined
// by links of at most four times the least latency between nodes ("region-0", ...in node order).
std::vector<std::string> infer_regions(const ClusterDesc& cluster);

// Native files. `source` names the text in errors. parse_cluster(print_cluster(c)) == c.
//
//   schema = 1
//   name = "two rooms"
//   [coordinator]
//   nic = "10 gbit"                      # or nic_in and nic_out
//   [[types]]
//   name = "A100"
//   memory = "40 GB"
//   nic = "10 gbit"
//   disk = "1 GB/s"
//   flops = 312e12                       # optional, as are the next two
//   memory_bandwidth = "1555 GB/s"
//   price = 3.67                         # an hour
//   [[nodes]]
//   name = "alpha"
//   type = "A100"
//   devices = 4
//   region = "attic"
//   [[networks]]                         # every pair within the list, both ways
//   members = ["alpha", "beta", "coordinator"]
//   bandwidth = "1 gbit"
//   latency = "1 ms"
//   [[links]]                            # one direction; replaces what a network said
//   from = "coordinator"
//   to = "alpha"
//   bandwidth = "100 mbit"
//   latency = "50 ms"
//
// Numbers without a unit are bytes, bytes/s and seconds. Bits are written out ("gbit"), bytes too
// ("GB/s"): the word "gbps" is refused, because it means two things (spec/py_value.hpp).
Result<ClusterDesc> parse_cluster(const Json& tree, std::string_view source);
Result<ClusterDesc> load_cluster(const std::string& path);  // .toml or .json
Json cluster_to_json(const ClusterDesc& cluster);
std::string print_cluster(const ClusterDesc& cluster);  // TOML

// "10 gbit", "1.5 GB/s", 1e9 -> bytes/s; "40 GB", "16 GiB" -> bytes; "50 ms" -> seconds.
Result<BytesPerSec> parse_speed(const Json& value);
Result<Bytes> parse_size(const Json& value);
Result<Seconds> parse_seconds(const Json& value);

}  // namespace towline::spec
