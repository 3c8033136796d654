// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// take_stage_batch: Helix's batching policy for one layer of one node (ASPLOS'25, section 6): first
// come first served over the waiting prompts and decodes, passing over what does not fit (but not
// stopping at it). Prompts and decodes mix; each kind has limits of its own.
//
// A pure function over the caller's queues; towline's own policy is policy/batcher.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace towline::policy {

struct StageLimits {
  int32_t prompts = 1;          // requests
  int32_t prompt_tokens = 2048;
  int32_t decodes = 64;         // requests
  int64_t decode_context = 64'000;  // sum of their tokens so far
};

// A request waiting before a layer.
struct StageWork {
  uint32_t request = 0;       // the caller's number
  int32_t prompt_tokens = 0;  // 0: a decode of one token
  int32_t context = 0;        // tokens before this iteration
};

struct StageBatch {
  std::vector<StageWork> work;
  int64_t prompt_tokens = 0;
  int32_t prompts = 0;
  int32_t decodes = 0;
  int64_t decode_context = 0;
};

// Moves what runs next from `queue` to `batch` (emptied first); both keep their order. Returns false
// if something in the queue could not run even alone; it then stays, and `batch` may be empty.
bool take_stage_batch(std::vector<StageWork>& queue, const StageLimits& limits, StageBatch& batch);

}  // namespace towline::policy
