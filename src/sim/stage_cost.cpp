// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/stage_cost.hpp"

namespace towline::sim {
namespace {

// Host-side cost of gathering a batch's inputs, as in the Helix mode.
constexpr double kConcatBytesPerSecond = 4e9;
constexpr double kCopyBytesPerSecond = 5e9;

}  // namespace

double StageCost::batch_seconds(int32_t machine, int32_t last_layer, std::vector<CostRows>& rows) {
  if (rows.size() > 1) {
    std::sort(rows.begin(), rows.end(),
              [](const CostRows& a, const CostRows& b) { return a.entry < b.entry; });
  }
  double seconds = 0;
  CostRows sum;
  beyond_ = false;
  for (size_t i = 0; i < rows.size(); ++i) {  // between two entries all layers cost the same
    sum.prompt_tokens += rows[i].prompt_tokens;
    sum.decodes += rows[i].decodes;
    sum.prompt_context += rows[i].prompt_context;
    sum.drawn += rows[i].drawn;
    sum.decode_context += rows[i].decode_context;
    const int32_t to = i + 1 < rows.size() ? rows[i + 1].entry : last_layer;
    if (to == rows[i].entry) continue;
    seconds += (to - rows[i].entry) * layer_seconds(machine, sum.prompt_tokens, sum.decodes,
                                                    sum.prompt_context, sum.decode_context);
  }
  if (last_layer == input_->total_layers) seconds += head_seconds(machine, sum.drawn);
  const double bytes = (sum.prompt_tokens + sum.decodes) * input_->activation_bytes;
  return seconds * calibration_.compute + calibration_.batch_seconds +
         bytes / kConcatBytesPerSecond + bytes / kCopyBytesPerSecond;
}

}  // namespace towline::sim
