// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RowEvaluator: what follows the last layer. From rows of the residual stream to sampled tokens,
// log-probabilities of given tokens (prompt log-probabilities) and pooled embeddings.
//
// The one process (serve/local_engine.hpp) and the last stage of a pipeline
// (worker/stage_executor.hpp) use the same object, so that a token cannot depend on which of them
// computed it. An outcome is a function of the row's logits, the sampling parameters and the tokens
// up to the row; nothing is kept between calls that could not be computed again from these.
//
// Threading: one caller at a time; rows are sampled on the team's threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampler.hpp"
#include "engine/stage.hpp"

namespace towline::engine {

// What an outcome depends on besides the logits. A view: everything belongs to the caller.
struct RowSequence {
  const SamplingParams* sampling = nullptr;
  int32_t choice = 0;                      // index among the n choices of one API request
  std::span<const int32_t> tokens;         // prompt, then output; see EvalRow for how many
  int32_t prompt = 0;                      // how many of them are the prompt
  std::span<const int32_t> stop_tokens;
  // Of this sequence alone, empty at first; kept by the caller only to save counting again. Not
  // touched unless the penalties ask for it; may then not be null.
  TokenHistory* history = nullptr;
};

// A row whose logits are wanted.
struct EvalRow {
  int32_t row = 0;       // of `hidden`
  int32_t position = 0;  // of the row in its sequence
  // true: draws the token at position + 1; tokens holds [0, position] at least.
  // false: scores the token at position + 1, which tokens holds too.
  bool samples = true;
  RowSequence sequence;
};

struct EvaluatedToken {
  SampledToken sampled;
  bool is_stop = false;  // one of the stop tokens; never for a scored token
};
// The error is the row's alone (a row of which no logit is a number).
using RowOutcome = Result<EvaluatedToken>;

class RowEvaluator {
 public:
  // All of them must outlive the evaluator; `stage` must be a last one.
  RowEvaluator(Stage& stage, const KernelTable& kernels, ComputeTeam& team);

  // One outcome a row, in order. Two rows of one call may not sample for the same sequence. In a
  // tensor-parallel group all ranks call it alike and get the same outcomes: each sees all logits
  // and draws for itself. kUnavailable if the group was aborted.
  Result<std::vector<RowOutcome>> evaluate(std::span<const float> hidden,
                                           std::span<const EvalRow> rows);

 private:
  RowOutcome outcome(const EvalRow& row, std::span<const float> logits, int thread);

  Stage* stage_;
  const KernelTable* kernels_;
  ComputeTeam* team_;
  std::vector<SamplerScratch> scratch_;  // by thread
};

// The mean of a sequence's final states over its positions, as a unit vector. Positions are summed
// in ascending order, in double precision; one that comes again (after a preemption) is the same
// bits and counts once.
class EmbeddingPool {
 public:
  // Rows of consecutive positions from `position` on; the first is row `row` of `hidden`.
  void add(const Stage& stage, std::span<const float> hidden, int32_t row, int32_t position,
           int32_t count);
  std::vector<float> unit_vector() const;
  int32_t positions() const { return positions_; }  // summed so far

 private:
  std::vector<double> sum_;   // [hidden]
  std::vector<float> state_;  // [hidden], of one row
  int32_t positions_ = 0;
};

}  // namespace towline::engine
