// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The published measurements of Helix, as literals; spec/profile.cpp makes profiles of them.
#pragma once

#include <vector>

#include "spec/profile.hpp"

namespace towline::spec {

struct HelixDeviceTables {
  const char* type;
  double start_speed;  // layer-tokens/s, relative: where the fixed point starts
  int32_t roomy_layers, tight_layers;
  int32_t prompt_max_requests;             // the same for every number of layers
  std::vector<double> prompt_ms;           // [i]: a batch of 250 i tokens
  std::vector<double> decode_ms;           // [i]: by sequences, see the grid in helix_tables.cpp
  std::vector<int64_t> kv_blocks;          // [layers - 1]
  std::vector<int32_t> decode_max_tokens;  // [layers - 1]
};

struct HelixModelTables {
  ModelShape model;
  std::vector<HelixDeviceTables> devices;
};

const std::vector<HelixModelTables>& helix_tables();

}  // namespace towline::spec
