// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/batcher.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::policy {

int32_t Step::rows() const {
  int32_t rows = 0;
  for (const StepEntry& entry : entries) rows += entry.to - entry.from;
  return rows;
}

Batcher::Batcher(BatcherLimits limits, int32_t blocks) : limits_(limits), ledger_(blocks) {
  limits_.step_tokens = std::max(limits_.step_tokens, 1);
  limits_.chunk_tokens = std::max(limits_.chunk_tokens, 1);
  // Every running sequence gets its decode row in every step.
  limits_.sequences = std::clamp(limits_.sequences, 1, limits_.step_tokens);
}

Result<void> Batcher::add(SequenceSpec spec) {
  if (spec.prompt.empty()) {
    return Error(Code::kInvalidArgument, "the prompt is empty; it needs at least one token");
  }
  if (spec.max_tokens < 0) {
    return errorf(Code::kInvalidArgument, "max_tokens is {}; it must not be negative",
                  spec.max_tokens);
  }
  if (sequences_.contains(spec.id)) {
    return errorf(Code::kAlreadyExists, "sequence {} exists already", spec.id);
  }
  // The last output token is never evaluated, so it needs no place.
  const int64_t places =
      static_cast<int64_t>(spec.prompt.size()) + std::max(spec.max_tokens - 1, 0);
  if (places > int64_t{ledger_.total()} * kBlockTokens) {
    return errorf(Code::kInvalidArgument,
                  "prompt ({}) and output ({}) need {} tokens of KV cache, which holds {}; "
                  "shorten the request or give the cache more memory",
                  spec.prompt.size(), spec.max_tokens, places,
                  int64_t{ledger_.total()} * kBlockTokens);
  }
  Sequence s;
  s.rank = {spec.priority, next_arrival_++, spec.id};
  s.prompt = static_cast<int32_t>(spec.prompt.size());
  s.tokens = std::move(spec.prompt);
  s.max_tokens = spec.max_tokens;
  s.every_row = spec.every_row;
  s.salt = spec.cache_salt;
  waiting_.insert(s.rank);
  sequences_.emplace(spec.id, std::move(s));
  return {};
}

void Batcher::cancel(SeqId id) {
  const auto at = sequences_.find(id);
  if (at == sequences_.end()) return;
  if (at->second.in_flight) {
    at->second.cancelled = true;
  } else {
    end(id, EndReason::kCancelled);
  }
}

// --- forming a step -----------------------------------------------------------------------------

Step Batcher::next_step() {
  Step step;
  step.number = next_step_;
  int32_t budget = limits_.step_tokens;
  yield_to_priority();
  // A copy of the ranks: providing blocks preempts worse-ranked members of running_.
  const std::vector<Rank> ranks(running_.begin(), running_.end());
  for (const bool decode : {true, false}) {
    for (const Rank& rank : ranks) {
      Sequence& s = sequences_.at(rank.seq);
      if (budget == 0) break;
      if (!s.is_running || s.in_flight || (s.pending() == 1) != decode) continue;
      const int32_t rows = std::min({s.pending(), budget, limits_.chunk_tokens});
      schedule(s, provide_blocks(s, s.computed + rows), step, budget);
    }
  }
  while (budget > 0 && admit_next(step, budget)) {
  }
  step.dropped = std::exchange(dropped_, {});
  if (!step.entries.empty() || !step.dropped.empty()) ++next_step_.value;
  return step;
}

void Batcher::yield_to_priority() {
  while (!waiting_.empty() && !running_.empty()) {
    const Rank& best = *waiting_.begin();
    if (best.priority >= running_.rbegin()->priority) return;
    const Sequence& candidate = sequences_.at(best.seq);
    if (running() < limits_.sequences && can_admit(candidate, match_prefix(candidate))) return;
    // Only strictly worse priorities give way; equal ones keep their places.
    if (!preempt_worse_than({best.priority + 1, -1, SeqId(0)})) return;
  }
}

bool Batcher::admit_next(Step& step, int32_t& budget) {
  if (waiting_.empty() || running() >= limits_.sequences) return false;
  Sequence& s = sequences_.at(waiting_.begin()->seq);
  const std::vector<BlockLedger::Match> cached = match_prefix(s);
  if (!can_admit(s, cached)) return false;  // those behind it wait too: nobody starves
  for (const BlockLedger::Match& match : cached) {
    ledger_.retain(match.block);
    s.blocks.push_back(match.block);
    s.links.push_back(match.link);
  }
  s.computed = static_cast<int32_t>(cached.size()) * kBlockTokens;
  if (!s.cached) s.cached = s.computed;
  if (limits_.prefix_cache && !s.every_row) {
    counters_.prefix_queries += s.length();
    counters_.prefix_hits += s.computed;
  }
  waiting_.erase(s.rank);
  running_.insert(s.rank);
  s.is_running = true;
  const int32_t rows = std::min({s.pending(), budget, limits_.chunk_tokens});
  schedule(s, provide_blocks(s, s.computed + rows), step, budget);
  return true;
}

std::vector<BlockLedger::Match> Batcher::match_prefix(const Sequence& s) const {
  std::vector<BlockLedger::Match> found;
  if (!limits_.prefix_cache || s.every_row) return found;
  // The last token is always evaluated, so that there are logits to sample from.
  const int32_t most = (s.length() - 1) / kBlockTokens;
  ChainLink link = BlockLedger::root(s.salt);
  const std::span<const int32_t> tokens(s.tokens);
  for (int32_t i = 0; i < most; ++i) {
    const auto match =
        ledger_.find(link, tokens.subspan(static_cast<size_t>(i) * kBlockTokens, kBlockTokens));
    if (!match) break;
    link = match->link;
    found.push_back(*match);
  }
  return found;
}

bool Batcher::can_admit(const Sequence& s, std::span<const BlockLedger::Match> cached) const {
  const auto is_idle = [&](const auto& match) { return ledger_.references(match.block) == 0; };
  const auto idle = static_cast<int32_t>(std::ranges::count_if(cached, is_idle));
  const int32_t fresh = blocks_for(s.length()) - static_cast<int32_t>(cached.size());
  // A spare block for each running sequence, lest the newcomer be preempted at once.
  return fresh + running() <= ledger_.available() - idle;
}

int32_t Batcher::provide_blocks(Sequence& s, int32_t to) {
  const auto have = [&] { return static_cast<int32_t>(s.blocks.size()) * kBlockTokens; };
  while (have() < to) {
    if (const std::optional<BlockId> block = ledger_.allocate()) {
      s.blocks.push_back(*block);
    } else if (!preempt_worse_than(s.rank)) {
      break;
    }
  }
  return std::min(to, have());
}

void Batcher::schedule(Sequence& s, int32_t to, Step& step, int32_t& budget) {
  if (to <= s.computed) return;  // no block this time
  StepEntry entry;
  entry.seq = s.rank.seq;
  entry.from = s.computed;
  entry.to = to;
  entry.samples = to == s.length() && s.output() < s.max_tokens;
  entry.logits_from = entry.samples ? to - 1 : to;
  if (s.every_row && entry.from < s.prompt) entry.logits_from = entry.from;
  entry.fresh = s.announced == 0;
  entry.blocks.assign(s.blocks.begin() + s.announced, s.blocks.end());
  entry.tokens.assign(s.tokens.begin() + entry.from, s.tokens.begin() + to);
  s.announced = static_cast<int32_t>(s.blocks.size());
  s.in_flight = true;
  budget -= to - entry.from;
  step.entries.push_back(std::move(entry));
}

// --- taking blocks back -------------------------------------------------------------------------

bool Batcher::preempt_worse_than(const Rank& rank) {
  for (auto at = running_.rbegin(); at != running_.rend() && rank < *at; ++at) {
    Sequence& victim = sequences_.at(at->seq);
    if (victim.in_flight) continue;
    preempt(victim);
    return true;
  }
  return false;
}

bool Batcher::preempt(SeqId id) {
  const auto at = sequences_.find(id);
  if (at == sequences_.end() || !at->second.is_running || at->second.in_flight) return false;
  preempt(at->second);
  return true;
}

void Batcher::preempt(Sequence& s) {
  release_blocks(s);
  running_.erase(s.rank);
  waiting_.insert(s.rank);
  s.is_running = false;
  ++counters_.preemptions;
}

void Batcher::release_blocks(Sequence& s) {
  // From the back, so that the cache forgets the ends of chains before their beginnings.
  for (size_t i = s.blocks.size(); i > 0; --i) ledger_.release(s.blocks[i - 1]);
  s.blocks.clear();
  s.links.clear();
  s.computed = 0;
  if (s.announced > 0) dropped_.push_back(s.rank.seq);
  s.announced = 0;
}

void Batcher::end(SeqId id, EndReason reason) {
  const auto at = sequences_.find(id);
  release_blocks(at->second);
  (at->second.is_running ? running_ : waiting_).erase(at->second.rank);
  sequences_.erase(at);
  ended_.push_back({id, reason});
}

// --- after a step -------------------------------------------------------------------------------

void Batcher::complete(const Step& step, std::span<const Sampled> sampled) {
  size_t next = 0;
  for (const StepEntry& entry : step.entries) {
    const auto at = sequences_.find(entry.seq);
    CHECK(at != sequences_.end() && at->second.in_flight, entry.seq);
    Sequence& s = at->second;
    CHECK(s.computed == entry.from, entry.seq, s.computed, entry.from);
    s.in_flight = false;
    s.computed = entry.to;
    counters_.evaluated += entry.to - entry.from;
    publish_full_blocks(s);
    const Sampled* choice = nullptr;
    if (entry.samples) {
      CHECK(next < sampled.size() && sampled[next].seq == entry.seq, next, entry.seq);
      choice = &sampled[next++];
    }
    if (s.cancelled) {
      end(entry.seq, EndReason::kCancelled);
    } else if (choice != nullptr && choice->failed) {
      end(entry.seq, EndReason::kFailed);
    } else if (choice != nullptr) {
      s.tokens.push_back(choice->token);
      if (choice->stop) {
        end(entry.seq, EndReason::kStop);
      } else if (s.output() == s.max_tokens) {
        end(entry.seq, EndReason::kLength);
      }
    } else if (s.pending() == 0) {  // max_tokens == 0: the prompt was all there was to do
      end(entry.seq, EndReason::kLength);
    }
  }
  CHECK(next == sampled.size(), next, sampled.size());
}

void Batcher::publish_full_blocks(Sequence& s) {
  if (!limits_.prefix_cache) return;
  const std::span<const int32_t> tokens(s.tokens);
  for (size_t i = s.links.size(); (i + 1) * kBlockTokens <= static_cast<size_t>(s.computed); ++i) {
    const ChainLink before = i == 0 ? BlockLedger::root(s.salt) : s.links[i - 1];
    s.links.push_back(
        ledger_.publish(s.blocks[i], before, tokens.subspan(i * kBlockTokens, kBlockTokens)));
  }
}

std::vector<Ended> Batcher::take_ended() { return std::exchange(ended_, {}); }

std::span<const int32_t> Batcher::tokens(SeqId seq) const {
  const auto at = sequences_.find(seq);
  return at == sequences_.end() ? std::span<const int32_t>() : at->second.tokens;
}

int32_t Batcher::cached_tokens(SeqId seq) const {
  const auto at = sequences_.find(seq);
  return at == sequences_.end() ? 0 : at->second.cached.value_or(0);
}

void Batcher::check_invariants() const {
  ledger_.check_invariants();
  std::map<BlockId, int32_t> references;
  for (const auto& [id, s] : sequences_) {
    CHECK(s.rank.seq == id, id);
    CHECK((running_.contains(s.rank) ? 1 : 0) == (s.is_running ? 1 : 0), id);
    CHECK((waiting_.contains(s.rank) ? 0 : 1) == (s.is_running ? 1 : 0), id);
    CHECK(s.is_running || (s.blocks.empty() && !s.in_flight), id);
    CHECK(s.computed <= static_cast<int32_t>(s.blocks.size()) * kBlockTokens, id, s.computed);
    CHECK(s.computed < s.length(), id, s.computed);
    for (size_t i = 0; i < s.blocks.size(); ++i) {
      ++references[s.blocks[i]];
      // Whoever may still write a block holds it alone.
      const bool full = (i + 1) * kBlockTokens <= static_cast<size_t>(s.computed);
      CHECK(full || ledger_.references(s.blocks[i]) == 1, id, s.blocks[i]);
    }
  }
  int32_t held = 0;
  for (const auto& [block, count] : references) {
    CHECK(ledger_.references(block) == count, block, count);
    ++held;
  }
  CHECK(held == ledger_.held(), held, ledger_.held());
  CHECK(running_.size() + waiting_.size() == sequences_.size(), sequences_.size());
}

}  // namespace towline::policy
