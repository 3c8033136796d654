// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FlowEvaluator: the exact maximum flow of a placement, fast enough for a local search.
//
// The flow network has an arc of capacity T_i(k_i) through every node that holds layers, and the
// instance's links between nodes whose ranges meet. Where nodes are linked to one another so well
// that the links can never bind (capacity >= the smaller of the two nodes' best rates), they form a
// group, and the complete bipartite graph between those that end and those that begin at a layer
// boundary is replaced by one hub vertex: n + n arcs instead of n * n. Any flow through a hub
// splits into node-to-node flows of at most min(T_i, T_j), so the value is that of the full
// network. Dinic's algorithm (E. A. Dinic, 1970) on doubles.
//
// This is a second implementation beside max_flow.hpp on purpose: results that are reported are
// computed by that one. One evaluator serves one thread; it keeps its buffers between calls.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/instance.hpp"

namespace towline::plan {

// Flow on an arc between two stations of the network: nodes by number, hubs from nodes() upwards,
// kSource, kSink.
struct VertexFlow {
  int32_t from = kSource;
  int32_t to = kSink;
  double flow = 0;  // tokens/s
};

class FlowEvaluator {
 public:
  static constexpr int32_t kDenseNodes = 2048;

  // Keeps a reference to `instance`. `partial` allows partial inference (plan/instance.hpp).
  FlowEvaluator(const Instance& instance, bool partial);

  // Maximum flow in tokens/s; ranges is [node].
  double flow(std::span<const LayerRange> ranges);

  // Of the last flow() call: tokens/s through each node [node] (0 for idle ones), and whether the
  // node's own rate is part of the minimum cut nearest to the source.
  double node_flow(int32_t node) const;
  bool in_cut(int32_t node) const;
  // Was the node's input (output) side reachable from the source in the residual network? A link
  // i -> j is in the cut if output_reached(i) and not input_reached(j).
  bool input_reached(int32_t node) const { return level_[input(node)] >= 0; }
  bool output_reached(int32_t node) const { return level_[output(node)] >= 0; }

  // Of the last flow() call: every arc with flow, ordered so that all arcs into a station
  // come before those out of it.
  void flows(std::vector<VertexFlow>& list) const;

  int32_t groups() const { return groups_; }
  int32_t group(int32_t node) const { return group_[node]; }
  // Capacity of the links between two nodes; kSource and kSink are allowed.
  double link(int32_t from, int32_t to) const {
    if (from == kSource) return from_source_[to];
    if (to == kSink) return to_sink_[from];
    return capacity(from, to);
  }

 private:
  struct Arc {
    int32_t to;
    int32_t next;  // next arc of the same tail, -1 at the end
    double rest;   // residual capacity
  };
  static int32_t input(int32_t node) { return 2 * node + 2; }
  static int32_t output(int32_t node) { return 2 * node + 3; }
  double capacity(int32_t from, int32_t to) const;
  void read_links();
  void form_groups();
  bool free_link(int32_t from, int32_t to) const;

  void build(std::span<const LayerRange> ranges);
  void sort_by_boundary(std::span<const LayerRange> ranges);
  void join(int32_t boundary, std::span<const LayerRange> ranges);
  void add_flows(int32_t vertex, std::vector<VertexFlow>& list) const;
  void join_group_hubs(int32_t boundary, std::span<const int32_t> enders,
                       std::span<const int32_t> takers);
  void add_arc(int32_t tail, int32_t head, double capacity);
  bool label_levels();
  double augment_blocking();

  const Instance& instance_;
  const bool partial_;
  double tolerance_ = 0;
  int32_t groups_ = 0;
  std::vector<int32_t> group_;     // [node]
  std::vector<double> best_rate_;  // [node] max_k T(k)
  std::vector<double> from_source_, to_sink_;
  std::vector<double> dense_;        // [from * nodes + to], when there are few nodes
  std::vector<int32_t> link_begin_;  // [node + 1] into link_to_, sorted by target
  std::vector<int32_t> link_to_;
  std::vector<double> link_capacity_;

  // The network of the last call. Vertex 0 is the source, 1 the sink.
  std::vector<Arc> arcs_;         // arc a and its reverse a ^ 1
  std::vector<int32_t> first_;    // [vertex] first arc
  std::vector<int32_t> current_;  // [vertex] next arc to try
  std::vector<int32_t> level_;    // [vertex] distance from the source, -1 if not reached
  std::vector<int32_t> queue_, path_;
  std::vector<int32_t> node_arc_;                             // [node] its arc, -1 if idle
  std::vector<int32_t> begins_at_, begins_, ends_at_, ends_;  // nodes bucketed by boundary
  std::vector<int32_t> takers_, hub_of_group_;
  std::vector<int32_t> hub_boundary_;  // [hub] ascending
};

}  // namespace towline::plan
