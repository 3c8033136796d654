// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeBatch: which of the microbatches that wait at a node run together.
//
// A node that is free takes the microbatches that are ready, in the order in which they came, for as
// long as the rows fit; the weights of its layers are then read once for all of them. It never
// waits for more, and never passes one over: microbatches of one lane stay in order. Pure; a value.
#pragma once

#include <cstdint>

namespace towline::policy {

struct NodeLimits {
  int32_t prompt_tokens = 2048;  // of all microbatches taken
  int32_t decodes = 512;
};

class NodeBatch {
 public:
  explicit NodeBatch(NodeLimits limits) : limits_(limits) {}

  // Takes the next microbatch if it fits; the first one always does.
  bool take(int32_t prompt_tokens, int32_t decodes) {
    const bool fits = prompt_tokens_ + prompt_tokens <= limits_.prompt_tokens &&
                      decodes_ + decodes <= limits_.decodes;
    if (!fits && taken_ > 0) return false;
    prompt_tokens_ += prompt_tokens;
    decodes_ += decodes;
    ++taken_;
    return true;
  }
  int32_t taken() const { return taken_; }
  int32_t prompt_tokens() const { return prompt_tokens_; }
  int32_t decodes() const { return decodes_; }

 private:
  NodeLimits limits_;
  int32_t taken_ = 0, prompt_tokens_ = 0, decodes_ = 0;
};

}  // namespace towline::policy
