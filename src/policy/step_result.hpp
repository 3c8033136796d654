// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What comes back of a lane step: plain data made by a node's output rank (worker/executor.hpp),
// carried by protocol/, consumed by the coordinator.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "policy/step_delta.hpp"

namespace towline::policy {

struct ScoredToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // (token, logprob), best first
  friend bool operator==(const ScoredToken&, const ScoredToken&) = default;
};

// What one row of a sampling hop produced. Nothing to report, no result.
struct RowResult {
  LaneStep step;
  SlotGen slot;
  int32_t position = 0;             // of the sampled token in its sequence
  bool sampled = false;
  ScoredToken token;                // if sampled
  std::vector<ScoredToken> prompt;  // scores of prompt tokens, with prompt_logprobs...
  int32_t prompt_from = 0;          // ... the first one's position
  // If embed, with the row that ends the prompt: the mean final state as a unit vector, the very
  // bits of one process, and over how many positions (all of the prompt, or it cannot be used).
  std::vector<float> pooled;
  int32_t pooled_rows = 0;
  std::string error;                // this sequence failed, the others did not
  friend bool operator==(const RowResult&, const RowResult&) = default;
};

// A sampled token on its way to the nodes that keep tokens (StepMirror::feed).
struct FedToken {
  SlotGen slot;
  int32_t position = 0;
  int32_t token = 0;
  friend bool operator==(const FedToken&, const FedToken&) = default;
};

}  // namespace towline::policy
