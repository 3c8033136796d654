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
  lanes_[id].pools = std::move(pools);
  return id;
}

std::vector<SeqId> Batcher::close_lane(LaneId id) {
  const auto lane = lanes_.find(id);
  CHECK(lane != lanes_.end(), id);
  std::set<Rank> members = lane->second.waiting;
  members.insert(lane->second.running.begin(), lane->second.running.end());
  std::vector<SeqId> orphans;
  for (const Rank& rank : members) {
    Sequence& s = sequences_.at(rank.seq);
    CHECK(s.flying == 0, rank.seq, s.flying);
    leave_lane(s);
    orphans.push_back(rank.seq);
  }
  lanes_.erase(lane);
  return orphans;
}

int32_t Batcher::sequences_of(LaneId lane) const {
  const auto found = lanes_.find(lane);
  if (found == lanes_.end()) return 0;
  return static_cast<int32_t>(found->second.running.size() + found->second.waiting.size());
}

int32_t Batcher::ready(LaneId lane) const {
  const auto found = lanes_.find(lane);
  return found == lanes_.end() ? 0 : static_cast<int32_t>(found->second.ready.size());
}

int32_t Batcher::waiting(LaneId lane) const {
  const auto found = lanes_.find(lane);
  return found == lanes_.end() ? 0 : static_cast<int32_t>(found->second.waiting.size());
}

Result<void> Batcher::move(SeqId seq, LaneId lane) {
  const auto found = sequences_.find(seq);
  CHECK(found != sequences_.end() && found->second.flying == 0, seq);
  Sequence& s = found->second;
  TRY(check_fits(s.prompt, s.max_tokens, lane));
  leave_lane(s);
  s.lane = lane;
  enter_waiting(s);
  return {};
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
  const auto found = lanes_.find(lane);
  if (found == lanes_.end()) return errorf(Code::kUnavailable, "lane {} is closed", lane);
  // The last output token is never evaluated, so it needs no place.
  const int64_t places = prompt + std::max(max_tokens - 1, 0);
  for (const LanePool& p : found->second.pools) {
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
  if (sequences_.contains(spec.id)) {
    return errorf(Code::kAlreadyExists, "sequence {} exists already", spec.id);
  }
  TRY(check_fits(prompt, spec.max_tokens, spec.lane));
  Sequence s;
  s.rank = {spec.priority, next_arrival_++, spec.id};
  s.lane = spec.lane;
  s.prompt = s.length = static_cast<int32_t>(prompt);
  s.tokens = std::move(spec.prompt);
  s.max_tokens = spec.max_tokens;
  s.every_row = spec.every_row;
  s.lengths_only = lengths_only;
  s.salt = spec.cache_salt;
  enter_waiting(sequences_.emplace(spec.id, std::move(s)).first->second);
  return {};
}

void Batcher::cancel(SeqId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  Sequence& s = found->second;
  if (s.flying == 0) {
    end(id, EndReason::kCancelled);
  } else if (!s.ending) {
    s.ending = EndReason::kCancelled;
    refresh_ready(s);
  }
}

int32_t Batcher::horizon(const Sequence& s) const {
  const int32_t known = s.length + (limits_.placeholders ? s.expected : 0);
  const int32_t last = s.prompt + std::max(s.max_tokens - 1, 0);
  return std::min(known, last);
}

// Keeps Lane::ready exact; called after whatever may change it.
void Batcher::refresh_ready(const Sequence& s) {
  const bool ready = s.is_running && !s.ending && s.flying <= limits_.ahead &&
                     s.scheduled < horizon(s);
  std::set<Rank>& set = lanes_.at(s.lane).ready;
  if (ready) {
    set.insert(s.rank);
  } else {
    set.erase(s.rank);
  }
}

// --- forming a step -----------------------------------------------------------------------------

Step Batcher::next_step(LaneId id, int32_t most_entries) {
  const auto found = lanes_.find(id);
  CHECK(found != lanes_.end(), id);
  Lane& lane = found->second;
  Step step;
  step.number = next_step_;
  step.lane = id;
  int32_t budget = limits_.step_tokens;
  const auto full = [&] {
    return budget == 0 || step.entries.size() >= static_cast<size_t>(std::max(most_entries, 1));
  };
  yield_to_priority(lane);
  // A copy of the ranks: providing blocks preempts worse-ranked members of the set.
  const std::vector<Rank> ranks(lane.ready.begin(), lane.ready.end());
  for (const bool decode : {true, false}) {
    for (const Rank& rank : ranks) {
      if (full()) break;
      Sequence& s = sequences_.at(rank.seq);
      if (!lane.ready.contains(rank)) continue;  // preempted meanwhile
      if ((horizon(s) - s.scheduled == 1) != decode) continue;
      const int32_t rows = std::min({horizon(s) - s.scheduled, budget, limits_.chunk_tokens});
      schedule(s, provide_blocks(s, s.scheduled + rows), step, budget);
    }
  }
  while (!full() && admit_next(lane, step, budget)) {
  }
  step.dropped = std::exchange(dropped_, {});
  if (!step.entries.empty() || !step.dropped.empty()) ++next_step_.value;
  return step;
}

void Batcher::yield_to_priority(Lane& lane) {
  while (!lane.waiting.empty() && !running_.empty()) {
    const Rank& best = *lane.waiting.begin();
    if (best.priority >= running_.rbegin()->priority) return;
    const Sequence& candidate = sequences_.at(best.seq);
    const int32_t blocked = what_blocks(candidate, match_prefix(candidate));
    if (blocked == kNothing) return;
    // Only strictly worse priorities give way; equal ones keep their places.
    const Rank limit{best.priority + 1, -1, SeqId(0)};
    const std::set<Rank>& among = blocked == kPlaces       ? running_
                                  : blocked == kLanePlaces ? lane.running
                                                           : at(blocked).running;
    if (!preempt_worse_than(limit, among)) return;
  }
}

bool Batcher::admit_next(Lane& lane, Step& step, int32_t& budget) {
  if (lane.waiting.empty()) return false;
  Sequence& s = sequences_.at(lane.waiting.begin()->seq);
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
  s.tables.resize(lane.pools.size());
  for (size_t i = 0; i < lane.pools.size(); ++i) {
    for (const BlockLedger::Match& match : cached[i]) {
      at(lane.pools[i].pool).ledger.retain(match.block);
      s.tables[i].blocks.push_back(match.block);
      s.tables[i].links.push_back(match.link);
    }
  }
  s.computed = s.scheduled = static_cast<int32_t>(cached.front().size()) * kBlockTokens;
  if (!s.cached) s.cached = s.computed;
  if (limits_.prefix_cache && !s.every_row && !s.lengths_only) {
    counters_.prefix_queries += s.length;
    counters_.prefix_hits += s.computed;
  }
}

// What every pool of the lane has: a block counts only where all hops have computed it.
Batcher::Matches Batcher::match_prefix(const Sequence& s) const {
  const Lane& lane = lanes_.at(s.lane);
  Matches found(lane.pools.size());
  if (!limits_.prefix_cache || s.every_row || s.lengths_only) return found;
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
    const auto idle = static_cast<int32_t>(std::ranges::count_if(cached[i], is_idle));
    const int32_t fresh = blocks_for(s.length) - static_cast<int32_t>(cached[i].size());
    // A spare block for each running sequence, lest the newcomer be preempted at once.
    const auto spare = static_cast<int32_t>(pool.running.size());
    if (fresh + spare > pool.ledger.available() - idle) return lane.pools[i].pool;
  }
  return kNothing;
}

int32_t Batcher::provide_blocks(Sequence& s, int32_t to) {
  const Lane& lane = lane_of(s);
  const int32_t before = s.held();
  const int32_t need = blocks_for(to);
  if (before >= need) return to;
  int32_t have = need;
  for (size_t i = 0; i < lane.pools.size(); ++i) {
    Pool& pool = at(lane.pools[i].pool);
    std::vector<BlockId>& blocks = s.tables[i].blocks;
    while (static_cast<int32_t>(blocks.size()) < need) {
      if (const std::optional<BlockId> block = pool.ledger.allocate()) {
        blocks.push_back(*block);
      } else if (!preempt_worse_than(s.rank, pool.running)) {
        break;
      }
    }
    have = std::min(have, static_cast<int32_t>(blocks.size()));
  }
  have = std::max(have, before);
  for (size_t i = 0; i < lane.pools.size(); ++i) {  // the tables stay equally long
    std::vector<BlockId>& blocks = s.tables[i].blocks;
    while (static_cast<int32_t>(blocks.size()) > have) {
      at(lane.pools[i].pool).ledger.release(blocks.back());
      blocks.pop_back();
    }
  }
  return std::min(to, have * kBlockTokens);
}

void Batcher::schedule(Sequence& s, int32_t to, Step& step, int32_t& budget) {
  if (to <= s.scheduled) return;  // no block this time
  StepEntry entry;
  entry.seq = s.rank.seq;
  entry.from = s.scheduled;
  entry.to = to;
  entry.samples = to == s.length + s.expected && s.output() + s.expected < s.max_tokens;
  entry.logits_from = entry.samples ? to - 1 : to;
  if (s.every_row && entry.from < s.prompt) entry.logits_from = entry.from;
  entry.fresh = s.announced == 0;
  for (const Table& table : s.tables) {
    entry.blocks.insert(entry.blocks.end(), table.blocks.begin() + s.announced,
                        table.blocks.end());
  }
  if (!s.lengths_only) {
    const int32_t known = std::min(to, s.length);
    if (entry.from < known) {
      entry.tokens.assign(s.tokens.begin() + entry.from, s.tokens.begin() + known);
    }
    entry.tokens.resize(static_cast<size_t>(to - entry.from), kPlaceholder);
  }
  s.announced = s.held();
  s.scheduled = to;
  s.expected += entry.samples ? 1 : 0;
  ++s.flying;
  refresh_ready(s);
  budget -= to - entry.from;
  step.entries.push_back(std::move(entry));
}

// --- taking blocks back -------------------------------------------------------------------------

bool Batcher::preempt_worse_than(const Rank& rank, const std::set<Rank>& among) {
  for (auto worst = among.rbegin(); worst != among.rend() && rank < *worst; ++worst) {
    Sequence& victim = sequences_.at(worst->seq);
    if (victim.flying > 0) continue;
    preempt(victim);
    return true;
  }
  return false;
}

bool Batcher::preempt(SeqId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || !found->second.is_running || found->second.flying > 0) {
    return false;
  }
  preempt(found->second);
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
  for (size_t i = 0; i < s.tables.size(); ++i) {
    BlockLedger& ledger = at(lane.pools[i].pool).ledger;
    const std::vector<BlockId>& blocks = s.tables[i].blocks;
    // From the back, so that the cache forgets the ends of chains before their beginnings.
    for (size_t k = blocks.size(); k > 0; --k) ledger.release(blocks[k - 1]);
  }
  s.tables.clear();
  s.computed = s.scheduled = 0;
  if (s.announced > 0) dropped_.push_back(s.rank.seq);
  s.announced = 0;
  running_.erase(s.rank);
  for (const LanePool& p : lane.pools) at(p.pool).running.erase(s.rank);
  s.is_running = false;
  lane.running.erase(s.rank);
  lane.ready.erase(s.rank);
}

void Batcher::end(SeqId id, EndReason reason) {
  const auto found = sequences_.find(id);
  Sequence& s = found->second;
  if (s.is_running) {
    release_blocks(s);
  } else if (s.has_lane()) {
    forget_wish(s);
    lane_of(s).waiting.erase(s.rank);
  }
  sequences_.erase(found);
  ended_.push_back({id, reason});
}

// --- after a step -------------------------------------------------------------------------------

void Batcher::complete(const Step& step, std::span<const Sampled> sampled) {
  size_t next = 0;
  for (const StepEntry& entry : step.entries) {
    const auto found = sequences_.find(entry.seq);
    CHECK(found != sequences_.end() && found->second.flying > 0, entry.seq);
    const Sampled* choice = nullptr;
    if (entry.samples) {
      CHECK(next < sampled.size() && sampled[next].seq == entry.seq, next, entry.seq);
      choice = &sampled[next++];
    }
    counters_.evaluated += entry.to - entry.from;
    settle(found->second, entry, choice);
  }
  CHECK(next == sampled.size(), next, sampled.size());
}

bool Batcher::in_order(const Step& step) const {
  return std::ranges::all_of(step.entries, [&](const StepEntry& entry) {
    const auto found = sequences_.find(entry.seq);
    if (found == sequences_.end() || found->second.flying == 0) return false;
    return found->second.ending.has_value() || found->second.computed == entry.from;
  });
}

void Batcher::settle(Sequence& s, const StepEntry& entry, const Sampled* choice) {
  --s.flying;
  s.expected -= entry.samples ? 1 : 0;
  // What a sequence that has ended computed ahead of its end is void.
  if (!s.ending) {
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
  if (s.ending && s.flying == 0) {
    end(entry.seq, *s.ending);
  } else {
    refresh_ready(s);
  }
}

void Batcher::abort(const Step& step) {
  for (const StepEntry& entry : step.entries) {
    const auto found = sequences_.find(entry.seq);
    CHECK(found != sequences_.end() && found->second.flying > 0, entry.seq);
    Sequence& s = found->second;
    counters_.aborted += entry.to - entry.from;
    s.expected -= entry.samples ? 1 : 0;
    s.scheduled = std::min(s.scheduled, std::max(entry.from, s.computed));
    if (--s.flying == 0 && s.ending) {
      end(entry.seq, *s.ending);
    } else {
      refresh_ready(s);
    }
  }
}

void Batcher::publish_full_blocks(Sequence& s) {
  if (!limits_.prefix_cache || s.lengths_only) return;
  const Lane& lane = lane_of(s);
  const std::span<const int32_t> tokens(s.tokens);
  for (size_t i = 0; i < s.tables.size(); ++i) {
    const LanePool& p = lane.pools[i];
    Table& table = s.tables[i];
    for (size_t k = table.links.size();
         (k + 1) * kBlockTokens <= static_cast<size_t>(s.computed); ++k) {
      const uint64_t salt = p.salt == 0 ? s.salt : mix64(s.salt ^ mix64(p.salt));
      const ChainLink before = k == 0 ? BlockLedger::root(salt) : table.links[k - 1];
      table.links.push_back(at(p.pool).ledger.publish(
          table.blocks[k], before, tokens.subspan(k * kBlockTokens, kBlockTokens)));
    }
  }
}

std::vector<Ended> Batcher::take_ended() { return std::exchange(ended_, {}); }

std::span<const int32_t> Batcher::tokens(SeqId seq) const {
  const auto found = sequences_.find(seq);
  return found == sequences_.end() ? std::span<const int32_t>() : found->second.tokens;
}

int32_t Batcher::length(SeqId seq) const {
  const auto found = sequences_.find(seq);
  return found == sequences_.end() ? 0 : found->second.length;
}

int32_t Batcher::cached_tokens(SeqId seq) const {
  const auto found = sequences_.find(seq);
  return found == sequences_.end() ? 0 : found->second.cached.value_or(0);
}

void Batcher::check_invariants() const {
  std::vector<std::map<BlockId, int32_t>> references(pools_.size());
  std::map<LaneId, size_t> running_in;
  for (const auto& [id, s] : sequences_) {
    CHECK(s.rank.seq == id, id);
    CHECK(running_.contains(s.rank) == s.is_running, id);
    CHECK(s.is_running || (s.tables.empty() && s.flying == 0), id);
    CHECK(s.has_lane() || !s.is_running, id);
    if (!s.has_lane()) continue;
    const Lane& lane = lanes_.at(s.lane);
    CHECK(lane.waiting.contains(s.rank) != s.is_running, id);
    CHECK(lane.ready.contains(s.rank) ==
              (s.is_running && !s.ending && s.flying <= limits_.ahead && s.scheduled < horizon(s)),
          id);
    running_in[s.lane] += s.is_running ? 1 : 0;
    CHECK(s.computed <= s.scheduled && s.scheduled <= s.held() * kBlockTokens, id, s.scheduled);
    CHECK(s.computed < s.length || s.ending, id, s.computed);
    CHECK(s.flying > 0 || (s.scheduled == s.computed && s.expected == 0), id, s.scheduled);
    for (size_t i = 0; i < s.tables.size(); ++i) {
      const Pool& pool = at(lane.pools[i].pool);
      CHECK(pool.running.contains(s.rank), id);
      CHECK(static_cast<int32_t>(s.tables[i].blocks.size()) == s.held(), id);
      for (size_t k = 0; k < s.tables[i].blocks.size(); ++k) {
        const BlockId block = s.tables[i].blocks[k];
        ++references[static_cast<size_t>(lane.pools[i].pool)][block];
        // Whoever may still write a block holds it alone.
        const bool full = (k + 1) * kBlockTokens <= static_cast<size_t>(s.computed);
        CHECK(full || pool.ledger.references(block) == 1, id, block);
      }
    }
  }
  for (size_t i = 0; i < pools_.size(); ++i) {
    pools_[i].ledger.check_invariants();
    for (const auto& [block, count] : references[i]) {
      CHECK(pools_[i].ledger.references(block) == count, block, count);
    }
    CHECK(static_cast<int32_t>(references[i].size()) == pools_[i].ledger.held(), i);
    for (const Rank& rank : pools_[i].running) CHECK(running_.contains(rank), rank.seq);
    if (pools_[i].wanted) {
      CHECK(sequences_.contains(pools_[i].wanted->seq) && !running_.contains(*pools_[i].wanted), i);
    }
  }
  for (const auto& [id, lane] : lanes_) CHECK(lane.running.size() == running_in[id], id);
}

}  // namespace towline::policy
