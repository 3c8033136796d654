// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/batcher.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "base/rng.hpp"

namespace towline::policy {

int32_t Step::rows() const {
  int32_t rows = 0;
  for (const StepEntry& entry : entries) rows += entry.to - entry.from;
  return rows;
}

Batcher::Batcher(BatcherLimits limits) : limits_(limits) {
  limits_.step_tokens = std::max(limits_.step_tokens, 1);
  limits_.chunk_tokens = std::max(limits_.chunk_tokens, 1);
  limits_.sequences = std::max(limits_.sequences, 1);
  limits_.ahead = std::max(limits_.ahead, 0);
  limits_.spare_blocks = std::max(limits_.spare_blocks, 0);
}

Batcher::Batcher(BatcherLimits limits, int32_t blocks) : Batcher(limits) {
  open_lane({{.pool = add_pool(blocks)}});
}

// --- pools and lanes ----------------------------------------------------------------------------

Batcher::Pool& Batcher::at(int32_t pool) {
  CHECK(pool >= 0 && pool < pools(), pool, pools());
  return pools_[static_cast<size_t>(pool)];
}

const Batcher::Pool& Batcher::at(int32_t pool) const {
  CHECK(pool >= 0 && pool < pools(), pool, pools());
  return pools_[static_cast<size_t>(pool)];
}

int32_t Batcher::add_pool(int32_t blocks) {
  pools_.push_back({.ledger = BlockLedger(blocks), .running = {}, .wanted = {}});
  return pools() - 1;
}

void Batcher::replace_pool(int32_t pool, int32_t blocks) {
  CHECK(at(pool).running.empty(), pool);
  at(pool).ledger = BlockLedger(blocks);
}

LaneId Batcher::open_lane(std::vector<LanePool> pools) {
  CHECK(!pools.empty());
  for (size_t i = 0; i < pools.size(); ++i) {
    for (size_t k = 0; k < i; ++k) CHECK(pools[i].pool != pools[k].pool, pools[i].pool);
    at(pools[i].pool);
  }
  const LaneId id(next_lane_++);
  lanes_.add(id, {}).pools = std::move(pools);
  return id;
}

std::vector<SeqId> Batcher::close_lane(LaneId id) {
  const Lane& lane = lanes_.at(id);
  std::set<Rank> members = lane.waiting;
  members.insert(lane.running.begin(), lane.running.end());
  std::vector<SeqId> orphans;
  for (const Rank& rank : members) {
    Sequence& s = of(rank);
    CHECK(s.flying == 0, s.id, s.flying);
    leave_lane(s);
    orphans.push_back(s.id);
  }
  lanes_.erase(id);
  return orphans;
}

int32_t Batcher::sequences_of(LaneId lane) const {
  const Lane* const found = lanes_.find(lane);
  if (found == nullptr) return 0;
  return static_cast<int32_t>(found->running.size() + found->waiting.size());
}

int32_t Batcher::ready(LaneId lane) const {
  const Lane* const found = lanes_.find(lane);
  return found == nullptr ? 0 : static_cast<int32_t>(found->ready.size());
}

int32_t Batcher::waiting(LaneId lane) const {
  const Lane* const found = lanes_.find(lane);
  return found == nullptr ? 0 : static_cast<int32_t>(found->waiting.size());
}

bool Batcher::may_take_room(LaneId lane) const {
  const Lane* const found = lanes_.find(lane);
  if (found == nullptr) return false;
  if (!found->ready.empty()) return true;
  const std::set<Rank>& waiting = found->waiting;
  return !waiting.empty() && !running_.empty() &&
         waiting.begin()->priority < running_.rbegin()->priority;
}

Result<void> Batcher::move(SeqId seq, LaneId lane) {
  Sequence* const s = find(seq);
  CHECK(s != nullptr && s->flying == 0, seq);
  TRY(check_fits(s->prompt, s->max_tokens, lane));
  leave_lane(*s);
  s->lane = lane;
  enter_waiting(*s);
  return {};
}

Batcher::Sequence* Batcher::find(SeqId seq) {
  const int32_t place = place_of_.find(seq);
  return place < 0 ? nullptr : &sequences_[static_cast<size_t>(place)];
}

const Batcher::Sequence* Batcher::find(SeqId seq) const {
  const int32_t place = place_of_.find(seq);
  return place < 0 ? nullptr : &sequences_[static_cast<size_t>(place)];
}

// The sequence of an entry in flight.
Batcher::Sequence& Batcher::of(const StepEntry& entry) {
  const auto place = static_cast<size_t>(entry.place);  // a negative one is beyond every size
  Sequence* const noted = place < sequences_.size() ? &sequences_[place] : nullptr;
  Sequence* const s = noted != nullptr && noted->id == entry.seq ? noted : find(entry.seq);
  CHECK(s != nullptr && s->flying > 0, entry.seq);
  return *s;
}

void Batcher::enter_waiting(Sequence& s) { lane_of(s).waiting.insert(s.rank); }

void Batcher::leave_lane(Sequence& s) {
  if (!s.has_lane()) return;
  if (s.is_running) preempt(s);
  forget_wish(s);
  lane_of(s).waiting.erase(s.rank);
  s.lane = LaneId(-1);
}

void Batcher::forget_wish(const Sequence& s) {
  for (const LanePool& p : lanes_.at(s.lane).pools) {
    std::optional<Rank>& wanted = at(p.pool).wanted;
    if (wanted == s.rank) wanted.reset();
  }
}

// --- sequences ----------------------------------------------------------------------------------

Result<void> Batcher::check_fits(int64_t prompt, int32_t max_tokens, LaneId lane) const {
  const Lane* const found = lanes_.find(lane);
  if (found == nullptr) return errorf(Code::kUnavailable, "lane {} is closed", lane);
  // The last output token is never evaluated, so it needs no place.
  const int64_t places = prompt + std::max(max_tokens - 1, 0);
  for (const LanePool& p : found->pools) {
    const int64_t room = int64_t{at(p.pool).ledger.total()} * kBlockTokens;
    if (places <= room) continue;
    return errorf(Code::kInvalidArgument,
                  "prompt ({}) and output ({}) need {} tokens of KV cache, which holds {}; "
                  "shorten the request or give the cache more memory",
                  prompt, max_tokens, places, room);
  }
  return {};
}

Result<void> Batcher::add(SequenceSpec spec) {
  const bool lengths_only = spec.prompt.empty();
  const int64_t prompt =
      lengths_only ? spec.prompt_length : static_cast<int64_t>(spec.prompt.size());
  if (prompt < 1) {
    return Error(Code::kInvalidArgument, "the prompt is empty; it needs at least one token");
  }
  if (spec.max_tokens < 0) {
    return errorf(Code::kInvalidArgument, "max_tokens is {}; it must not be negative",
                  spec.max_tokens);
  }
  if (place_of_.contains(spec.id)) {
    return errorf(Code::kAlreadyExists, "sequence {} exists already", spec.id);
  }
  TRY(check_fits(prompt, spec.max_tokens, spec.lane));
  int32_t place;
  if (free_places_.empty()) {
    place = static_cast<int32_t>(sequences_.size());
    sequences_.emplace_back();
  } else {
    place = free_places_.back();
    free_places_.pop_back();
  }
  place_of_.add(spec.id, place);
  Sequence& s = sequences_[static_cast<size_t>(place)];
  s.rank = {spec.priority, place, next_arrival_++};
  s.id = spec.id;
  s.lane = spec.lane;
  s.prompt = s.length = static_cast<int32_t>(prompt);
  s.tokens = std::move(spec.prompt);
  s.max_tokens = spec.max_tokens;
  s.every_row = spec.every_row;
  s.lengths_only = lengths_only;
  s.salt = spec.cache_salt;
  s.present = std::clamp<int32_t>(spec.present, 0, s.length - 1);
  enter_waiting(s);
  return {};
}

void Batcher::cancel(SeqId id) {
  Sequence* const s = find(id);
  if (s == nullptr) return;
  if (s->flying == 0) {
    end(*s, EndReason::kCancelled);
  } else if (!s->ending) {
    s->ending = EndReason::kCancelled;
    refresh_ready(*s);
  }
}

int32_t Batcher::horizon(const Sequence& s) const {
  const int32_t known = s.length + (limits_.placeholders ? s.expected : 0);
  const int32_t last = s.prompt + std::max(s.max_tokens - 1, 0);
  return std::min(known, last);
}

// Keeps Lane::ready exact; called after whatever may change it.
void Batcher::refresh_ready(Sequence& s) {
  const bool ready = may_step(s);
  if (ready == s.is_ready) return;
  std::vector<Rank>& list = lane_of(s).ready;
  const auto at = std::lower_bound(list.begin(), list.end(), s.rank);
  if (ready) {
    list.insert(at, s.rank);
  } else if (at != list.end() && *at == s.rank) {  // not there while its lane forms a step
    list.erase(at);
  }
  s.is_ready = ready;
}

// Those of one step become ready together, mostly behind all others or in between them in order.
void Batcher::join_ready(Lane& lane, std::vector<Rank>& more) {
  if (more.empty()) return;
  if (!std::is_sorted(more.begin(), more.end())) std::sort(more.begin(), more.end());
  if (lane.ready.empty() || lane.ready.back() < more.front()) {
    lane.ready.insert(lane.ready.end(), more.begin(), more.end());
  } else {
    scratch_.resize(lane.ready.size() + more.size());
    std::merge(lane.ready.begin(), lane.ready.end(), more.begin(), more.end(), scratch_.begin());
    lane.ready.swap(scratch_);
    scratch_.clear();
  }
  more.clear();
}

// --- forming a step -----------------------------------------------------------------------------

Step Batcher::next_step(LaneId id, int32_t most_entries) {
  Lane& lane = lanes_.at(id);
  Step step;
  step.number = next_step_;
  step.lane = id;
  int32_t budget = limits_.step_tokens;
  const auto most = static_cast<size_t>(std::max(most_entries, 1));
  yield_to_priority(lane);
  schedule_ready(lane, step, budget, most);
  while (budget > 0 && step.entries.size() < most && admit_next(lane, step, budget)) {
  }
  step.dropped = std::exchange(dropped_, {});
  if (!step.entries.empty() || !step.dropped.empty()) ++next_step_.value;
  return step;
}

// Decodes first, then the next pieces of prompts.
void Batcher::schedule_ready(Lane& lane, Step& step, int32_t& budget, size_t most) {
  // Providing blocks preempts worse-ranked members of the list, so it is put aside.
  forming_.swap(lane.ready);
  step.entries.reserve(std::min(most, forming_.size() + 1));
  const int64_t preemptions = counters_.preemptions;
  size_t looked_at = 0;
  for (const bool decode : {true, false}) {
    for (size_t i = 0; i < forming_.size(); ++i) {
      if (budget == 0 || step.entries.size() >= most) break;
      looked_at = std::max(looked_at, i + 1);
      Sequence& s = of(forming_[i]);
      if (!s.is_ready) continue;  // preempted meanwhile, or wholly scheduled
      const int32_t rows = horizon(s) - s.scheduled;
      if ((rows == 1) != decode) continue;
      const int32_t most_rows = std::min({rows, budget, limits_.chunk_tokens});
      schedule(s, provide_blocks(s, s.scheduled + most_rows), step, budget);
      s.is_ready = may_step(s);
    }
  }
  if (counters_.preemptions != preemptions) looked_at = forming_.size();
  const auto end = forming_.begin() + static_cast<std::ptrdiff_t>(looked_at);
  const auto gone = [&](const Rank& rank) { return !of(rank).is_ready; };
  forming_.erase(std::remove_if(forming_.begin(), end, gone), end);
  forming_.swap(lane.ready);
  forming_.clear();
}

template <class Ranks>
bool Batcher::preempt_worse_than(const Rank& rank, const Ranks& among) {
  for (auto worst = among.rbegin(); worst != among.rend() && rank < *worst; ++worst) {
    Sequence& victim = of(*worst);
    if (victim.flying > 0) continue;
    preempt(victim);
    return true;
  }
  return false;
}

void Batcher::yield_to_priority(Lane& lane) {
  while (!lane.waiting.empty() && !running_.empty()) {
    const Rank& best = *lane.waiting.begin();
    if (best.priority >= running_.rbegin()->priority) return;
    const Sequence& candidate = of(best);
    const int32_t blocked = what_blocks(candidate, match_prefix(candidate));
    if (blocked == kNothing) return;
    // Only strictly worse priorities give way; equal ones keep their places.
    const Rank limit{best.priority + 1, -1, -1};
    const bool preempted =
        blocked == kPlaces
            ? preempt_worse_than(limit, running_)
            : preempt_worse_than(limit,
                                 blocked == kLanePlaces ? lane.running : at(blocked).running);
    if (!preempted) return;
  }
}

bool Batcher::admit_next(Lane& lane, Step& step, int32_t& budget) {
  if (lane.waiting.empty()) return false;
  Sequence& s = of(*lane.waiting.begin());
  const Matches cached = match_prefix(s);
  const int32_t blocked = what_blocks(s, cached);
  if (blocked != kNothing) {  // those behind it wait too: nobody starves
    if (blocked >= 0) {
      std::optional<Rank>& wanted = at(blocked).wanted;
      if (!wanted || s.rank < *wanted) wanted = s.rank;
    }
    return false;
  }
  forget_wish(s);
  hold(s, cached);
  lane.waiting.erase(s.rank);
  lane.running.insert(s.rank);
  running_.insert(s.rank);
  for (const LanePool& p : lane.pools) at(p.pool).running.insert(s.rank);
  s.is_running = true;
  const int32_t rows = std::min({horizon(s) - s.scheduled, budget, limits_.chunk_tokens});
  schedule(s, provide_blocks(s, s.scheduled + rows), step, budget);
  refresh_ready(s);
  return true;
}

void Batcher::hold(Sequence& s, const Matches& cached) {
  const Lane& lane = lane_of(s);
  const size_t found = cached.empty() ? 0 : cached.front().size();
  for (size_t k = 0; k < found; ++k) {
    for (size_t i = 0; i < lane.pools.size(); ++i) {
      const BlockLedger::Match& match = cached[i][k];
      at(lane.pools[i].pool).ledger.retain(match.block);
      s.blocks.push_back(match.block);
      s.links.push_back(match.link);
    }
  }
  s.held = static_cast<int32_t>(found);
  s.computed = s.scheduled = std::max(s.held * kBlockTokens, std::exchange(s.present, 0));
  if (!s.cached) s.cached = s.computed;
  if (limits_.prefix_cache && !s.every_row && !s.lengths_only) {
    counters_.prefix_queries += s.length;
    counters_.prefix_hits += s.computed;
  }
}

// What every pool of the lane has: a block counts only where all hops have computed it.
Batcher::Matches Batcher::match_prefix(const Sequence& s) const {
  if (!limits_.prefix_cache || s.every_row || s.lengths_only) return {};
  const Lane& lane = lanes_.at(s.lane);
  Matches found(lane.pools.size());
  // The last token is always evaluated, so that there are logits to sample from.
  size_t most = static_cast<size_t>((s.length - 1) / kBlockTokens);
  const std::span<const int32_t> tokens(s.tokens);
  for (size_t i = 0; i < found.size(); ++i) {
    const LanePool& p = lane.pools[i];
    ChainLink link = BlockLedger::root(p.salt == 0 ? s.salt : mix64(s.salt ^ mix64(p.salt)));
    while (found[i].size() < most) {
      const auto match = at(p.pool).ledger.find(
          link, tokens.subspan(found[i].size() * kBlockTokens, kBlockTokens));
      if (!match) break;
      link = match->link;
      found[i].push_back(*match);
    }
    most = found[i].size();
  }
  for (auto& matches : found) matches.resize(most);
  return found;
}

int32_t Batcher::what_blocks(const Sequence& s, const Matches& cached) const {
  const Lane& lane = lanes_.at(s.lane);
  // Every running sequence of a lane gets its decode row in every step.
  if (lane.running.size() >= static_cast<size_t>(limits_.step_tokens)) return kLanePlaces;
  if (running() >= limits_.sequences) return kPlaces;
  for (size_t i = 0; i < lane.pools.size(); ++i) {
    const Pool& pool = at(lane.pools[i].pool);
    if (pool.wanted && *pool.wanted < s.rank) return lane.pools[i].pool;
    const auto is_idle = [&](const auto& m) { return pool.ledger.references(m.block) == 0; };
    int32_t idle = 0, fresh = blocks_for(s.length);
    if (!cached.empty()) {
      idle = static_cast<int32_t>(std::ranges::count_if(cached[i], is_idle));
      fresh -= static_cast<int32_t>(cached[i].size());
    }
    const int64_t spare = static_cast<int64_t>(pool.running.size()) * limits_.spare_blocks;
    if (fresh + spare > pool.ledger.available() - idle) return lane.pools[i].pool;
  }
  return kNothing;
}

int32_t Batcher::provide_blocks(Sequence& s, int32_t to) {
  return s.held >= blocks_for(to) ? to : provide_more_blocks(s, to);
}

int32_t Batcher::provide_more_blocks(Sequence& s, int32_t to) {
  const Lane& lane = lane_of(s);
  const size_t pools = lane.pools.size();
  const int32_t before = s.held, need = blocks_for(to);
  const auto slot = [&](int32_t k, size_t i) -> BlockId& {
    return s.blocks[static_cast<size_t>(k) * pools + i];
  };
  s.blocks.resize(static_cast<size_t>(need) * pools, BlockId(-1));
  for (const LanePool& p : lane.pools) pools_[static_cast<size_t>(p.pool)].ledger.prefetch();
  for (const LanePool& p : lane.pools) pools_[static_cast<size_t>(p.pool)].ledger.prefetch_free();
  int32_t have = need;
  for (size_t i = 0; i < pools; ++i) {
    Pool& pool = at(lane.pools[i].pool);
    int32_t k = before;
    do {
      k += pool.ledger.allocate(need - k, &slot(k, i), pools);
    } while (k < need && preempt_worse_than(s.rank, pool.running));
    have = std::min(have, k);
  }
  for (size_t i = 0; have < need && i < pools; ++i) {  // the pools stay equally full
    for (int32_t k = need; k > have; --k) {
      if (slot(k - 1, i).value >= 0) at(lane.pools[i].pool).ledger.release(slot(k - 1, i));
    }
  }
  s.blocks.resize(static_cast<size_t>(have) * pools);
  s.held = have;
  return std::min(to, have * kBlockTokens);
}

void Batcher::schedule(Sequence& s, int32_t to, Step& step, int32_t& budget) {
  if (to <= s.scheduled) return;  // no block this time
  StepEntry entry;
  entry.seq = s.id;
  entry.place = s.rank.place;
  entry.from = s.scheduled;
  entry.to = to;
  entry.samples = to == s.length + s.expected && s.output() + s.expected < s.max_tokens;
  entry.logits_from = entry.samples ? to - 1 : to;
  if (s.every_row && entry.from < s.prompt) entry.logits_from = entry.from;
  entry.fresh = s.announced == 0;
  announce_blocks(s, entry);
  if (!s.lengths_only) {
    const int32_t known = std::min(to, s.length);
    if (entry.from < known) {
      entry.tokens.assign(s.tokens.begin() + entry.from, s.tokens.begin() + known);
    }
    entry.tokens.resize(static_cast<size_t>(to - entry.from), kPlaceholder);
  }
  s.scheduled = to;
  s.expected += entry.samples ? 1 : 0;
  ++s.flying;
  budget -= to - entry.from;
  step.entries.push_back(std::move(entry));
}

// Those that were not told yet.
void Batcher::announce_blocks(Sequence& s, StepEntry& entry) {
  if (s.announced == s.held) return;
  const size_t pools = s.blocks.size() / static_cast<size_t>(s.held);
  entry.blocks.reserve(static_cast<size_t>(s.held - s.announced) * pools);
  for (size_t i = 0; i < pools; ++i) {
    for (auto k = static_cast<size_t>(s.announced); k < static_cast<size_t>(s.held); ++k) {
      entry.blocks.push_back(s.blocks[k * pools + i]);
    }
  }
  s.announced = s.held;
}

// --- taking blocks back -------------------------------------------------------------------------

bool Batcher::preempt(SeqId id) {
  Sequence* const s = find(id);
  if (s == nullptr || !s->is_running || s->flying > 0) return false;
  preempt(*s);
  return true;
}

void Batcher::preempt(Sequence& s) {
  release_blocks(s);
  enter_waiting(s);
  ++counters_.preemptions;
}

// A running sequence gives back everything it holds and is not running any more.
void Batcher::release_blocks(Sequence& s) {
  Lane& lane = lane_of(s);
  const size_t pools = lane.pools.size();
  // From the back, so that the cache forgets the ends of chains before their beginnings.
  for (const LanePool& p : lane.pools) pools_[static_cast<size_t>(p.pool)].ledger.prefetch();
  for (size_t i = 0; i < pools; ++i) {
    at(lane.pools[i].pool).ledger.release(s.blocks.data() + i, s.held, pools);
  }
  s.blocks.clear();
  s.links.clear();
  s.held = s.computed = s.scheduled = 0;
  if (s.announced > 0) dropped_.push_back(s.id);
  s.announced = 0;
  running_.erase(s.rank);
  for (const LanePool& p : lane.pools) at(p.pool).running.erase(s.rank);
  s.is_running = false;
  lane.running.erase(s.rank);
  refresh_ready(s);
}

void Batcher::end(Sequence& s, EndReason reason) {
  if (s.is_running) {
    release_blocks(s);
  } else if (s.has_lane()) {
    forget_wish(s);
    lane_of(s).waiting.erase(s.rank);
  }
  ended_.push_back({s.id, reason});
  place_of_.erase(s.id);
  free_places_.push_back(s.rank.place);
  s = {};
}

// --- after a step -------------------------------------------------------------------------------

void Batcher::complete(const Step& step, std::span<const Sampled> sampled) {
  if (step.entries.empty()) return;
  Lane& lane = lanes_.at(step.lane);
  size_t next = 0;
  for (const StepEntry& entry : step.entries) {
    Sequence& s = of(entry);
    const Sampled* choice = nullptr;
    if (entry.samples) {
      CHECK(next < sampled.size() && sampled[next].seq == entry.seq, next, entry.seq);
      choice = &sampled[next++];
    }
    counters_.evaluated += entry.to - entry.from;
    settle(s, entry, choice);
    if (s.ending && s.flying == 0) {
      end(s, *s.ending);
    } else if (!s.is_ready && may_step(s)) {
      s.is_ready = true;
      joining_.push_back(s.rank);
    } else {
      refresh_ready(s);
    }
  }
  CHECK(next == sampled.size(), next, sampled.size());
  join_ready(lane, joining_);
}

bool Batcher::can_advance(const Lane& lane, const Step& step) {
  for (const StepEntry& entry : step.entries) {
    const auto place = static_cast<size_t>(entry.place);
    if (place < sequences_.size()) __builtin_prefetch(&sequences_[place]);
  }
  int32_t crossing = 0;
  const Sequence* before = nullptr;
  for (const StepEntry& entry : step.entries) {
    const Sequence& s = of(entry);
    // A decode that is in no other step, will not be the last one, and stands in its rank.
    if (!entry.samples || entry.from < s.prompt || entry.to - entry.from != 1) return false;
    if (!s.lengths_only || s.ending || s.flying != 1) return false;
    if (s.output() + 1 >= s.max_tokens) return false;
    if (before != nullptr && !(before->rank < s.rank)) return false;
    before = &s;
    crossing += s.held < blocks_for(entry.to + 1);
  }
  if (crossing == 0) return true;
  return std::ranges::all_of(lane.pools, [&](const LanePool& p) {
    return at(p.pool).ledger.available() >= crossing;
  });
}

int32_t Batcher::most_entries(const Lane& lane, int32_t parts) const {
  const auto members = static_cast<int32_t>(lane.running.size() + lane.waiting.size());
  return (std::min(members, limits_.sequences) + parts - 1) / parts;
}

int32_t Batcher::most_entries(LaneId lane, int32_t parts) const {
  return most_entries(lanes_.at(lane), parts);
}

bool Batcher::advance(Step& step, int32_t parts) {
  const Lane& lane = lanes_.at(step.lane);
  const auto entries = static_cast<int32_t>(step.entries.size());
  const int32_t most = std::min(std::max(most_entries(lane, parts), 1), limits_.step_tokens);
  const bool others = !lane.ready.empty() || !lane.waiting.empty() || !dropped_.empty();
  if (entries == 0 || entries > most || limits_.placeholders || others ||
      !can_advance(lane, step)) {
    return false;
  }
  counters_.evaluated += entries;
  for (StepEntry& entry : step.entries) {
    Sequence& s = of(entry);
    CHECK(s.computed == entry.from, entry.seq, s.computed, entry.from);
    s.computed = entry.from = entry.logits_from = entry.to;
    ++s.length;
    s.scheduled = provide_blocks(s, ++entry.to);
    entry.fresh = false;
    entry.blocks.clear();
    announce_blocks(s, entry);
  }
  step.dropped.clear();
  step.number = next_step_;
  ++next_step_.value;
  return true;
}

bool Batcher::in_order(const Step& step) const {
  return std::ranges::all_of(step.entries, [&](const StepEntry& entry) {
    const Sequence* const s = find(entry.seq);
    if (s == nullptr || s->flying == 0) return false;
    return s->ending.has_value() || s->computed == entry.from;
  });
}

void Batcher::settle(Sequence& s, const StepEntry& entry, const Sampled* choice) {
  --s.flying;
  s.expected -= entry.samples ? 1 : 0;
  // What a sequence that has ended computed ahead of its end is void.
  if (s.ending) return;
  CHECK(s.computed == entry.from, entry.seq, s.computed, entry.from);
  s.computed = entry.to;
  publish_full_blocks(s);
  if (choice != nullptr && choice->failed) {
    s.ending = EndReason::kFailed;
  } else if (choice != nullptr) {
    if (!s.lengths_only) s.tokens.push_back(choice->token);
    ++s.length;
    if (choice->stop) {
      s.ending = EndReason::kStop;
    } else if (s.output() == s.max_tokens) {
      s.ending = EndReason::kLength;
    }
  } else if (s.max_tokens == 0 && s.computed == s.prompt) {
    s.ending = EndReason::kLength;  // the prompt was all there was to do
  }
}

void Batcher::abort(const Step& step) {
  for (const StepEntry& entry : step.entries) {
    Sequence& s = of(entry);
    counters_.aborted += entry.to - entry.from;
    s.expected -= entry.samples ? 1 : 0;
    s.scheduled = std::min(s.scheduled, std::max(entry.from, s.computed));
    if (--s.flying == 0 && s.ending) {
      end(s, *s.ending);
    } else {
      refresh_ready(s);
    }
  }
}

void Batcher::publish_full_blocks(Sequence& s) {
  if (!limits_.prefix_cache || s.lengths_only) return;
  const Lane& lane = lane_of(s);
  const size_t pools = lane.pools.size();
  const std::span<const int32_t> tokens(s.tokens);
  for (size_t k = s.links.size() / pools;
       (k + 1) * kBlockTokens <= static_cast<size_t>(s.computed); ++k) {
    for (size_t i = 0; i < pools; ++i) {
      const LanePool& p = lane.pools[i];
      const uint64_t salt = p.salt == 0 ? s.salt : mix64(s.salt ^ mix64(p.salt));
      const ChainLink before = k == 0 ? BlockLedger::root(salt) : s.links[(k - 1) * pools + i];
      s.links.push_back(at(p.pool).ledger.publish(
          s.blocks[k * pools + i], before, tokens.subspan(k * kBlockTokens, kBlockTokens)));
    }
  }
}

std::vector<Ended> Batcher::take_ended() { return std::exchange(ended_, {}); }

std::span<const int32_t> Batcher::tokens(SeqId seq) const {
  const Sequence* const s = find(seq);
  return s == nullptr ? std::span<const int32_t>() : s->tokens;
}

int32_t Batcher::length(SeqId seq) const {
  const Sequence* const s = find(seq);
  return s == nullptr ? 0 : s->length;
}

int32_t Batcher::cached_tokens(SeqId seq) const {
  const Sequence* const s = find(seq);
  return s == nullptr ? 0 : s->cached.value_or(0);
}

void Batcher::check_invariants() const {
  std::vector<std::map<BlockId, int32_t>> references(pools_.size());
  std::map<LaneId, size_t> running_in, ready_in;
  CHECK(place_of_.size() + free_places_.size() == sequences_.size(), place_of_.size());
  size_t known = 0;
  for (int32_t place = 0; place < static_cast<int32_t>(sequences_.size()); ++place) {
    const Sequence& s = sequences_[static_cast<size_t>(place)];
    const SeqId id = s.id;
    if (place_of_.find(id) != place) continue;  // a free place
    ++known;
    CHECK(s.rank.place == place, id);
    CHECK(running_.contains(s.rank) == s.is_running, id);
    CHECK(s.is_running || (s.blocks.empty() && s.flying == 0), id);
    CHECK(s.has_lane() || !s.is_running, id);
    CHECK(s.is_ready == may_step(s), id);
    if (!s.has_lane()) continue;
    const Lane& lane = lanes_.at(s.lane);
    CHECK(lane.waiting.contains(s.rank) != s.is_running, id);
    CHECK(std::binary_search(lane.ready.begin(), lane.ready.end(), s.rank) == s.is_ready, id);
    running_in[s.lane] += s.is_running ? 1 : 0;
    ready_in[s.lane] += s.is_ready ? 1 : 0;
    CHECK(s.computed <= s.scheduled && s.scheduled <= s.held * kBlockTokens, id, s.scheduled);
    CHECK(s.computed < s.length || s.ending, id, s.computed);
    CHECK(s.flying > 0 || (s.scheduled == s.computed && s.expected == 0), id, s.scheduled);
    CHECK(s.blocks.size() == static_cast<size_t>(s.held) * lane.pools.size(), id, s.held);
    for (size_t k = 0; k < s.blocks.size(); ++k) {
      const BlockId block = s.blocks[k];
      const LanePool& p = lane.pools[k % lane.pools.size()];
      CHECK(at(p.pool).running.contains(s.rank), id);
      ++references[static_cast<size_t>(p.pool)][block];
      // Whoever may still write a block holds it alone.
      const bool full =
          (k / lane.pools.size() + 1) * kBlockTokens <= static_cast<size_t>(s.computed);
      CHECK(full || at(p.pool).ledger.references(block) == 1, id, block);
    }
  }
  for (size_t i = 0; i < pools_.size(); ++i) {
    pools_[i].ledger.check_invariants();
    for (const auto& [block, count] : references[i]) {
      CHECK(pools_[i].ledger.references(block) == count, block, count);
    }
    CHECK(static_cast<int32_t>(references[i].size()) == pools_[i].ledger.held(), i);
    for (const Rank& rank : pools_[i].running) CHECK(running_.contains(rank), rank.place);
    if (!pools_[i].wanted) continue;
    const Rank& wanted = *pools_[i].wanted;
    CHECK(sequences_[static_cast<size_t>(wanted.place)].rank == wanted, i);
    CHECK(!running_.contains(wanted), i);
  }
  CHECK(known == place_of_.size(), known);
  lanes_.for_each([&](LaneId id, const Lane& lane) {
    CHECK(lane.running.size() == running_in[id], id);
    CHECK(lane.ready.size() == ready_in[id], id);
  });
}

}  // namespace towline::policy
