// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Random placement problems and the slow, obvious oracle for them. Test code only.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "plan/instance.hpp"
#include "plan/objective.hpp"

namespace towline::plan {

struct SampleShape {
  int32_t nodes = 4;
  int32_t layers = 6;
  int32_t longest = 4;         // K of the largest node
  int32_t regions = 1;         // links across regions are narrow
  int32_t link_percent = 100;  // of node pairs that are linked at all
};

// Two or three types of nodes; T(k) roughly falls as 1/k, with bumps.
inline Instance sample_instance(Rng& rng, const SampleShape& shape) {
  Instance instance;
  instance.layers = shape.layers;
  std::vector<std::vector<double>> types(static_cast<size_t>(rng.between(1, 3)));
  for (std::vector<double>& rates : types) {
    const double speed = 50.0 * static_cast<double>(rng.between(1, 8));
    rates.resize(static_cast<size_t>(rng.between(1, shape.longest)));
    for (size_t k = 1; k <= rates.size(); ++k) {
      rates[k - 1] = speed * (0.8 + 0.4 * rng.unit()) / static_cast<double>(k);
    }
  }
  for (int32_t i = 0; i < shape.nodes; ++i) {
    instance.rates.push_back(types[rng.below(types.size())]);
  }
  const auto region = [&](int32_t node) { return node * shape.regions / shape.nodes; };
  for (int32_t i = 0; i < shape.nodes; ++i) {
    instance.links.push_back({kSource, i, 1e6});
    instance.links.push_back({i, kSink, 1e6});
    for (int32_t j = 0; j < shape.nodes; ++j) {
      if (i == j || rng.below(100) >= static_cast<uint64_t>(shape.link_percent)) continue;
      const bool wide = region(i) == region(j);
      instance.links.push_back({i, j, wide ? 1e5 : 20 + 60 * rng.unit()});
    }
  }
  return instance;
}

inline Placement sample_placement(Rng& rng, const Instance& instance) {
  Placement placement;
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    const auto size = static_cast<int32_t>(rng.between(0, instance.max_count(node)));
    const auto begin = static_cast<int32_t>(rng.between(0, instance.layers - size));
    placement.nodes.push_back(size == 0 ? LayerRange{} : LayerRange{begin, begin + size});
  }
  return placement;
}

// The largest flow over all placements, by trying every one. For at most five small nodes.
inline double brute_force_flow(const Instance& instance, bool partial) {
  Placement placement;
  placement.nodes.resize(instance.rates.size());
  double best = 0;
  const auto place_from = [&](auto&& self, int32_t node) -> void {
    if (node == instance.nodes()) {
      best = std::max(best, static_flow(instance, placement, partial));
      return;
    }
    placement.nodes[node] = {};
    self(self, node + 1);
    for (int32_t size = 1; size <= instance.max_count(node); ++size) {
      for (int32_t begin = 0; begin + size <= instance.layers; ++begin) {
        placement.nodes[node] = {begin, begin + size};
        self(self, node + 1);
      }
    }
    placement.nodes[node] = {};
  };
  place_from(place_from, 0);
  return best;
}

// The folder of shared placement problems, or empty if this machine has none.
inline std::string shared_placement_folder() {
  const char* variable = std::getenv("TOWLINE_SHARED");
  const std::string folder =
      std::string(variable != nullptr ? variable : "../shared") + "/data/placement";
  return std::filesystem::exists(folder) ? folder : std::string();
}

}  // namespace towline::plan
