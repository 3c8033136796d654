// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "policy/block_ledger.hpp"
#include "policy/step_delta.hpp"

namespace towline::policy {
namespace {

constexpr uint32_t kKnownFlags =
    StepRow::kSamples | StepRow::kEveryRow | StepRow::kToken | StepRow::kFed;

// A chain of mixed words: order matters.
class Digest {
 public:
  Digest& add(uint64_t word) {
    state_ = mix64(state_ ^ word) + word;
    return *this;
  }
  Digest& bits(float value) { return add(std::bit_cast<uint32_t>(value)); }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0x746f776c696e65ull;
};

uint64_t pair_hash(int64_t index, int32_t value) {
  return mix64((static_cast<uint64_t>(index) << 32) ^ static_cast<uint32_t>(value));
}

uint64_t spec_hash(const SlotSpec& spec) {
  const spec::SamplingParams& p = spec.sampling;
  Digest d;
  d.add(static_cast<uint64_t>(spec.seq.value)).add(static_cast<uint32_t>(spec.choice));
  d.add(static_cast<uint32_t>(spec.prompt_length)).add(static_cast<uint32_t>(spec.adapter));
  d.add(uint64_t{spec.prompt_logprobs} | uint64_t{spec.embed} << 1);
  d.bits(p.temperature).add(static_cast<uint32_t>(p.top_k)).bits(p.top_p).bits(p.min_p);
  d.bits(p.repetition_penalty).bits(p.presence_penalty).bits(p.frequency_penalty);
  d.add(p.seed).add(static_cast<uint32_t>(p.logprobs)).add(p.logit_bias.size());
  for (const auto& [token, bias] : p.logit_bias) d.add(static_cast<uint32_t>(token)).bits(bias);
  return d.value();
}

uint64_t lane_hash(const LaneHop& hop) {
  Digest d;
  d.add(static_cast<uint32_t>(hop.lane.value)).add(static_cast<uint32_t>(hop.layers.begin));
  d.add(static_cast<uint32_t>(hop.layers.end)).add(static_cast<uint32_t>(hop.previous.value));
  d.add(static_cast<uint32_t>(hop.next.value)).add(static_cast<uint32_t>(hop.first.value));
  return d.value();
}

int64_t capacity(const SlotState& s) {
  return static_cast<int64_t>(s.blocks.size()) * kBlockTokens;
}

}  // namespace

Result<void> StepMirror::apply(const NodeStep& message) {
  if (message.epoch < epoch_ || (message.epoch == epoch_ && message.number <= number_)) {
    return errorf(Code::kAlreadyExists, "message {} of epoch {} is old: {} of epoch {} was applied",
                  message.number, message.epoch, number_, epoch_);
  }
  if (!message.full) {
    if (void_ || message.epoch != epoch_) {
      return errorf(Code::kUnavailable, "message {} of epoch {} needs a full form before it",
                    message.number, message.epoch);
    }
    if (message.number != number_ + 1) {
      return errorf(Code::kUnavailable, "message {} came after {}: {} missing", message.number,
                    number_, message.number - number_ - 1);
    }
    if (message.base_hash != 0 && message.base_hash != hash_) {
      return errorf(Code::kUnavailable, "message {} is for state {:016x}, this is {:016x}",
                    message.number, message.base_hash, hash_);
    }
  }
  if (message.full) clear();
  epoch_ = message.epoch;
  number_ = message.number;
  void_ = false;
  Result<void> applied = apply_sections(message);
  if (!applied) {
    clear();
    return std::move(applied).context(format("message {}", message.number));
  }
  return {};
}

void StepMirror::clear() {
  slots_.clear();
  lanes_.clear();
  pending_.clear();
  hash_ = fed_hash_ = 0;
  void_ = true;
}

Result<void> StepMirror::apply_sections(const NodeStep& message) {
  for (const LaneId lane : message.closed) TRY(close(lane));
  for (const SlotGen slot : message.finished) TRY(release(slot, true));
  for (const SlotGen slot : message.preempted) TRY(release(slot, false));
  for (const LaneHop& hop : message.opened) TRY(open(hop));
  for (const FreshSlot& fresh : message.fresh) TRY(add(fresh));
  for (const ResumedSlot& resumed : message.resumed) TRY(resume(resumed));
  if (message.runs()) return apply_rows(message);
  if (!message.rows.empty() || !message.new_blocks.empty() || !message.implied.empty()) {
    return errorf(Code::kDataCorrupt, "it has rows but no lane");
  }
  return {};
}

// --- lanes --------------------------------------------------------------------------------------

Result<void> StepMirror::open(const LaneHop& hop) {
  const LayerRange held = limits_.layers;
  if (hop.lane.value < 0 || lanes_.contains(hop.lane)) {
    return errorf(Code::kDataCorrupt, "lane {} cannot be opened (again)", hop.lane);
  }
  if (hop.layers.empty() || hop.layers.begin < held.begin || hop.layers.end > held.end) {
    return errorf(Code::kDataCorrupt, "lane {} asks for layers [{}, {}), held are [{}, {})",
                  hop.lane, hop.layers.begin, hop.layers.end, held.begin, held.end);
  }
  if (lanes_.size() >= static_cast<size_t>(limits_.slots)) {
    return errorf(Code::kDataCorrupt, "more than {} lanes are open", limits_.slots);
  }
  lanes_[hop.lane].hop = hop;
  hash_ += lane_hash(hop);
  return {};
}

Result<void> StepMirror::close(LaneId lane) {
  const auto it = lanes_.find(lane);
  if (it == lanes_.end()) return errorf(Code::kDataCorrupt, "lane {} is not open", lane);
  hash_ -= lane_hash(it->second.hop);
  lanes_.erase(it);
  pending_.erase(pending_.lower_bound({lane, INT64_MIN}), pending_.upper_bound({lane, INT64_MAX}));
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].live || slots_[i].lane != lane) continue;
    slots_[i].lane = LaneId(-1);
    rehash(i);
  }
  return {};
}

Result<void> StepMirror::check_lane(LaneId lane) const {
  if (lane.value < 0 || lanes_.contains(lane)) return {};
  return errorf(Code::kDataCorrupt, "lane {} is not open", lane);
}

// --- slots --------------------------------------------------------------------------------------

Result<SlotState*> StepMirror::find(SlotGen slot) {
  if (slot.slot >= slots_.size() || !slots_[slot.slot].live ||
      slots_[slot.slot].gen != slot.gen) {
    return errorf(Code::kDataCorrupt, "slot {} generation {} is not live", slot.slot, slot.gen);
  }
  return &slots_[slot.slot];
}

void StepMirror::rehash(uint32_t slot) {
  SlotState& s = slots_[slot];
  hash_ -= s.share_;
  s.share_ = 0;
  if (s.live) {
    Digest d;
    d.add(slot | uint64_t{s.gen} << 32).add(s.spec_hash_).add(s.tokens_hash_).add(s.blocks_hash_);
    d.add(static_cast<uint32_t>(s.computed) | static_cast<uint64_t>(s.lane.value) << 32);
    s.share_ = d.value();
  }
  hash_ += s.share_;
}

Result<void> StepMirror::release(SlotGen slot, bool finished) {
  ASSIGN_OR_RETURN(SlotState* const s, find(slot));
  s->blocks.clear();
  s->blocks_hash_ = 0;
  s->computed = 0;
  if (finished) {
    s->live = false;
    s->tokens.clear();
    s->lane = LaneId(-1);
  }
  rehash(slot.slot);
  return {};
}

Result<void> StepMirror::check_tokens(std::span<const int32_t> tokens, int64_t from) const {
  if (from < 0 || from + static_cast<int64_t>(tokens.size()) > limits_.context) {
    return errorf(Code::kDataCorrupt, "{} tokens from {} on do not fit a context of {}",
                  tokens.size(), from, limits_.context);
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= limits_.vocab) {
      return errorf(Code::kDataCorrupt, "token {} is outside the vocabulary of {}", token,
                    limits_.vocab);
    }
  }
  return {};
}

Result<void> StepMirror::take_blocks(SlotState& s, std::span<const int32_t> blocks) const {
  if ((s.blocks.size() + blocks.size()) * kBlockTokens >
      static_cast<size_t>(limits_.context) + kBlockTokens) {
    return errorf(Code::kDataCorrupt, "{} more KV blocks exceed a context of {}", blocks.size(),
                  limits_.context);
  }
  for (const int32_t block : blocks) {
    if (block < 0 || block >= limits_.blocks) {
      return errorf(Code::kDataCorrupt, "KV block {} is outside the pool of {}", block,
                    limits_.blocks);
    }
    s.blocks_hash_ += pair_hash(static_cast<int64_t>(s.blocks.size()), block);
    s.blocks.push_back(block);
  }
  return {};
}

Result<void> StepMirror::add(const FreshSlot& fresh) {
  const uint32_t index = fresh.slot.slot;
  if (index >= static_cast<uint32_t>(limits_.slots)) {
    return errorf(Code::kDataCorrupt, "slot {} is outside the {} slots", index, limits_.slots);
  }
  if (index >= slots_.size()) slots_.resize(index + 1);
  SlotState& s = slots_[index];
  if (s.live) return errorf(Code::kDataCorrupt, "slot {} is taken by generation {}", index, s.gen);
  TRY(check_lane(fresh.lane));
  TRY(check_tokens(fresh.tokens, 0));
  const auto known = static_cast<int64_t>(fresh.tokens.size());
  const int32_t prompt = fresh.spec.prompt_length;
  const bool needs_tokens = fresh.lane.value >= 0 && lanes_.at(fresh.lane).hop.keeps_tokens();
  if (prompt < 1 || prompt > limits_.context || (known == 0 ? needs_tokens : known < prompt)) {
    return errorf(Code::kDataCorrupt, "slot {} has {} tokens of a prompt of {}", index, known,
                  prompt);
  }
  for (const auto& [token, bias] : fresh.spec.sampling.logit_bias) {
    TRY(check_tokens({&token, 1}, 0));
  }
  s = SlotState{};
  s.live = true;
  s.gen = fresh.slot.gen;
  s.serial = next_serial_++;
  s.lane = fresh.lane;
  s.spec = fresh.spec;
  s.spec_hash_ = spec_hash(s.spec);
  s.tokens = fresh.tokens;
  for (int64_t i = 0; i < known; ++i) s.tokens_hash_ += pair_hash(i, fresh.tokens[i]);
  TRY(take_blocks(s, fresh.blocks));
  if (fresh.computed < 0 || fresh.computed > capacity(s) || (known > 0 && fresh.computed > known)) {
    return errorf(Code::kDataCorrupt, "slot {} claims {} computed rows in {} blocks", index,
                  fresh.computed, s.blocks.size());
  }
  s.computed = fresh.computed;
  rehash(index);
  return {};
}

Result<void> StepMirror::resume(const ResumedSlot& resumed) {
  ASSIGN_OR_RETURN(SlotState* const s, find(resumed.slot));
  TRY(check_lane(resumed.lane));
  if (!resumed.tokens.empty()) {
    TRY(check_tokens(resumed.tokens, resumed.tokens_from));
    if (resumed.tokens_from > static_cast<int64_t>(s->tokens.size())) {
      return errorf(Code::kDataCorrupt, "slot {} has {} tokens, more come from {} on",
                    resumed.slot.slot, s->tokens.size(), resumed.tokens_from);
    }
    s->tokens.resize(static_cast<size_t>(resumed.tokens_from));
    s->tokens_hash_ = mix64(s->tokens_hash_ ^ static_cast<uint32_t>(resumed.tokens_from));
    for (const int32_t token : resumed.tokens) {
      s->tokens_hash_ += pair_hash(static_cast<int64_t>(s->tokens.size()), token);
      s->tokens.push_back(token);
    }
  }
  if (resumed.lane.value >= 0 && lanes_.at(resumed.lane).hop.keeps_tokens() && s->tokens.empty()) {
    return errorf(Code::kDataCorrupt, "slot {} resumes where tokens are needed, without any",
                  resumed.slot.slot);
  }
  s->blocks.clear();
  s->blocks_hash_ = 0;
  TRY(take_blocks(*s, resumed.blocks));
  if (resumed.computed < 0 || resumed.computed > capacity(*s)) {
    return errorf(Code::kDataCorrupt, "slot {} claims {} computed rows in {} blocks",
                  resumed.slot.slot, resumed.computed, s->blocks.size());
  }
  s->computed = resumed.computed;
  s->lane = resumed.lane;
  s->serial = next_serial_++;
  rehash(resumed.slot.slot);
  return {};
}

// --- rows ---------------------------------------------------------------------------------------

Result<void> StepMirror::expand(const NodeStep& message, const Lane& lane,
                                std::vector<StepRow>& rows) const {
  if (message.implied.empty()) return {};
  const auto base = std::ranges::find(lane.recent, message.implied_step,
                                      [](const auto& entry) { return entry.first; });
  if (base == lane.recent.end()) {
    return errorf(Code::kDataCorrupt, "it implies rows of step {}, which is not remembered",
                  message.implied_step);
  }
  if (message.implied.size() > base->second.size() / 32 + 1) {
    return errorf(Code::kDataCorrupt, "it implies {} words of rows, step {} had {} rows",
                  message.implied.size(), message.implied_step, base->second.size());
  }
  const uint32_t flags =
      lane.hop.keeps_tokens() ? StepRow::kSamples | StepRow::kFed : StepRow::kSamples;
  rows.reserve(base->second.size() + message.rows.size());
  for (size_t word = 0; word < message.implied.size(); ++word) {
    for (uint32_t bits = message.implied[word]; bits != 0; bits &= bits - 1) {
      const size_t i = word * 32 + static_cast<size_t>(std::countr_zero(bits));
      const SlotState* s = i < base->second.size() ? slot(base->second[i]) : nullptr;
      if (s == nullptr) {
        return errorf(Code::kDataCorrupt, "it implies row {} of step {}, which has gone", i,
                      message.implied_step);
      }
      rows.push_back({base->second[i].slot, s->computed, 1, flags, 0});
    }
  }
  return {};
}

Result<void> StepMirror::apply_rows(const NodeStep& message) {
  const auto it = lanes_.find(message.lane);
  if (it == lanes_.end()) {
    return errorf(Code::kDataCorrupt, "lane {} is not open", message.lane);
  }
  Lane& lane = it->second;
  const LaneStep key{message.lane, message.step};
  if (message.step <= lane.last_step) {
    return errorf(Code::kDataCorrupt, "step {} of lane {} came after step {}", message.step,
                  message.lane, lane.last_step);
  }
  if (pending_.size() >= static_cast<size_t>(limits_.pending)) {
    return errorf(Code::kDataCorrupt, "more than {} steps wait to be run", limits_.pending);
  }
  std::vector<StepRow> rows;
  TRY(expand(message, lane, rows));
  rows.insert(rows.end(), message.rows.begin(), message.rows.end());
  if (rows.empty()) {
    return errorf(Code::kDataCorrupt, "step {} of lane {} has no rows", message.step, message.lane);
  }
  for (const NewBlock& added : message.new_blocks) {
    const SlotState* s = added.row < rows.size() ? slot_at(rows[added.row].slot) : nullptr;
    if (s == nullptr) {
      return errorf(Code::kDataCorrupt, "a KV block for row {} of {}", added.row, rows.size());
    }
    TRY(take_blocks(slots_[rows[added.row].slot], {&added.block, 1}));
  }
  int64_t total = 0;
  for (StepRow& row : rows) {
    TRY(advance(row, lane, message.number));
    total += row.count;
  }
  if (total > limits_.step_rows) {
    return errorf(Code::kDataCorrupt, "step {} has {} rows, at most {} are taken", message.step,
                  total, limits_.step_rows);
  }
  lane.last_step = message.step;
  remember_rows(lane, message.step, rows);
  pending_.emplace(key, std::move(rows));
  return {};
}

Result<void> StepMirror::advance(const StepRow& row, const Lane& lane, int64_t message) {
  if (slot_at(row.slot) == nullptr) {
    return errorf(Code::kDataCorrupt, "a row is for slot {}, which is free", row.slot);
  }
  SlotState& s = slots_[row.slot];
  if (s.lane != lane.hop.lane || s.last_message_ == message) {
    return errorf(Code::kDataCorrupt, "slot {} is in lane {} or has two rows", row.slot, s.lane);
  }
  if ((row.flags & ~kKnownFlags) != 0) {
    return errorf(Code::kDataCorrupt, "slot {} has unknown row flags {:#x}", row.slot, row.flags);
  }
  if (row.from != s.computed || row.count < 1 || row.count > limits_.context - row.from ||
      row.to() > capacity(s)) {
    return errorf(Code::kDataCorrupt, "slot {} has {} rows from {}, but {} computed and {} blocks",
                  row.slot, row.count, row.from, s.computed, s.blocks.size());
  }
  if (lane.hop.keeps_tokens()) TRY(take_token(row, s));
  s.last_message_ = message;
  s.computed = row.to();
  rehash(row.slot);
  return {};
}

// The token at the row's last position: known, given, or announced as coming.
Result<void> StepMirror::take_token(const StepRow& row, SlotState& s) const {
  const auto last = static_cast<size_t>(row.to()) - 1;
  if (last > s.tokens.size() ||
      (last == s.tokens.size() && (row.flags & (StepRow::kToken | StepRow::kFed)) == 0)) {
    return errorf(Code::kDataCorrupt, "slot {} runs to {}, but only {} tokens are known", row.slot,
                  row.to(), s.tokens.size());
  }
  if (last == s.tokens.size()) s.tokens.push_back(kUnknownToken);
  if ((row.flags & StepRow::kToken) == 0) return {};
  TRY(check_tokens({&row.token, 1}, 0));
  if (s.tokens[last] != kUnknownToken && s.tokens[last] != row.token) {
    return errorf(Code::kDataCorrupt, "slot {} has token {} at {}, not {}", row.slot,
                  s.tokens[last], last, row.token);
  }
  s.tokens[last] = row.token;
  s.tokens_hash_ += pair_hash(static_cast<int64_t>(last), row.token);
  return {};
}

void StepMirror::remember_rows(Lane& lane, int64_t step, std::span<const StepRow> rows) const {
  std::vector<SlotGen> sampling;
  if (lane.recent.size() == kImpliedHistory) {  // take its memory
    sampling = std::move(lane.recent.front().second);
    sampling.clear();
    lane.recent.pop_front();
  }
  for (const StepRow& row : rows) {
    if (row.samples()) sampling.push_back({row.slot, slots_[row.slot].gen});
  }
  lane.recent.emplace_back(step, std::move(sampling));
}

Result<void> StepMirror::feed(SlotGen slot, int32_t position, int32_t token) {
  if (slot.slot >= slots_.size()) return {};
  SlotState& s = slots_[slot.slot];
  if (!s.live || s.gen != slot.gen || s.tokens.empty()) return {};
  TRY(check_tokens({&token, 1}, position));
  const auto at = static_cast<size_t>(position);
  if (at > s.tokens.size()) {
    return errorf(Code::kDataCorrupt, "slot {} is fed token {} of {} known", slot.slot, position,
                  s.tokens.size());
  }
  if (at == s.tokens.size()) s.tokens.push_back(kUnknownToken);
  if (s.tokens[at] == token) return {};
  if (s.tokens[at] != kUnknownToken) {
    return errorf(Code::kDataCorrupt, "slot {} has token {} at {} and is fed {}", slot.slot,
                  s.tokens[at], position, token);
  }
  s.tokens[at] = token;
  fed_hash_ += mix64(pair_hash(position, token) ^ slot.slot ^ uint64_t{slot.gen} << 32);
  return {};
}

// --- what it holds ------------------------------------------------------------------------------

const std::vector<StepRow>* StepMirror::pending(LaneStep step) const {
  const auto it = pending_.find(step);
  return it == pending_.end() ? nullptr : &it->second;
}

bool StepMirror::tokens_ready(LaneStep step) const {
  const std::vector<StepRow>* rows = pending(step);
  const LaneHop* hop = lane(step.lane);
  if (rows == nullptr || hop == nullptr) return false;
  if (!hop->keeps_tokens()) return true;
  return std::ranges::all_of(*rows, [&](const StepRow& row) {
    const SlotState* s = slot_at(row.slot);
    if (s == nullptr || s->tokens.size() < static_cast<size_t>(row.to())) return false;
    return std::ranges::find(s->tokens.begin() + row.from, s->tokens.begin() + row.to(),
                             kUnknownToken) == s->tokens.begin() + row.to();
  });
}

const SlotState* StepMirror::slot(SlotGen slot) const {
  const SlotState* s = slot_at(slot.slot);
  return s != nullptr && s->gen == slot.gen ? s : nullptr;
}

const SlotState* StepMirror::slot_at(uint32_t slot) const {
  return slot < slots_.size() && slots_[slot].live ? &slots_[slot] : nullptr;
}

const LaneHop* StepMirror::lane(LaneId lane) const {
  const auto it = lanes_.find(lane);
  return it == lanes_.end() ? nullptr : &it->second.hop;
}

}  // namespace towline::policy
