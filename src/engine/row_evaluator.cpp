// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/row_evaluator.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"

namespace towline::engine {

RowEvaluator::RowEvaluator(Stage& stage, const KernelTable& kernels, ComputeTeam& team)
    : stage_(&stage), kernels_(&kernels), team_(&team) {
  scratch_.resize(static_cast<size_t>(team.threads()));
}

Result<std::vector<RowOutcome>> RowEvaluator::evaluate(std::span<const float> hidden,
                                                       std::span<const EvalRow> rows) {
  std::vector<RowOutcome> outcomes(rows.size(), RowOutcome(EvaluatedToken{}));
  const auto vocab = static_cast<size_t>(stage_->desc().vocab);
  const auto most = static_cast<size_t>(stage_->max_logit_rows());
  std::vector<int32_t> indices;
  for (size_t from = 0; from < rows.size(); from += most) {
    const size_t count = std::min(rows.size() - from, most);
    indices.clear();
    for (const EvalRow& row : rows.subspan(from, count)) indices.push_back(row.row);
    ASSIGN_OR_RETURN(const std::span<const float> logits, stage_->logits(hidden, indices));
    team_->parallel_for(static_cast<int64_t>(count), [&](int64_t i, int thread) {
      const auto at = static_cast<size_t>(i);
      outcomes[from + at] = outcome(rows[from + at], logits.subspan(at * vocab, vocab), thread);
    });
  }
  return outcomes;
}

RowOutcome RowEvaluator::outcome(const EvalRow& row, std::span<const float> logits, int thread) {
  const RowSequence& s = row.sequence;
  SamplerScratch& scratch = scratch_[static_cast<size_t>(thread)];
  const auto next = static_cast<size_t>(row.position) + 1;
  EvaluatedToken result;
  if (!row.samples) {
    CHECK(next < s.tokens.size(), next, s.tokens.size());
    const int32_t alternatives = std::max(s.sampling->logprobs, 0);
    result.sampled = score_token(*kernels_, logits, s.tokens[next], alternatives, scratch);
    return result;
  }
  static const TokenHistory kNone;
  const TokenHistory* history = &kNone;
  if (uses_history(*s.sampling)) {
    CHECK(s.history != nullptr && next <= s.tokens.size(), next, s.tokens.size());
    s.history->follow(s.tokens.first(next), s.prompt);
    history = s.history;
  }
  const int32_t position = row.position + 1 - s.prompt;
  ASSIGN_OR_RETURN(result.sampled, sample(*kernels_, *s.sampling, s.choice, position, *history,
                                          logits, scratch));
  result.is_stop = std::ranges::find(s.stop_tokens, result.sampled.token) != s.stop_tokens.end();
  return result;
}

void EmbeddingPool::add(const Stage& stage, std::span<const float> hidden, int32_t row,
                        int32_t position, int32_t count) {
  const auto width = static_cast<size_t>(stage.desc().hidden);
  sum_.resize(width);
  state_.resize(width);
  for (int32_t p = position; p < position + count; ++p) {
    if (p != positions_) continue;
    stage.final_state(hidden, row + p - position, state_);
    for (size_t i = 0; i < width; ++i) sum_[i] += static_cast<double>(state_[i]);
    ++positions_;
  }
}

std::vector<float> EmbeddingPool::unit_vector() const {
  double square = 0;
  for (const double v : sum_) square += v * v;
  const double norm = square > 0 ? std::sqrt(square) : 1.0;
  std::vector<float> unit;
  unit.reserve(sum_.size());
  for (const double v : sum_) unit.push_back(static_cast<float>(v / norm));
  return unit;
}

}  // namespace towline::engine
