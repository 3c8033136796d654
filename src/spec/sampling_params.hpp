// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SamplingParams: how the next token is drawn from the logits. Pure data, the field's usual names;
// it travels from the API through policy's step messages to the sampler (engine/sampler.hpp).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace towline::spec {

struct SamplingParams {
  float temperature = 1.0f;        // 0: greedy (ties: the lowest id)
  int32_t top_k = 0;               // 0: off
  float top_p = 1.0f;              // 1: off
  float min_p = 0.0f;              // 0: off
  float repetition_penalty = 1.0f; // over prompt and output; 1: off
  float presence_penalty = 0.0f;   // over output
  float frequency_penalty = 0.0f;  // over output
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id -> added to its logit
  // The draw at output position i of choice c is a pure function of (seed, c, i) and the logits.
  uint64_t seed = 0;
  int32_t logprobs = -1;           // top alternatives to report with each token; -1: none
  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

}  // namespace towline::spec
