// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The plan files of Helix: which layers each node holds (*_sol.ini), the directed cluster that its
// simulator and scheduler run on (simulator_cluster.ini), and the configuration that its prototype
// distributes (real_sys_config.txt). Read and written without loss, like spec/helix_cluster.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/helix_cluster.hpp"

namespace towline::spec {

// The number that Helix adds to a compute node's index to name it: 0 is the source, 1 the sink.
inline constexpr int32_t kHelixNameOffset = 2;
std::string helix_node_name(int32_t node);  // "compute_node_<node + 2>"

// *_sol.ini. An empty range is a node that holds nothing.
struct HelixSolution {
  std::vector<LayerRange> nodes;  // [node]

  friend bool operator==(const HelixSolution&, const HelixSolution&) = default;
};
Result<HelixSolution> parse_helix_solution(std::string_view text, std::string_view source);
Result<HelixSolution> load_helix_solution(const std::string& path);
std::string print_helix_solution(const HelixSolution& solution);

// simulator_cluster.ini. The orders of nodes and links matter: they number everything downstream.
struct HelixSimCluster {
  struct Node {
    std::string name;         // "compute_node_7"
    Measure memory;           // bytes
    Measure nic_in, nic_out;  // bytes/s
    Measure disk;             // bytes/s
    std::string machine_type;
    int64_t kv_capacity = 0;      // layer-tokens: tokens x layers held
    int64_t backup_capacity = 0;  // activation backup, same unit; 0 in every published file
  };
  struct Link {
    int32_t from = kSource;  // kSource or an index into nodes
    int32_t to = kSink;      // kSink or an index into nodes
    Measure latency;         // seconds
    Measure bandwidth;       // bytes/s
  };
  std::vector<std::string> heading;
  Measure coordinator_nic_in, coordinator_nic_out;
  std::vector<std::string> machine_types;
  std::vector<Node> nodes;
  std::vector<Link> links;

  std::string endpoint_name(int32_t endpoint) const;  // "source", "sink" or the node's name
};
Result<HelixSimCluster> parse_helix_sim_cluster(std::string_view text, std::string_view source);
Result<HelixSimCluster> load_helix_sim_cluster(const std::string& path);
std::string print_helix_sim_cluster(const HelixSimCluster& cluster);
// How Helix prints quantities in this file: 14.2e6 -> "14.2 * mbps", 0.05 -> "50.0 * MilliSec".
Measure helix_speed(double bytes_per_second);
Measure helix_memory(double bytes);
Measure helix_latency(double seconds);

// The index in the cluster of every node of `sim` ("compute_node_7" is 5).
Result<std::vector<int32_t>> cluster_indices(const HelixSimCluster& sim,
                                             const ClusterDesc& cluster);

// real_sys_config.txt. Machine 0 is the host (layers -1..-1); machine i is compute node i-1.
struct HelixRealSystem {
  struct Machine {
    int32_t id = 0;
    std::string ip_address;
    std::vector<int32_t> in_nodes;  // machine ids
    std::vector<int32_t> out_nodes;
    int32_t start_layer = -1;
    int32_t end_layer = -1;

    friend bool operator==(const Machine&, const Machine&) = default;
  };
  std::vector<Machine> machines;
};
Result<HelixRealSystem> parse_helix_real_system(std::string_view text, std::string_view source);
Result<HelixRealSystem> load_helix_real_system(const std::string& path);
std::string print_helix_real_system(const HelixRealSystem& system);

// The prototype's configuration of a placement, as Helix generates it: every link of the simulator
// cluster, whether it carries flow or not; idle nodes are left out. Addresses are taken in the
// nodes' order from the list of their machine type; a list too short or not used up is an error.
struct HelixAddresses {
  std::string host;
  std::vector<std::pair<std::string, std::vector<std::string>>> by_type;
};
Result<HelixRealSystem> make_helix_real_system(const HelixSimCluster& cluster,
                                               const HelixSolution& solution,
                                               const HelixAddresses& addresses);

}  // namespace towline::spec
