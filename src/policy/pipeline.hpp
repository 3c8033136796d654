// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RouteMap and Pipeline: the graph that routers choose from, and what they choose.
//
// Compute nodes are 0..nodes-1; the coordinator is kSourceNode as the origin of a link and kSinkNode
// as its end. A link may be used only if its end holds the layers that follow those of its origin;
// where the ranges overlap, the later node runs only the layers that are still missing (partial
// inference).
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace towline::policy {

inline constexpr int32_t kSourceNode = -1;
inline constexpr int32_t kSinkNode = -2;

struct RouteLink {
  int32_t from = kSourceNode;  // kSourceNode or a node
  int32_t to = kSinkNode;      // kSinkNode or a node
};

struct RouteMap {
  int32_t total_layers = 0;
  std::vector<LayerRange> layers;            // [node]; empty: the node is idle
  std::vector<RouteLink> links;
  std::vector<std::vector<int32_t>> out;     // [node + 1] links by number; [0] is the source's

  int32_t nodes() const { return static_cast<int32_t>(layers.size()); }
  const std::vector<int32_t>& links_from(int32_t node) const { return out[node + 1]; }
  // The layers that remain for `to` after `from` has run all of its own; empty for the sink.
  LayerRange layers_after(int32_t from, int32_t to) const {
    if (to == kSinkNode) return {};
    const int32_t done = from == kSourceNode ? 0 : layers[from].end;
    return {from == kSourceNode ? layers[to].begin : done, layers[to].end};
  }

  // Fills `out` from `links`. Fails if a link cannot carry a request onwards: an idle end, layers
  // that leave a gap, a first node without layer 0, a last node without the last layer.
  static Result<RouteMap> make(int32_t total_layers, std::vector<LayerRange> layers,
                               std::vector<RouteLink> links);
};

// One step of a request's way: the link it takes and what is run at its end.
struct Hop {
  int32_t link = 0;
  int32_t node = kSinkNode;  // kSinkNode: the tokens are back at the coordinator
  LayerRange layers;         // empty at the sink
  friend bool operator==(const Hop&, const Hop&) = default;
};

// A request's whole way; the last hop ends at the sink.
using Pipeline = std::vector<Hop>;

}  // namespace towline::policy
