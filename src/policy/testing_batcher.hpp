// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the batcher's tests share: requests, and answers to steps.
#pragma once

#include <numeric>
#include <vector>

#include "policy/batcher.hpp"

namespace towline::policy {

// Prompts of different ids have no token in common.
inline SequenceSpec spec(int64_t id, int32_t prompt, int32_t max_tokens, int32_t priority = 0) {
  SequenceSpec s;
  s.id = SeqId(id);
  s.prompt.resize(static_cast<size_t>(prompt));
  std::iota(s.prompt.begin(), s.prompt.end(), static_cast<int32_t>(id) * 1000);
  s.max_tokens = max_tokens;
  s.priority = priority;
  return s;
}

inline std::vector<Sampled> answers(const Step& step, int32_t token = 1) {
  std::vector<Sampled> sampled;
  for (const StepEntry& e : step.entries) {
    if (e.samples) sampled.push_back({e.seq, token, false, false});
  }
  return sampled;
}

}  // namespace towline::policy
