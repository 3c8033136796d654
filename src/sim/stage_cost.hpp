// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageCost: how long a batch takes on a node, and how large a batch its measurements cover.
//
// A layer takes  prompt[tokens] + decode[requests] + what the context costs, from the profile's
// tables; beyond a table's end the last value is scaled up in proportion and the batch is counted,
// never silently. A few physical constants fit the tables, which were measured layer by layer on an
// idle machine, to a whole engine (docs/validation.md tells which were fitted, on what):
// Drawing tokens after the model's last layer comes on top, where the profile knows it (head).
//   compute        all table times are multiplied by this
//   batch_seconds  of a node's host, once a batch
//   hop_seconds    of the sender's and receiver's software, once a message
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/ids.hpp"
#include "sim/helix_input.hpp"
#include "spec/profile.hpp"

namespace towline::sim {

struct Calibration {
  double compute = 1;
  double batch_seconds = 0;
  double hop_seconds = 0;
};

// The rows of a batch that enter at one layer.
struct CostRows {
  int32_t entry = 0;  // first layer
  int32_t prompt_tokens = 0, decodes = 0;
  int64_t decode_context = 0, prompt_context = 0;
  int32_t drawn = 0;      // rows that yield a token
};

class StageCost {
 public:
  StageCost(const HelixInput& input, Calibration calibration)
      : input_(&input), calibration_(calibration) {}

  // Seconds of one layer.
  double layer_seconds(int32_t machine, int32_t prompt_tokens, int32_t decodes,
                       int64_t prompt_context, int64_t decode_context) {
    const LayerTimes& t = input_->times[machine];
    const bool mixed = t.shared_weights && prompt_tokens > 0;
    double rows;
    if (mixed) {
      rows = at(t.prompt, prompt_tokens + decodes);
    } else {
      const bool doubled = !t.shared_weights && decodes == 1;
      rows = at(t.prompt, prompt_tokens) + (doubled ? 2 : 1) * at(t.decode, decodes);
    }
    const spec::ContextBeyond beyond =
        spec::context_beyond({prompt_tokens, decodes, prompt_context, decode_context}, mixed,
                             t.table_prompts_context, t.table_context);
    return std::max(rows + t.prompt_context_seconds * beyond.prompt +
                        t.decode_context_seconds * beyond.decode,
                    spec::kLeastShareOfTable * rows);
  }
  // Seconds of what follows the model's last layer.
  double head_seconds(int32_t machine, int32_t drawn) {
    const std::vector<double>& head = input_->times[machine].head;
    return head.empty() ? 0 : at(head, drawn);
  }
  // Seconds of a batch on a node that ends before layer `last_layer`;
  // `rows` may be sorted in place.
  double batch_seconds(int32_t machine, int32_t last_layer, std::vector<CostRows>& rows);
  // Was the last one beyond the tables? Batches that are run are to be counted.
  bool was_beyond() const { return beyond_; }
  void count(bool beyond) { out_of_profile_ += beyond; }

  const Calibration& calibration() const { return calibration_; }
  // Largest batches that the tables cover.
  int32_t most_prompt_tokens(int32_t machine) const {
    return static_cast<int32_t>(input_->times[machine].prompt.size()) - 1;
  }
  int32_t most_decodes(int32_t machine) const {
    return static_cast<int32_t>(input_->times[machine].decode.size()) - 1;
  }
  // Batches beyond them so far.
  int64_t out_of_profile() const { return out_of_profile_; }

 private:
  double at(const std::vector<double>& table, int32_t n) {
    const auto last = static_cast<int32_t>(table.size()) - 1;
    if (n <= last) return table[n];
    beyond_ = true;
    return table[last] * n / last;
  }

  const HelixInput* input_;
  Calibration calibration_;
  int64_t out_of_profile_ = 0;
  bool beyond_ = false;
};

}  // namespace towline::sim
