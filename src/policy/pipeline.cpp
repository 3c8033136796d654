// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/pipeline.hpp"

#include <utility>

#include "base/fmt.hpp"

namespace towline::policy {
namespace {

Result<void> check_link(const RouteMap& map, const RouteLink& link, size_t number) {
  const auto fault = [&](std::string_view what) {
    return errorf(Code::kInvalidArgument, "link {} (node {} to node {}): {}", number, link.from,
                  link.to, what);
  };
  const auto known = [&](int32_t node) { return 0 <= node && node < map.nodes(); };
  if (link.from != kSourceNode && !known(link.from)) return fault("unknown origin");
  if (link.to != kSinkNode && !known(link.to)) return fault("unknown end");
  if (link.from == kSourceNode && link.to == kSinkNode) return fault("joins source and sink");
  if (link.from != kSourceNode && map.layers[link.from].empty()) return fault("its origin is idle");
  if (link.to == kSinkNode) {
    if (map.layers[link.from].end != map.total_layers) return fault("leaves before the last layer");
    return {};
  }
  const LayerRange next = map.layers[link.to];
  if (next.empty()) return fault("its end is idle");
  const int32_t done = link.from == kSourceNode ? 0 : map.layers[link.from].end;
  if (next.begin > done) return fault("leaves a gap between the layers");
  if (next.end <= done) return fault("its end holds no layer that is still to be run");
  return {};
}

}  // namespace

Result<RouteMap> RouteMap::make(int32_t total_layers, std::vector<LayerRange> layers,
                                std::vector<RouteLink> links) {
  RouteMap map;
  map.total_layers = total_layers;
  map.layers = std::move(layers);
  map.links = std::move(links);
  map.out.resize(map.layers.size() + 1);
  std::vector<size_t> degree(map.out.size(), 0);
  for (size_t i = 0; i < map.links.size(); ++i) {
    TRY(check_link(map, map.links[i], i));
    ++degree[map.links[i].from + 1];
  }
  for (size_t i = 0; i < degree.size(); ++i) map.out[i].reserve(degree[i]);
  for (size_t i = 0; i < map.links.size(); ++i) {
    map.out[map.links[i].from + 1].push_back(static_cast<int32_t>(i));
  }
  return map;
}

}  // namespace towline::policy
