// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The planner's input files of Helix (Mei et al., ASPLOS'25): the cluster and the machine profile.
//
// Each file is held as a struct that loses nothing that the format says: quantities keep the
// expression they were written as beside its value, the comments before the first section are kept,
// and links keep their order. Printing what was read gives the bytes that Helix's own tools write
// (tested on every shipped file). Blank lines and spaces of hand-edited files are normalised.
// docs/cluster-files.md describes the formats.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "spec/cluster_desc.hpp"

namespace towline::spec {

// A quantity as written ("14.2 * mbps") and what it comes to (14'200'000 bytes/s).
struct Measure {
  std::string text;
  double value = 0;

  friend bool operator==(const Measure&, const Measure&) = default;
};

// cluster.ini: an undirected graph over the coordinator and the compute nodes.
struct HelixCluster {
  struct Node {
    std::string type;
    std::vector<int32_t> neighbours;  // in the order written; kSource first, kSink last
  };
  struct Link {
    int32_t a = kSource;  // kSource or a node
    int32_t b = kSink;    // kSink or a node, a < b between nodes
    Measure bandwidth;    // bytes/s, the same both ways
    Measure latency;      // seconds, one way
  };
  std::vector<std::string> heading;  // comment lines, without line ends
  std::vector<int32_t> source_neighbours;
  std::vector<int32_t> sink_neighbours;
  std::vector<Node> nodes;
  std::vector<Link> links;  // in the order of the file
};

Result<HelixCluster> parse_helix_cluster(std::string_view text, std::string_view source);
Result<HelixCluster> load_helix_cluster(const std::string& path);
std::string print_helix_cluster(const HelixCluster& cluster);

// machine_profile.ini: NICs, disk and memory by machine type.
struct HelixMachines {
  struct Machine {
    std::string type;  // "SourceNode" and "SinkNode" are the coordinator's two sides
    Measure nic_in;    // -1 where it does not apply
    Measure nic_out;
    Measure disk;
    Measure memory;
  };
  std::vector<std::string> heading;
  std::vector<Machine> machines;

  const Machine* find(std::string_view type) const;
};

Result<HelixMachines> parse_helix_machines(std::string_view text, std::string_view source);
Result<HelixMachines> load_helix_machines(const std::string& path);
std::string print_helix_machines(const HelixMachines& machines);

// Both files as one ClusterDesc: node i is called "compute_node_<i+2>" as Helix calls it; every
// undirected link becomes two directed ones, forward then backward, in the file's order; all
// machine types of the profile are kept, in its order.
Result<ClusterDesc> to_cluster(const HelixCluster& cluster, const HelixMachines& machines);
// The reverse, for tools that want Helix's files. Fails if a pair of directed links differs (the
// format cannot say so) or a machine has several devices.
Result<HelixCluster> to_helix_cluster(const ClusterDesc& cluster);
HelixMachines to_helix_machines(const ClusterDesc& cluster);

// Two files in, one cluster out: `cluster_path` may also be a native file, and then
// `machines_path` may be empty.
Result<ClusterDesc> load_any_cluster(const std::string& cluster_path,
                                     const std::string& machines_path);

}  // namespace towline::spec
