// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "protocol/flat.hpp"
#include "protocol/messages.hpp"

namespace towline::protocol {
namespace {

using policy::FreshSlot;
using policy::LaneHop;
using policy::NodeStep;
using policy::ResumedSlot;
using policy::SlotGen;
using policy::StepRow;

template <class T>
using Column = flatbuffers::Offset<flatbuffers::Vector<T>>;

// --- encode -------------------------------------------------------------------------------------

// One column made from the items of a vector, without a vector in between.
template <class T, class Items, class Get>
Column<T> column_of(flatbuffers::FlatBufferBuilder& b, const Items& items, size_t count,
                    Get&& get) {
  if (count == 0) return 0;
  T* out = nullptr;
  const auto offset = b.CreateUninitializedVector(count, &out);
  for (const auto& item : items) {
    if (const std::optional<T> value = get(item)) *out++ = *value;
  }
  return offset;
}

Column<const wire::SlotGen*> slot_gens(flatbuffers::FlatBufferBuilder& b,
                                       const std::vector<SlotGen>& slots) {
  if (slots.empty()) return 0;
  std::vector<wire::SlotGen> out;
  out.reserve(slots.size());
  for (const SlotGen s : slots) out.emplace_back(s.slot, s.gen);
  return b.CreateVectorOfStructs(out);
}

Column<const wire::Hop*> hops(flatbuffers::FlatBufferBuilder& b,
                              const std::vector<LaneHop>& lanes) {
  if (lanes.empty()) return 0;
  std::vector<wire::Hop> out;
  for (const LaneHop& hop : lanes) {
    out.emplace_back(hop.lane.value, hop.layers.begin, hop.layers.end, hop.previous.value,
                     hop.next.value, hop.first.value);
  }
  return b.CreateVectorOfStructs(out);
}

flatbuffers::Offset<wire::Sampling> sampling(flatbuffers::FlatBufferBuilder& b,
                                             const spec::SamplingParams& p) {
  if (p == spec::SamplingParams{}) return 0;
  std::vector<wire::Bias> bias;
  for (const auto& [token, value] : p.logit_bias) bias.emplace_back(token, value);
  const Column<const wire::Bias*> biases = bias.empty() ? 0 : b.CreateVectorOfStructs(bias);
  return wire::CreateSampling(b, p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty,
                              p.presence_penalty, p.frequency_penalty, p.seed, p.logprobs, biases);
}

flatbuffers::Offset<wire::Fresh> fresh_slot(flatbuffers::FlatBufferBuilder& b, const FreshSlot& f) {
  const auto params = sampling(b, f.spec.sampling);
  const auto tokens = column(b, f.tokens);
  const auto blocks = column(b, f.blocks);
  return wire::CreateFresh(b, f.slot.slot, f.slot.gen, f.lane.value, f.spec.seq.value,
                           f.spec.choice, f.spec.prompt_length, f.spec.adapter,
                           f.spec.prompt_logprobs, f.spec.embed, params, f.computed, tokens,
                           blocks);
}

flatbuffers::Offset<wire::Resumed> resumed_slot(flatbuffers::FlatBufferBuilder& b,
                                                const ResumedSlot& r) {
  const auto tokens = column(b, r.tokens);
  const auto blocks = column(b, r.blocks);
  return wire::CreateResumed(b, r.slot.slot, r.slot.gen, r.lane.value, r.computed, r.tokens_from,
                             tokens, blocks);
}

template <class Table, class Items, class Make>
Column<flatbuffers::Offset<Table>> tables(flatbuffers::FlatBufferBuilder& b, const Items& items,
                                          Make&& make) {
  if (items.empty()) return 0;
  std::vector<flatbuffers::Offset<Table>> out;
  out.reserve(items.size());
  for (const auto& item : items) out.push_back(make(b, item));
  return b.CreateVector(out);
}

constexpr uint32_t kShapeBits = 8;  // of the flags
constexpr int32_t kMaxRowCount = (1 << 24) - 1;

// --- decode -------------------------------------------------------------------------------------

Result<void> copy_slots(const flatbuffers::Vector<const wire::SlotGen*>* from,
                        std::vector<SlotGen>& to, Budget& budget) {
  to.clear();
  if (!budget.take(size_of(from) * sizeof(SlotGen))) return Budget::exceeded();
  for (size_t i = 0; i < size_of(from); ++i) {
    const wire::SlotGen* s = from->Get(static_cast<flatbuffers::uoffset_t>(i));
    if (s->gen() > UINT16_MAX) {
      return errorf(Code::kDataCorrupt, "slot {} has the impossible generation {}", s->slot(),
                    s->gen());
    }
    to.push_back({s->slot(), static_cast<uint16_t>(s->gen())});
  }
  return {};
}

Result<void> read_sampling(const wire::Sampling* from, spec::SamplingParams& p, Budget& budget) {
  p = {};
  if (from == nullptr) return {};
  p.temperature = from->temperature();
  p.top_k = from->top_k();
  p.top_p = from->top_p();
  p.min_p = from->min_p();
  p.repetition_penalty = from->repetition_penalty();
  p.presence_penalty = from->presence_penalty();
  p.frequency_penalty = from->frequency_penalty();
  p.seed = from->seed();
  p.logprobs = from->logprobs();
  const auto* bias = from->logit_bias();
  if (!budget.take(size_of(bias) * sizeof(wire::Bias))) return Budget::exceeded();
  for (size_t i = 0; i < size_of(bias); ++i) {
    const wire::Bias* item = bias->Get(static_cast<flatbuffers::uoffset_t>(i));
    p.logit_bias.emplace_back(item->token(), item->bias());
  }
  return {};
}

Result<void> read_fresh(const wire::Fresh* from, FreshSlot& f, Budget& budget) {
  if (from == nullptr || !budget.take(sizeof(FreshSlot) / 4)) return Budget::exceeded();
  if (from->gen() > UINT16_MAX) {
    return errorf(Code::kDataCorrupt, "slot {} has the impossible generation {}", from->slot(),
                  from->gen());
  }
  f.slot = {from->slot(), static_cast<uint16_t>(from->gen())};
  f.lane = LaneId(from->lane());
  f.spec.seq = SeqId(from->seq());
  f.spec.choice = from->choice();
  f.spec.prompt_length = from->prompt_length();
  f.spec.adapter = from->adapter();
  f.spec.prompt_logprobs = from->prompt_logprobs();
  f.spec.embed = from->embed();
  TRY(read_sampling(from->sampling(), f.spec.sampling, budget));
  f.computed = from->computed();
  TRY(copy(from->tokens(), f.tokens, budget));
  return copy(from->blocks(), f.blocks, budget);
}

Result<void> read_resumed(const wire::Resumed* from, ResumedSlot& r, Budget& budget) {
  if (from == nullptr || !budget.take(sizeof(ResumedSlot) / 4)) return Budget::exceeded();
  if (from->gen() > UINT16_MAX) {
    return errorf(Code::kDataCorrupt, "slot {} has the impossible generation {}", from->slot(),
                  from->gen());
  }
  r.slot = {from->slot(), static_cast<uint16_t>(from->gen())};
  r.lane = LaneId(from->lane());
  r.computed = from->computed();
  r.tokens_from = from->tokens_from();
  TRY(copy(from->tokens(), r.tokens, budget));
  return copy(from->blocks(), r.blocks, budget);
}

Result<void> read_rows(const wire::NodeStep& from, NodeStep& out, Budget& budget) {
  const size_t rows = size_of(from.row_slot());
  const size_t tokens = size_of(from.row_token());
  const size_t blocks = size_of(from.new_block());
  if (size_of(from.row_from()) != rows || size_of(from.row_shape()) != rows ||
      size_of(from.new_block_row()) != blocks) {
    return Error(Code::kDataCorrupt, "a step's columns differ in length");
  }
  if (!budget.take(rows * sizeof(StepRow)) || !budget.take(blocks * sizeof(policy::NewBlock))) {
    return Budget::exceeded();
  }
  out.rows.resize(rows);
  size_t next_token = 0;
  const uint32_t* slot = rows > 0 ? from.row_slot()->data() : nullptr;
  const int32_t* first = rows > 0 ? from.row_from()->data() : nullptr;
  const uint32_t* shape = rows > 0 ? from.row_shape()->data() : nullptr;
  const int32_t* token = tokens > 0 ? from.row_token()->data() : nullptr;
  for (size_t i = 0; i < rows; ++i) {
    StepRow& row = out.rows[i];
    row.slot = slot[i];
    row.from = first[i];
    row.count = static_cast<int32_t>(shape[i] >> kShapeBits);
    row.flags = shape[i] & ((1u << kShapeBits) - 1);
    row.token = 0;
    if ((row.flags & StepRow::kToken) != 0) {
      if (next_token == tokens) return Error(Code::kDataCorrupt, "a step's tokens are missing");
      row.token = token[next_token++];
    }
  }
  if (next_token != tokens) return Error(Code::kDataCorrupt, "a step has tokens of no row");
  out.new_blocks.resize(blocks);
  for (size_t i = 0; i < blocks; ++i) {
    const auto at = static_cast<flatbuffers::uoffset_t>(i);
    out.new_blocks[i] = {from.new_block_row()->Get(at), from.new_block()->Get(at)};
  }
  return {};
}

template <class Out, class In, class Read>
Result<void> read_tables(const flatbuffers::Vector<flatbuffers::Offset<In>>* from,
                         std::vector<Out>& to, Budget& budget, Read&& read) {
  if (!budget.take(size_of(from) * sizeof(Out) / 4)) return Budget::exceeded();
  to.resize(size_of(from));
  for (size_t i = 0; i < to.size(); ++i) {
    TRY(read(from->Get(static_cast<flatbuffers::uoffset_t>(i)), to[i], budget));
  }
  return {};
}

}  // namespace

std::vector<uint8_t> encode(const NodeStep& m) {
  flatbuffers::FlatBufferBuilder b(512 + m.rows.size() * 16 + m.fresh.size() * 1024);
  std::vector<int32_t> closed_lanes;
  for (const LaneId lane : m.closed) closed_lanes.push_back(lane.value);
  const auto closed = column(b, closed_lanes);
  const auto finished = slot_gens(b, m.finished);
  const auto preempted = slot_gens(b, m.preempted);
  const auto opened = hops(b, m.opened);
  const auto fresh = tables<wire::Fresh>(b, m.fresh, fresh_slot);
  const auto resumed = tables<wire::Resumed>(b, m.resumed, resumed_slot);
  const auto implied = column(b, m.implied);
  const size_t rows = m.rows.size();
  const auto with_token = static_cast<size_t>(std::ranges::count_if(
      m.rows, [](const StepRow& r) { return (r.flags & StepRow::kToken) != 0; }));
  const auto slots = column_of<uint32_t>(b, m.rows, rows,
                                         [](const StepRow& r) { return std::optional(r.slot); });
  const auto froms = column_of<int32_t>(b, m.rows, rows,
                                        [](const StepRow& r) { return std::optional(r.from); });
  const auto shapes = column_of<uint32_t>(b, m.rows, rows, [](const StepRow& r) {
    const int32_t count = std::clamp(r.count, 0, kMaxRowCount);
    return std::optional(static_cast<uint32_t>(count) << kShapeBits |
                         (r.flags & ((1u << kShapeBits) - 1)));
  });
  const auto tokens = column_of<int32_t>(b, m.rows, with_token, [](const StepRow& r) {
    return (r.flags & StepRow::kToken) != 0 ? std::optional(r.token) : std::nullopt;
  });
  const size_t blocks = m.new_blocks.size();
  const auto block_rows =
      column_of<uint32_t>(b, m.new_blocks, blocks,
                          [](const policy::NewBlock& n) { return std::optional(n.row); });
  const auto block_ids =
      column_of<int32_t>(b, m.new_blocks, blocks,
                         [](const policy::NewBlock& n) { return std::optional(n.block); });
  return finish(b, wire::CreateNodeStep(
                       b, 0, m.epoch.value, m.number, m.base_hash, m.full, closed, finished,
                       preempted, opened, fresh, resumed, m.lane.value, m.step, m.implied_step,
                       implied, slots, froms, shapes, tokens, block_rows, block_ids));
}

Result<void> decode(std::span<const uint8_t> bytes, NodeStep& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::NodeStep>(bytes, "step"));
  const wire::NodeStep& from = *opened.root;
  Budget budget(bytes.size());
  out.epoch = Epoch(from.epoch());
  out.number = from.number();
  out.base_hash = from.base_hash();
  out.full = from.full();
  out.closed.clear();
  if (!budget.take(size_of(from.closed()) * sizeof(LaneId))) return Budget::exceeded();
  for (flatbuffers::uoffset_t i = 0; i < size_of(from.closed()); ++i) {
    out.closed.emplace_back(from.closed()->Get(i));
  }
  TRY(copy_slots(from.finished(), out.finished, budget));
  TRY(copy_slots(from.preempted(), out.preempted, budget));
  out.opened.clear();
  if (!budget.take(size_of(from.opened()) * sizeof(LaneHop))) return Budget::exceeded();
  for (flatbuffers::uoffset_t i = 0; i < size_of(from.opened()); ++i) {
    const wire::Hop* hop = from.opened()->Get(i);
    out.opened.push_back({LaneId(hop->lane()), {hop->layer_begin(), hop->layer_end()},
                          NodeId(hop->previous()), NodeId(hop->next()), NodeId(hop->first())});
  }
  TRY(read_tables(from.fresh(), out.fresh, budget, read_fresh));
  TRY(read_tables(from.resumed(), out.resumed, budget, read_resumed));
  out.lane = LaneId(from.lane());
  out.step = from.step();
  out.implied_step = from.implied_step();
  TRY(copy(from.implied(), out.implied, budget));
  return read_rows(from, out, budget);
}

}  // namespace towline::protocol
