// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/spmd_load.hpp"

#include "worker/steady_load.hpp"

namespace towline::cli {
namespace {

using policy::NodeStep;
using policy::Step;
using policy::StepEntry;
using policy::StepRow;

constexpr int32_t kVocab = 32000;
constexpr int32_t kGenerate = 1 << 14;  // tokens a sequence may have in all: more than are measured

policy::BatcherLimits batcher_limits(const SpmdCell& cell, bool ahead) {
  policy::BatcherLimits limits;
  limits.step_tokens = cell.batch;
  limits.sequences = cell.batch;
  limits.prefix_cache = false;
  limits.ahead = ahead ? 1 : 0;
  limits.placeholders = ahead;
  return limits;
}

LayerRange layers_of(int node, int nodes) { return {node * 4 / nodes, (node + 1) * 4 / nodes}; }

}  // namespace

ScheduledLoad::ScheduledLoad(const SpmdCell& cell, bool ahead, int nodes)
    : cell_(cell), nodes_(nodes), ahead_(ahead), batcher_(batcher_limits(cell, ahead)) {
  const policy::DeltaForm form =
      ahead ? policy::DeltaForm::kImplied : policy::DeltaForm::kExplicit;
  std::vector<policy::LanePool> pools;
  for (int n = 0; n < nodes; ++n) {
    senders_.emplace_back(worker::SteadyLoad::limits(kVocab), Epoch(1), form);
    pools.push_back({batcher_.add_pool(cell.batch * (cell.context + kGenerate) / 16), 0});
  }
  const int lanes = cell.stages > 1 && cell.batch > 1 ? 2 : 1;
  for (int i = 0; i < lanes; ++i) lanes_.push_back({batcher_.open_lane(pools), {}, {}, 0});
  for (int i = 0; i < cell.batch; ++i) {
    policy::SequenceSpec spec;
    spec.id = SeqId(i);
    spec.lane = lanes_[static_cast<size_t>(i * lanes / cell.batch)].id;
    // Of unequal lengths, so that as many need a new block in every step.
    for (int32_t p = 0; p < std::max(1, cell.context - i % 16); ++p) {
      spec.prompt.push_back(worker::NullExecutor::token_of(spec.id, p, kVocab));
    }
    spec.present = static_cast<int32_t>(spec.prompt.size()) - 1;
    spec.max_tokens = kGenerate;
    const Result<void> added = batcher_.add(std::move(spec));
    CHECK(added.has_value(), added.error().to_string());
  }
  for (Lane& lane : lanes_) lane.first = batcher_.next_step(lane.id);
}

std::vector<int32_t> ScheduledLoad::blocks_of(const StepEntry& entry, size_t node) const {
  const size_t each = entry.blocks.size() / senders_.size();
  std::vector<int32_t> blocks;
  for (size_t k = node * each; k < (node + 1) * each; ++k) blocks.push_back(entry.blocks[k].value);
  return blocks;
}

NodeStep ScheduledLoad::admit(int node) {
  NodeStep message;
  for (const Lane& lane : lanes_) {
    const bool last = node + 1 == nodes_;
    message.opened.push_back({lane.id, layers_of(node, nodes_), NodeId(node - 1),
                              NodeId(last ? -1 : node + 1), NodeId(0)});
    for (const StepEntry& entry : lane.first->entries) {
      policy::FreshSlot fresh;
      fresh.slot = {static_cast<uint32_t>(entry.seq.value), 1};
      fresh.lane = lane.id;
      fresh.spec.seq = entry.seq;
      fresh.spec.prompt_length = entry.to;
      fresh.computed = entry.from;
      const std::span<const int32_t> tokens = batcher_.tokens(entry.seq);
      fresh.tokens.assign(tokens.begin(), tokens.end());
      fresh.blocks = blocks_of(entry, static_cast<size_t>(node));
      message.fresh.push_back(std::move(fresh));
    }
  }
  Result<NodeStep> made = senders_[static_cast<size_t>(node)].next(std::move(message));
  CHECK(made.has_value(), made.error().to_string());
  return std::move(*made);
}

std::vector<NodeStep> ScheduledLoad::next_of(int of) {
  Lane& lane = lanes_[static_cast<size_t>(of)];
  const bool first = lane.first.has_value();
  lane.flying.push_back(first ? *std::move(lane.first) : batcher_.next_step(lane.id));
  lane.first.reset();
  const Step& step = lane.flying.back();
  NodeStep draft;
  draft.lane = lane.id;
  draft.step = lane.steps++;
  draft.rows.reserve(step.entries.size());
  for (const StepEntry& entry : step.entries) {
    StepRow row{static_cast<uint32_t>(entry.seq.value), entry.from, entry.to - entry.from,
                StepRow::kSamples, 0};
    if (!first) row.flags |= ahead_ ? StepRow::kFed : StepRow::kToken;
    if (!first && !ahead_) row.token = entry.tokens.back();
    draft.rows.push_back(row);
  }
  std::vector<NodeStep> messages;
  for (size_t n = 0; n < senders_.size(); ++n) {
    NodeStep mine = draft;
    for (size_t i = 0; i < step.entries.size() && !first; ++i) {
      for (const int32_t block : blocks_of(step.entries[i], n)) {
        mine.new_blocks.push_back({static_cast<uint32_t>(i), block});
      }
    }
    Result<NodeStep> made = senders_[n].next(std::move(mine));
    CHECK(made.has_value(), made.error().to_string());
    messages.push_back(std::move(*made));
  }
  return messages;
}

void ScheduledLoad::finish(const worker::StepOutput& output) {
  const auto lane = std::ranges::find(lanes_, output.step.lane, &Lane::id);
  CHECK(lane != lanes_.end() && !lane->flying.empty());
  const Step step = std::move(lane->flying.front());
  lane->flying.pop_front();
  CHECK(output.rows.size() == step.entries.size(), output.rows.size());
  sampled_.clear();
  fed_.clear();
  for (size_t i = 0; i < step.entries.size(); ++i) {
    const worker::RowResult& row = output.rows[i];
    sampled_.push_back({step.entries[i].seq, row.token.token, false, false});
    if (ahead_) fed_.push_back({row.slot, row.position, row.token.token});
  }
  batcher_.complete(step, sampled_);
  for (policy::StepSender& sender : senders_) {
    const Result<void> learnt = sender.learn(fed_);
    CHECK(learnt.has_value(), learnt.error().to_string());
    sender.completed(output.step);
  }
}

}  // namespace towline::cli
