// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/layer_segments.hpp"

#include <set>

namespace towline::worker {

std::vector<LayerSegment> layer_segments(std::span<const RunItem> items) {
  std::set<int32_t> cuts;
  for (const RunItem& item : items) cuts.insert({item.hop.layers.begin, item.hop.layers.end});
  std::vector<LayerSegment> segments;
  for (auto cut = cuts.begin(); cut != cuts.end() && std::next(cut) != cuts.end(); ++cut) {
    LayerSegment segment{{*cut, *std::next(cut)}, {}};
    for (size_t i = 0; i < items.size(); ++i) {
      const LayerRange layers = items[i].hop.layers;
      if (layers.begin <= segment.layers.begin && segment.layers.end <= layers.end) {
        segment.items.push_back(i);
      }
    }
    if (!segment.items.empty()) segments.push_back(std::move(segment));
  }
  return segments;
}

}  // namespace towline::worker
