// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

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

// Which of a slot's contents a hash is of: equal words of two kinds are different terms.
enum Kind : uint64_t { kTokenKind = 1, kBlockKind = 2, kLaneKind = 3, kFedKind = 4 };

constexpr uint64_t kSpread = 0x9e3779b97f4a7c15ull;  // odd

uint64_t pair_hash(Kind kind, int64_t index, int32_t value) {
  return mix64(((static_cast<uint64_t>(index) << 32) ^ static_cast<uint32_t>(value)) +
               kind * kSpread);
}

// Of many tokens at once, 16 bytes a turn of each of four chains; every turn is a bijection of its
// chain's state, so one changed token always shows.
uint64_t tokens_hash(std::span<const int32_t> tokens, int64_t from) {
  constexpr uint64_t kTimes = 0xd1342543de82ef95ull;
  uint64_t chain[4] = {1, 2, 3, 4};
  size_t i = 0;
  for (; i + 8 <= tokens.size(); i += 8) {
    uint64_t words[4];
    std::memcpy(words, tokens.data() + i, sizeof(words));
    for (int k = 0; k < 4; ++k) chain[k] = std::rotl((chain[k] ^ words[k]) * kTimes, 29);
  }
  for (; i < tokens.size(); ++i) {
    chain[0] = std::rotl((chain[0] ^ static_cast<uint32_t>(tokens[i])) * kTimes, 29);
  }
  Digest d;
  d.add(kTokenKind).add(static_cast<uint64_t>(from)).add(tokens.size());
  for (const uint64_t c : chain) d.add(c);
  return d.value();
}

uint64_t spec_hash(SlotGen slot, const SlotSpec& spec) {
  const spec::SamplingParams& p = spec.sampling;
  Digest d;
  d.add(slot.slot | uint64_t{slot.gen} << 32);
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

// What is wrong with a row is found out again where nothing is fast.
[[gnu::cold, gnu::noinline]] Error impossible_row(const StepRow& row, const SlotState& s,
                                                  LaneId lane) {
  if (s.lane != lane) {
    return errorf(Code::kDataCorrupt, "slot {} is in lane {}, its row in {}", row.slot, s.lane,
                  lane);
  }
  if ((row.flags & ~kKnownFlags) != 0) {
    return errorf(Code::kDataCorrupt, "slot {} has unknown row flags {:#x}", row.slot, row.flags);
  }
  return errorf(Code::kDataCorrupt,
                "slot {} has {} rows from {} (or two rows), but {} computed and {} blocks",
                row.slot, row.count, row.from, s.computed, s.blocks.size());
}

[[gnu::cold, gnu::noinline]] Error lacks_tokens(const StepRow& row, const SlotState& s) {
  return errorf(Code::kDataCorrupt, "slot {} runs to {}, but only {} tokens are known", row.slot,
                row.to(), s.tokens.size());
}

[[gnu::cold, gnu::noinline]] Error contradiction(uint32_t slot, int32_t have, size_t at,
                                                 int32_t token) {
  return errorf(Code::kDataCorrupt, "slot {} has token {} at {}, not {}", slot, have, at, token);
}

// Nothing has touched a sequence since the step before: after a step of milliseconds each is a miss
// in the caches. Asked for some rows ahead, these misses overlap. The token table is needed by few
// (policy/token_table.hpp); its head is found through the slot, its end through the head.
//
// Inlined by force: g++ takes a function that only prefetches for one without effects.
constexpr size_t kFetchSlot = 24, kFetchHead = 16, kFetchEnd = 8;  // rows ahead

template <class SlotOf>
[[gnu::always_inline]] inline void fetch_slot(const std::vector<SlotState>& slots, size_t n,
                                              size_t i, SlotOf&& slot_of) {
  if (i < n && slot_of(i) < slots.size()) __builtin_prefetch(&slots[slot_of(i)], 1);
}

template <class SlotOf>
[[gnu::always_inline]] inline void fetch_table(const std::vector<SlotState>& slots, size_t n,
                                               size_t i, SlotOf&& slot_of) {
  const auto full = [&](size_t k) __attribute__((always_inline)) {
    return k < n && slot_of(k) < slots.size() && slots[slot_of(k)].tokens.tail_is_full();
  };
  if (full(i + kFetchHead)) {
    __builtin_prefetch(slots[slot_of(i + kFetchHead)].tokens.table_head(), 1);
  }
  if (full(i + kFetchEnd)) {
    __builtin_prefetch(slots[slot_of(i + kFetchEnd)].tokens.table_end(), 1);
  }
}

}  // namespace

Result<void> StepMirror::apply(const NodeStep& message) { return apply_any(message); }
Result<void> StepMirror::apply(NodeStep&& message) { return apply_any(std::move(message)); }

Result<void> StepMirror::check_order(const NodeStep& message) const {
  if (message.number < 0) {
    return errorf(Code::kUnavailable, "message {} is before the first, 0", message.number);
  }
  if (message.epoch < epoch_ || (message.epoch == epoch_ && message.number <= number_)) {
    return errorf(Code::kAlreadyExists, "message {} of epoch {} is old: {} of epoch {} was applied",
                  message.number, message.epoch, number_, epoch_);
  }
  if (message.full) return {};
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
  return {};
}

template <class Message>
Result<void> StepMirror::apply_any(Message&& message) {
  TRY(check_order(message));
  if (message.full) clear();
  epoch_ = message.epoch;
  number_ = message.number;
  void_ = false;
  const auto sections = [&]() -> Result<void> {
    for (const LaneId lane : message.closed) TRY(close(lane));
    for (const SlotGen slot : message.finished) TRY(release(slot, true));
    for (const SlotGen slot : message.preempted) TRY(release(slot, false));
    for (const LaneHop& hop : message.opened) TRY(open(hop));
    for (auto& fresh : message.fresh) {
      if constexpr (std::is_lvalue_reference_v<Message>) {
        TRY(add(fresh));
      } else {
        TRY(add(std::move(fresh)));
      }
    }
    for (const ResumedSlot& resumed : message.resumed) TRY(resume(resumed));
    if (message.runs()) return apply_rows(message);
    if (!message.rows.empty() || !message.new_blocks.empty() || !message.implied.empty()) {
      return errorf(Code::kDataCorrupt, "it has rows but no lane");
    }
    return {};
  };
  Result<void> applied = sections();
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
  for (SlotState& s : slots_) {
    if (!s.live || s.lane != lane) continue;
    move_to(s, LaneId(-1));
    rehash(s);
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

void StepMirror::rehash(SlotState& s) {
  const uint64_t share =
      s.live ? mix64(s.content_ + static_cast<uint32_t>(s.computed) * kSpread) : 0;
  hash_ += share - s.share_;
  s.share_ = share;
}

void StepMirror::move_to(SlotState& s, LaneId lane) {
  s.lane = lane;
  s.content_ -= s.lane_hash_;
  s.lane_hash_ = pair_hash(kLaneKind, 0, lane.value);
  s.content_ += s.lane_hash_;
}

void StepMirror::drop_blocks(SlotState& s) {
  s.blocks.clear();
  s.capacity_ = 0;
  s.content_ -= s.blocks_hash_;
  s.blocks_hash_ = 0;
  s.computed = 0;
}

Result<void> StepMirror::release(SlotGen slot, bool finished) {
  ASSIGN_OR_RETURN(SlotState* const s, find(slot));
  drop_blocks(*s);
  if (finished) {
    s->live = false;
    s->tokens.clear();
    s->lane = LaneId(-1);
  }
  rehash(*s);
  return {};
}

Result<void> StepMirror::check_token(int32_t token) const {
  if (token >= 0 && token < limits_.vocab) [[likely]] return {};
  return errorf(Code::kDataCorrupt, "token {} is outside the vocabulary of {}", token,
                limits_.vocab);
}

Result<void> StepMirror::check_tokens(std::span<const int32_t> tokens, int64_t from) const {
  if (from < 0 || from + static_cast<int64_t>(tokens.size()) > limits_.context) {
    return errorf(Code::kDataCorrupt, "{} tokens from {} on do not fit a context of {}",
                  tokens.size(), from, limits_.context);
  }
  // The top bit of `wrong` is set by a negative token and by one above the last.
  const auto last = static_cast<uint32_t>(limits_.vocab - 1);
  uint32_t wrong = 0;
  for (const int32_t token : tokens) {
    wrong |= static_cast<uint32_t>(token) | (last - static_cast<uint32_t>(token));
  }
  if (wrong >> 31 == 0) return {};
  for (const int32_t token : tokens) TRY(check_token(token));
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
    const uint64_t hash = pair_hash(kBlockKind, static_cast<int64_t>(s.blocks.size()), block);
    s.blocks_hash_ += hash;
    s.content_ += hash;
    s.blocks.push_back(block);
  }
  s.capacity_ = static_cast<int32_t>(
      std::min<int64_t>(static_cast<int64_t>(s.blocks.size()) * kBlockTokens, INT32_MAX));
  return {};
}

template <class Fresh>
Result<void> StepMirror::add(Fresh&& fresh) {
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
  for (const auto& [token, bias] : fresh.spec.sampling.logit_bias) TRY(check_token(token));
  s = SlotState{};
  s.live = true;
  s.gen = fresh.slot.gen;
  s.serial = next_serial_++;
  s.spec = fresh.spec;
  s.content_ = spec_hash(fresh.slot, s.spec) + tokens_hash(fresh.tokens, 0);
  move_to(s, fresh.lane);
  s.tokens = std::forward<Fresh>(fresh).tokens;
  TRY(take_blocks(s, fresh.blocks));
  if (fresh.computed < 0 || fresh.computed > s.capacity_ ||
      (known > 0 && fresh.computed > known)) {
    return errorf(Code::kDataCorrupt, "slot {} claims {} computed rows in {} blocks", index,
                  fresh.computed, s.blocks.size());
  }
  s.computed = fresh.computed;
  rehash(s);
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
    s->tokens.append(resumed.tokens);
  }
  if (resumed.lane.value >= 0 && lanes_.at(resumed.lane).hop.keeps_tokens() && s->tokens.empty()) {
    return errorf(Code::kDataCorrupt, "slot {} resumes where tokens are needed, without any",
                  resumed.slot.slot);
  }
  drop_blocks(*s);
  move_to(*s, resumed.lane);
  if (!resumed.tokens.empty()) {
    // What the replaced tokens added is not known one by one: the sum so far is folded instead.
    s->content_ =
        mix64(s->content_ ^ kTokenKind) + tokens_hash(resumed.tokens, resumed.tokens_from);
    s->lane_hash_ = s->blocks_hash_ = 0;  // folded too
  }
  TRY(take_blocks(*s, resumed.blocks));
  if (resumed.computed < 0 || resumed.computed > s->capacity_) {
    return errorf(Code::kDataCorrupt, "slot {} claims {} computed rows in {} blocks",
                  resumed.slot.slot, resumed.computed, s->blocks.size());
  }
  s->computed = resumed.computed;
  s->serial = next_serial_++;
  rehash(*s);
  return {};
}

// --- rows ---------------------------------------------------------------------------------------

Result<void> StepMirror::expand(const NodeStep& message, const Lane& lane,
                                std::vector<StepRow>& rows) const {
  if (message.implied.empty()) return {};
  const auto base = std::ranges::find(lane.recent, message.implied_step, &Remembered::step);
  if (message.implied_step < 0 || base == lane.recent.end()) {
    return errorf(Code::kDataCorrupt, "it implies rows of step {}, which is not remembered",
                  message.implied_step);
  }
  const std::span<const SlotGen> slots = base->rows;
  if (message.implied.size() > slots.size() / 32 + 1) {
    return errorf(Code::kDataCorrupt, "it implies {} words of rows, step {} had {} rows",
                  message.implied.size(), message.implied_step, slots.size());
  }
  const uint32_t flags =
      lane.hop.keeps_tokens() ? StepRow::kSamples | StepRow::kFed : StepRow::kSamples;
  rows.reserve(slots.size() + message.rows.size());
  const auto slot_of = [&](size_t i) { return slots[i].slot; };
  for (size_t i = 0; i < kFetchSlot; ++i) fetch_slot(slots_, slots.size(), i, slot_of);
  for (size_t word = 0; word < message.implied.size(); ++word) {
    for (uint32_t bits = message.implied[word]; bits != 0; bits &= bits - 1) {
      const size_t i = word * 32 + static_cast<size_t>(std::countr_zero(bits));
      fetch_slot(slots_, slots.size(), i + kFetchSlot, slot_of);
      const SlotState* s = i < slots.size() ? slot(slots[i]) : nullptr;
      if (s == nullptr) {
        return errorf(Code::kDataCorrupt, "it implies row {} of step {}, which has gone", i,
                      message.implied_step);
      }
      rows.push_back({slots[i].slot, s->computed, 1, flags, 0});
    }
  }
  return {};
}

Result<void> StepMirror::append_blocks(const NodeStep& message, std::span<const StepRow> rows) {
  for (const NewBlock& added : message.new_blocks) {
    if (added.row >= rows.size() || slot_at(rows[added.row].slot) == nullptr) {
      return errorf(Code::kDataCorrupt, "a KV block for row {} of {}", added.row, rows.size());
    }
    TRY(take_blocks(slots_[rows[added.row].slot], {&added.block, 1}));
  }
  return {};
}

Result<void> StepMirror::apply_rows(const NodeStep& message) {
  const auto it = lanes_.find(message.lane);
  if (it == lanes_.end()) {
    return errorf(Code::kDataCorrupt, "lane {} is not open", message.lane);
  }
  Lane& lane = it->second;
  if (message.step <= lane.last_step) {
    return errorf(Code::kDataCorrupt, "step {} of lane {} came after step {}", message.step,
                  message.lane, lane.last_step);
  }
  if (pending_.size() >= static_cast<size_t>(limits_.pending)) {
    return errorf(Code::kDataCorrupt, "more than {} steps wait to be run", limits_.pending);
  }
  std::vector<StepRow> rows;
  if (!spare_.empty()) {
    rows = std::move(spare_.back());
    spare_.pop_back();
    rows.clear();
  }
  TRY(expand(message, lane, rows));
  rows.insert(rows.end(), message.rows.begin(), message.rows.end());
  if (rows.empty()) {
    return errorf(Code::kDataCorrupt, "step {} of lane {} has no rows", message.step, message.lane);
  }
  TRY(append_blocks(message, rows));
  sampling_.clear();
  sampling_.reserve(rows.size());
  int64_t total = 0;
  const auto slot_of = [&](size_t i) { return rows[i].slot; };
  const size_t implied = rows.size() - message.rows.size();  // their slots are here
  for (size_t i = implied; i < implied + kFetchSlot; ++i) {
    fetch_slot(slots_, rows.size(), i, slot_of);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i >= implied) fetch_slot(slots_, rows.size(), i + kFetchSlot, slot_of);
    fetch_table(slots_, rows.size(), i, slot_of);
    TRY(advance(rows[i], lane, message.number));
    total += rows[i].count;
  }
  if (total > limits_.step_rows) {
    return errorf(Code::kDataCorrupt, "step {} has {} rows, at most {} are taken", message.step,
                  total, limits_.step_rows);
  }
  lane.last_step = message.step;
  lane.newest = (lane.newest + 1) % kImpliedHistory;
  lane.recent[lane.newest].step = message.step;
  lane.recent[lane.newest].rows.swap(sampling_);
  pending_.emplace(LaneStep{message.lane, message.step}, std::move(rows));
  return {};
}

Result<void> StepMirror::advance(const StepRow& row, const Lane& lane, int64_t message) {
  if (slot_at(row.slot) == nullptr) {
    return errorf(Code::kDataCorrupt, "a row is for slot {}, which is free", row.slot);
  }
  SlotState& s = slots_[row.slot];
  const bool fits = s.lane == lane.hop.lane && s.last_message_ != message &&
                    (row.flags & ~kKnownFlags) == 0 && row.from == s.computed && row.count >= 1 &&
                    row.count <= limits_.context - row.from && row.to() <= s.capacity_;
  if (!fits) [[unlikely]] return impossible_row(row, s, lane.hop.lane);
  if (lane.hop.keeps_tokens()) TRY(take_token(row, s));
  s.last_message_ = message;
  s.computed = row.to();
  rehash(s);
  if (row.samples()) sampling_.push_back({row.slot, s.gen});
  return {};
}

// The token at the row's last position: known, given, or announced as coming.
Result<void> StepMirror::take_token(const StepRow& row, SlotState& s) const {
  const auto last = static_cast<size_t>(row.to()) - 1;
  if (last >= s.tokens.size()) {
    if (last > s.tokens.size() || (row.flags & (StepRow::kToken | StepRow::kFed)) == 0) {
      return lacks_tokens(row, s);
    }
    s.tokens.push_back(kUnknownToken);
  }
  if ((row.flags & StepRow::kToken) == 0) return {};
  TRY(check_token(row.token));
  if (s.tokens[last] != kUnknownToken && s.tokens[last] != row.token) {
    return contradiction(row.slot, s.tokens[last], last, row.token);
  }
  s.tokens.set(last, row.token);
  s.content_ += pair_hash(kTokenKind, static_cast<int64_t>(last), row.token);
  return {};
}

Result<void> StepMirror::feed(SlotGen slot, int32_t position, int32_t token) {
  if (slot.slot >= slots_.size()) return {};
  SlotState& s = slots_[slot.slot];
  if (!s.live || s.gen != slot.gen || s.tokens.empty()) return {};
  if (position < 0 || position >= limits_.context) return check_tokens({&token, 1}, position);
  TRY(check_token(token));
  const auto at = static_cast<size_t>(position);
  if (at >= s.tokens.size()) {
    if (at > s.tokens.size()) {
      return errorf(Code::kDataCorrupt, "slot {} is fed token {} of {} known", slot.slot, position,
                    s.tokens.size());
    }
    s.tokens.push_back(kUnknownToken);
  }
  if (s.tokens[at] == token) return {};
  if (s.tokens[at] != kUnknownToken) return contradiction(slot.slot, s.tokens[at], at, token);
  s.tokens.set(at, token);
  fed_hash_ +=
      pair_hash(kFedKind, position, token) * (2 * (slot.slot | uint64_t{slot.gen} << 32) + 1);
  return {};
}

Result<void> StepMirror::feed(std::span<const FedToken> tokens) {
  const auto slot_of = [&](size_t i) { return tokens[i].slot.slot; };
  for (size_t i = 0; i < kFetchSlot; ++i) fetch_slot(slots_, tokens.size(), i, slot_of);
  for (size_t i = 0; i < tokens.size(); ++i) {
    fetch_slot(slots_, tokens.size(), i + kFetchSlot, slot_of);
    fetch_table(slots_, tokens.size(), i, slot_of);
    TRY(feed(tokens[i].slot, tokens[i].position, tokens[i].token));
  }
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
    return s != nullptr && tokens_known(*s, row);
  });
}

bool StepMirror::tokens_known(const SlotState& s, const StepRow& row) {
  if (s.tokens.size() < static_cast<size_t>(row.to())) return false;
  for (int32_t p = row.from; p < row.to(); ++p) {
    if (s.tokens[static_cast<size_t>(p)] == kUnknownToken) return false;
  }
  return true;
}

std::vector<StepRow> StepMirror::take_pending(LaneStep step) {
  auto node = pending_.extract(step);
  return node.empty() ? std::vector<StepRow>{} : std::move(node.mapped());
}

void StepMirror::retire(LaneStep step) {
  constexpr size_t kSpare = 4;
  auto node = pending_.extract(step);
  if (!node.empty() && spare_.size() < kSpare) spare_.push_back(std::move(node.mapped()));
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
