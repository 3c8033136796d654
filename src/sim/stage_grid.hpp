// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Small clusters and workloads for the tests of the stage-grain simulator. Test code only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sim/stage_engine.hpp"

namespace towline::sim {

// `stages` x `width` nodes of two layers, completely joined; a layer takes 1 ms a prompt token and
// 1 ms a decode batch of any size above one.
inline HelixInput grid(int32_t stages, int32_t width) {
  HelixInput input;
  input.total_layers = 2 * stages;
  input.token_bytes = 2;
  input.activation_bytes = 1000;
  input.layer_bytes = 1e9;
  input.coordinator_nic_in = input.coordinator_nic_out = 1e9;
  LayerTimes times;
  for (int i = 0; i <= 4096; ++i) times.prompt.push_back(0.001 * i);
  for (int i = 0; i <= 500; ++i) times.decode.push_back(i == 0 ? 0 : i == 1 ? 0.0005 : 0.001);
  input.times.push_back(times);
  for (int32_t s = 0; s < stages; ++s) {
    for (int32_t w = 0; w < width; ++w) {
      HelixNode node;
      node.name = "s" + std::to_string(s) + "w" + std::to_string(w);
      node.layers = {2 * s, 2 * s + 2};
      node.nic_in = node.nic_out = node.disk = 1e9;
      node.kv_capacity = 100'000;
      node.rate = 100;
      node.limits = {4, 4000, 100, 100'000};
      input.nodes.push_back(node);
      const int32_t me = s * width + w;
      if (s == 0) input.links.push_back({policy::kSourceNode, me, 0.001, 1e9});
      for (int32_t v = 0; s > 0 && v < width; ++v) {
        input.links.push_back({(s - 1) * width + v, me, 0.001, 1e9});
      }
      if (s == stages - 1) input.links.push_back({me, policy::kSinkNode, 0.001, 1e9});
    }
  }
  return input;
}

inline StageEngine::Source list_source(std::vector<spec::TraceRequest> list) {
  return [list = std::move(list), next = size_t{0}]() mutable
         -> Result<std::optional<spec::TraceRequest>> {
    if (next == list.size()) return std::optional<spec::TraceRequest>();
    return std::optional(list[next++]);
  };
}

}  // namespace towline::sim
