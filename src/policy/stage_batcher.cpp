// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/stage_batcher.hpp"

#include <utility>

namespace towline::policy {
namespace {

// Adds `work` to the batch's sums if it fits.
bool admit(const StageWork& work, const StageLimits& limits, StageBatch& batch) {
  if (work.prompt_tokens > 0) {
    if (batch.prompts >= limits.prompts ||
        batch.prompt_tokens + work.prompt_tokens > limits.prompt_tokens) {
      return false;
    }
    ++batch.prompts;
    batch.prompt_tokens += work.prompt_tokens;
    return true;
  }
  if (batch.decodes >= limits.decodes ||
      batch.decode_context + work.context > limits.decode_context) {
    return false;
  }
  ++batch.decodes;
  batch.decode_context += work.context;
  return true;
}

bool possible(const StageWork& work, const StageLimits& limits) {
  if (work.prompt_tokens > 0) return work.prompt_tokens <= limits.prompt_tokens;
  return work.context <= limits.decode_context;
}

}  // namespace

bool take_stage_batch(std::vector<StageWork>& queue, const StageLimits& limits, StageBatch& batch) {
  batch.work.clear();
  batch.prompt_tokens = batch.decode_context = 0;
  batch.prompts = batch.decodes = 0;
  bool all_possible = true;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < queue.size(); ++i) {
    if (admit(queue[i], limits, batch)) {
      if (kept > 0) batch.work.push_back(queue[i]);
      continue;
    }
    all_possible = all_possible && possible(queue[i], limits);
    // The first that stays: everything before it goes into the batch.
    if (kept == 0) batch.work.assign(queue.begin(), queue.begin() + static_cast<std::ptrdiff_t>(i));
    queue[kept++] = queue[i];
  }
  if (kept == 0) {
    std::swap(batch.work, queue);  // the usual case: all of it
    queue.clear();
  } else {
    queue.resize(kept);
  }
  return all_possible;
}

}  // namespace towline::policy
