// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LayerBench: how long the steps of one shape take on this machine: `towline profile`'s stopwatch.
//
// Runs of all cells take turns in random order until each has had its time, the longest ones spread
// over the whole of it too: speed drifts (memory bandwidth of a virtual machine may halve within
// the hour), and so it drifts for all cells alike. What the parts of that time differ by says how
// far it did. Before each run there is a pause, as a worker has between two steps: a processor that
// slept is not at once what it was in a loop without pauses. The mean counts, slow runs and all:
// what is disturbed while it is measured is disturbed as often while it serves, and times add up.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/row_evaluator.hpp"
#include "engine/stage.hpp"

namespace towline::cli {

struct LayerCell {
  enum class Kind : uint8_t {
    kPrefill,  // `rows` tokens of one prompt, after `context` others
    kDecode,   // one token of each of `rows` sequences with `context` tokens in all
    kMixed,    // `rows` tokens of a prompt from its beginning, and `decodes` sequences as above
    kHead,     // tokens drawn from `rows` rows, after the last layer
  };
  Kind kind = Kind::kDecode;
  int32_t rows = 0;
  int32_t context = 0;
  int32_t decodes = 0;
  double seconds = 0;  // measured: of a layer; of all of it for kHead. The mean,
  double median = 0;   // and the median of the runs
};

class LayerBench {
 public:
  // All outlive the bench. Fills the stage's KV memory. `evaluator`:
  // null if no tokens can be drawn.
  LayerBench(engine::Stage& stage, engine::RowEvaluator* evaluator);

  // Fills in the cells' seconds; about `seconds` are spent on each, more where a run takes long.
  // Rows of a prompt are evaluated `step_rows` at a time.
  Result<void> measure(std::span<LayerCell> cells, double seconds, int32_t step_rows,
                       const std::function<void(int64_t, int64_t)>& progress);
  // Of the last measure(): the slowest fifth's time over the fastest one's, by the cells' means.
  double drift() const { return drift_; }

 private:
  Result<double> once(const LayerCell& cell, int32_t step_rows);
  Result<void> run(const LayerCell& cell, int32_t step_rows);
  Result<void> draw(int32_t rows);
  std::span<const int32_t> blocks_of(int32_t sequence, int32_t tokens);

  engine::Stage& stage_;
  engine::RowEvaluator* evaluator_;
  std::vector<int32_t> blocks_, tokens_;
  std::vector<engine::StepSpan> spans_;
  std::vector<float> hidden_;
  double drift_ = 1;
};

}  // namespace towline::cli
