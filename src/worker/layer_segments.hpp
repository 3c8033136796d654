// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Which items of a run pass through which layers together.
//
// With partial inference, items of one run may enter a node's layers at different places (and leave
// at different ones). The layers are cut where any item enters or leaves; between two cuts all
// items inside go through together, so that weights are read once for all of them.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "worker/executor.hpp"

namespace towline::worker {

struct LayerSegment {
  LayerRange layers;
  std::vector<size_t> items;  // that pass through all of them; ascending, not empty
};

// In ascending order of layers.
std::vector<LayerSegment> layer_segments(std::span<const RunItem> items);

}  // namespace towline::worker
