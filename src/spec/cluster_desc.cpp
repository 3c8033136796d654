// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/cluster_desc.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/fmt.hpp"

namespace towline::spec {
namespace {

// Beyond these a value is a slip of units, not a machine.
constexpr double kMaxSpeed = 1e15;    // bytes/s
constexpr double kMaxLatency = 3600;  // seconds
constexpr int64_t kMaxMemory = int64_t{1} << 50;
constexpr int32_t kMaxDevices = 1024;
constexpr double kMaxFlops = 1e19;
constexpr double kMaxPrice = 1e9;

bool sane_speed(BytesPerSec speed) { return speed.value > 0 && speed.value <= kMaxSpeed; }

Error bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

Result<void> check_types(const ClusterDesc& cluster) {
  std::set<std::string> names;
  for (const MachineType& type : cluster.types) {
    if (type.name.empty() || !names.insert(type.name).second) {
      return bad(format("machine type '{}' needs a name of its own; rename it", type.name));
    }
    if (!sane_speed(type.nic_in) || !sane_speed(type.nic_out) || !sane_speed(type.disk)) {
      return bad(
          format("machine type '{}': NIC and disk speeds must lie above 0 and below 1e15 "
                 "bytes/s; correct the units",
                 type.name));
    }
    if (type.memory.value <= 0 || type.memory.value > kMaxMemory) {
      return bad(
          format("machine type '{}': memory of {} bytes; give a size above 0 and below 1 PiB",
                 type.name, type.memory.value));
    }
    const double bandwidth = type.memory_bandwidth.value;
    if (!(type.flops >= 0 && type.flops <= kMaxFlops) ||
        !(bandwidth >= 0 && bandwidth <= kMaxSpeed) ||
        !(type.price >= 0 && type.price <= kMaxPrice)) {
      return bad(
          format("machine type '{}': flops, memory_bandwidth and price must not be negative or "
                 "beyond 1e19, 1e15 and 1e9; correct the units",
                 type.name));
    }
  }
  return {};
}

Result<void> check_nodes(const ClusterDesc& cluster) {
  if (cluster.nodes.empty()) return bad("the cluster has no nodes; add at least one");
  if (cluster.nodes.size() > static_cast<size_t>(ClusterDesc::kMaxNodes)) {
    return bad(format("the cluster has {} nodes; {} is the most", cluster.nodes.size(),
                      ClusterDesc::kMaxNodes));
  }
  std::set<std::string> names = {"source", "sink", "coordinator"};
  for (const ClusterNode& node : cluster.nodes) {
    if (node.name.empty() || !names.insert(node.name).second) {
      return bad(
          format("node '{}' needs a name of its own, and not source, sink or coordinator; "
                 "rename it",
                 node.name));
    }
    if (node.type < 0 || static_cast<size_t>(node.type) >= cluster.types.size()) {
      return bad(format("node '{}' has no known machine type; add the type", node.name));
    }
    if (node.devices < 1 || node.devices > kMaxDevices) {
      return bad(
          format("node '{}' has {} devices; give 1 to {}", node.name, node.devices, kMaxDevices));
    }
  }
  return {};
}

Result<void> check_links(const ClusterDesc& cluster) {
  std::set<std::pair<int32_t, int32_t>> ends;
  for (const ClusterLink& link : cluster.links) {
    const bool from_known = link.from == kSource || (link.from >= 0 && link.from < cluster.size());
    const bool to_known = link.to == kSink || (link.to >= 0 && link.to < cluster.size());
    if (!from_known || !to_known || link.from == link.to ||
        (link.from == kSource && link.to == kSink)) {
      return bad(format("a link joins {} and {}, which are not two ends of this cluster", link.from,
                        link.to));
    }
    const std::string name = format("the link from '{}' to '{}'", cluster.endpoint_name(link.from),
                                    cluster.endpoint_name(link.to));
    if (!ends.insert({link.from, link.to}).second) {
      return bad(format("{} is given twice; remove one", name));
    }
    if (!sane_speed(link.bandwidth)) {
      return bad(format("{} has a bandwidth of {} bytes/s; give one above 0 and below 1e15", name,
                        link.bandwidth.value));
    }
    if (!(link.latency.value >= 0) || link.latency.value > kMaxLatency) {
      return bad(
          format("{} has a latency of {} s; give one from 0 to 3600 s", name, link.latency.value));
    }
  }
  return {};
}

}  // namespace

std::string ClusterDesc::endpoint_name(int32_t endpoint) const {
  return endpoint == kSource ? "source" : endpoint == kSink ? "sink" : nodes[endpoint].name;
}

Result<void> validate(const ClusterDesc& cluster) {
  if (!sane_speed(cluster.coordinator_nic_in) || !sane_speed(cluster.coordinator_nic_out)) {
    return bad(
        "the coordinator's NIC speeds must lie above 0 and below 1e15 bytes/s; correct the "
        "units");
  }
  TRY(check_types(cluster));
  TRY(check_nodes(cluster));
  return check_links(cluster);
}

std::vector<std::string> infer_regions(const ClusterDesc& cluster) {
  constexpr double kNear = 4;  // times the least latency
  std::vector<int32_t> parent(cluster.nodes.size());
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int32_t node) {
    while (parent[node] != node) node = parent[node] = parent[parent[node]];
    return node;
  };
  double least = kMaxLatency;
  for (const ClusterLink& link : cluster.links) {
    if (link.from >= 0 && link.to >= 0) least = std::min(least, link.latency.value);
  }
  for (const ClusterLink& link : cluster.links) {
    if (link.from < 0 || link.to < 0 || link.latency.value > kNear * least) continue;
    // The smaller number is the root, so that regions are numbered in node order.
    const auto [low, high] = std::minmax({root(link.from), root(link.to)});
    parent[high] = low;
  }
  std::map<int32_t, std::string> names;
  std::vector<std::string> regions;
  for (int32_t node = 0; node < cluster.size(); ++node) {
    if (!cluster.nodes[node].region.empty()) {
      regions.push_back(cluster.nodes[node].region);
      continue;
    }
    const auto [entry, fresh] = names.try_emplace(root(node));
    if (fresh) entry->second = format("region-{}", names.size() - 1);
    regions.push_back(entry->second);
  }
  return regions;
}

}  // namespace towline::spec
