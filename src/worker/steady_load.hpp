// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SteadyLoad: a coordinator of one node for tests and measurements: ranks of null executors, and
// `batch` sequences that generate for ever.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "protocol/messages.hpp"
#include "worker/executor_factory.hpp"
#include "worker/null_executor.hpp"
#include "worker/rank_group.hpp"

namespace towline::worker {

inline RankGroupOptions null_group(int32_t ranks, bool processes,
                                   const NullExecutorOptions& null = {}, int32_t stages = 1) {
  RankGroupOptions options;
  options.team.ranks = ranks;
  options.team.stages = stages;
  options.team.processes = processes;
  options.team.factory = make_executor;
  options.executor = null.to_json();
  options.limits.vocab = null.vocab;
  options.limits.step_rows = null.max_rows;
  options.start_within = seconds(300);
  return options;
}

// Sequences [0, batch) of `context` tokens in lane 0, each one token further a step.
class SteadyLoad {
 public:
  SteadyLoad(int32_t batch, int32_t context, policy::DeltaForm form, bool fed,
             policy::LaneHop hop = {LaneId(0), {0, 4}, NodeId(-1), NodeId(-1), NodeId(0)},
             int32_t vocab = 32000)
      : batch_(batch), fed_(fed), hop_(hop), vocab_(vocab), sender_(limits(vocab), Epoch(1), form),
        computed_(static_cast<size_t>(batch)) {
    for (int32_t i = 0; i < batch; ++i) computed_[static_cast<size_t>(i)] = context - 1 - i % 16;
  }
  static policy::MirrorLimits limits(int32_t vocab) {
    policy::MirrorLimits l;
    l.vocab = vocab;
    return l;
  }

  // The first message: everything is new, nothing runs.
  policy::NodeStep admit() {
    policy::NodeStep step;
    step.opened.push_back(hop_);
    for (int32_t i = 0; i < batch_; ++i) {
      policy::FreshSlot f;
      f.slot = {static_cast<uint32_t>(i), 1};
      f.lane = LaneId(0);
      f.spec.seq = SeqId(i);
      f.computed = computed_[static_cast<size_t>(i)];
      f.spec.prompt_length = f.computed;
      for (int32_t p = 0; p <= f.computed; ++p) {
        f.tokens.push_back(NullExecutor::token_of(f.spec.seq, p, vocab_));
      }
      f.spec.prompt_length = f.computed + 1;
      for (int32_t b = 0; b * 16 < f.computed; ++b) f.blocks.push_back(i * 512 + b);
      step.fresh.push_back(std::move(f));
    }
    return *sender_.next(std::move(step));
  }
  // One more token of every sequence.
  policy::NodeStep next() {
    policy::NodeStep step;
    step.lane = LaneId(0);
    step.step = next_step_++;
    step.rows.reserve(static_cast<size_t>(batch_));
    for (int32_t i = 0; i < batch_; ++i) {
      int32_t& at = computed_[static_cast<size_t>(i)];
      if (at % 16 == 0) step.new_blocks.push_back({static_cast<uint32_t>(i), i * 512 + at / 16});
      policy::StepRow row{static_cast<uint32_t>(i), at, 1, policy::StepRow::kSamples, 0};
      if (next_step_ > 1) {  // the first step's token is of the prompt
        row.flags |= fed_ ? policy::StepRow::kFed : policy::StepRow::kToken;
        if (!fed_) row.token = NullExecutor::token_of(SeqId(i), at, vocab_);
      }
      step.rows.push_back(row);
      ++at;
    }
    Result<policy::NodeStep> message = sender_.next(std::move(step));
    CHECK(message.has_value());
    return std::move(*message);
  }
  // The results of a step came: for fed tokens, the coordinator's copy learns them.
  void learn(const std::vector<policy::RowResult>& rows) {
    if (!fed_) return;
    sampled_.clear();
    for (const policy::RowResult& r : rows) sampled_.push_back({r.slot, r.position, r.token.token});
    CHECK(sender_.learn(sampled_).has_value());
  }
  void finish(const StepOutput& output) {
    learn(output.rows);
    sender_.completed(output.step);
  }
  policy::StepSender& sender() { return sender_; }
  int32_t batch() const { return batch_; }

 private:
  int32_t batch_;
  bool fed_;
  policy::LaneHop hop_;
  int32_t vocab_;
  policy::StepSender sender_;
  std::vector<int32_t> computed_;
  std::vector<policy::FedToken> sampled_;
  int64_t next_step_ = 0;
};

// Sends one message, with its run if it has one.
inline Result<uint64_t> submit(RankGroup& group, const policy::NodeStep& message,
                               std::span<const float> hidden = {}, uint32_t width = 0) {
  const std::vector<uint8_t> bytes = protocol::encode(message);
  RankCommand command;
  command.messages = {bytes};
  if (message.runs()) {
    command.runs = {{message.lane, message.step}};
    command.hidden = {hidden};
    command.hidden_width = width;
  }
  return group.submit(command);
}

}  // namespace towline::worker
