// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Helix's cluster generators and its pruning tool: the same parameters and seed give the same bytes
// as the reference implementation (tested on every shipped cluster).
//
// Parameters are Python numbers, because a file's heading prints them as Python does: an average of
// `1000 * mbps` is an integer there and `10 * gbps / 8` is a float.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "spec/helix_cluster.hpp"
#include "spec/py_value.hpp"

namespace towline::plan {

// A link's bandwidth (bytes/s) and latency (seconds) are drawn from average +- variation.
struct LinkStatistics {
  spec::PyNumber average_bandwidth = spec::PyNumber::of(int64_t{1'000'000'000});
  spec::PyNumber bandwidth_variation = spec::PyNumber::of(int64_t{0});
  spec::PyNumber average_latency = spec::PyNumber::of(0.001);
  spec::PyNumber latency_variation = spec::PyNumber::of(int64_t{0});
};

// A random graph of machines, mixed by weight.
struct FakeCluster {
  uint64_t seed = 0;
  int32_t nodes = 0;
  int32_t average_degree = 0;  // links between nodes, per node
  int32_t source_degree = 0;
  int32_t sink_degree = 0;
  std::vector<std::pair<std::string, spec::PyNumber>> types;  // name, weight
  LinkStatistics link;
  bool fill = true;  // complete the graph with slow links
  LinkStatistics slow;
};
Result<spec::HelixCluster> generate(const FakeCluster& wanted);

// Regions with fast links inside and slow ones between them and to the coordinator; complete graph.
struct PartitionedCluster {
  uint64_t seed = 0;
  std::vector<std::vector<std::string>> partitions;  // machine types, in node order
  LinkStatistics inside;
  LinkStatistics between;
};
Result<spec::HelixCluster> generate(const PartitionedCluster& wanted);

// The part of a cluster that is of one machine type, renumbered; links keep their values.
spec::HelixCluster only_type(const spec::HelixCluster& cluster, const std::string& type);

// Keeps the best links of the source, the sink and each node (among its links to other nodes), by
// bandwidth: the first `min_keep`, and up to `max_keep` as long as they reach `threshold` bytes/s.
// A link between nodes stays if either end keeps it. `label` is what the heading calls the input.
struct Pruning {
  int32_t min_keep = 12;
  int32_t max_keep = 12;
  spec::PyNumber threshold = spec::PyNumber::of(int64_t{1});
  std::string label;
};
Result<spec::HelixCluster> prune(const spec::HelixCluster& cluster, const Pruning& pruning);

}  // namespace towline::plan
