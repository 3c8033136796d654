// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Batcher: which tokens of which sequences the engine evaluates next.
//
// Continuous batching with a token budget. A step is filled in this order:
//   1. one token of every sequence that is generating ("decode first": nobody who is reading a
//      stream waits for somebody else's prompt),
//   2. the next pieces of prompts already begun,
//   3. waiting sequences, best rank first, as far as places, budget and KV blocks go.
// Rank is (priority, arrival): lower is better. A sequence that needs a KV block when none is left
// takes it from the worst-ranked one, which is preempted: its blocks go, its tokens stay, and it is
// evaluated again later (the engine gives the same bits, so nobody can tell; blocks that survived
// in the prefix cache are not even recomputed). A waiting sequence of strictly better priority
// preempts running ones as well.
//
// Guarantees (property-tested): a step holds at most `step_tokens` tokens and a sequence at most
// once; no block is written by two sequences; every sequence added ends exactly once; while one
// is unfinished and no step is in flight, next_step() is not empty.
//
// Several steps may be in flight (a pipeline): a sequence is in at most one of them.
//
// A pure machine: no clock, no I/O, integers only; copyable. The caller runs
//   add / cancel -> next_step() -> evaluate -> complete() -> take_ended().
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "policy/block_ledger.hpp"

namespace towline::policy {

struct BatcherLimits {
  int32_t step_tokens = 512;   // rows a step, at most
  int32_t sequences = 64;      // running at the same time, at most
  int32_t chunk_tokens = 512;  // of one prompt in one step, at most
  bool prefix_cache = true;
};

struct SequenceSpec {
  SeqId id;
  std::vector<int32_t> prompt;  // at least one token
  int32_t max_tokens = 16;      // output tokens; 0: the prompt is only evaluated
  int32_t priority = 0;         // lower first
  // Every row of the prompt yields logits (or must be seen), so nothing may come from the cache.
  bool every_row = false;
  uint64_t cache_salt = 0;      // sequences of different salts never share KV blocks
};

// A run of rows of one sequence.
struct StepEntry {
  SeqId seq;
  int32_t from = 0, to = 0;      // positions [from, to)
  int32_t logits_from = 0;       // rows [logits_from, to) yield logits; == to: none
  bool samples = false;          // the last row's logits choose the next token
  bool fresh = false;            // first entry since (re-)admission: `blocks` is the whole table
  std::vector<BlockId> blocks;   // appended to the sequence's block table
  std::vector<int32_t> tokens;   // the tokens at [from, to)
  friend bool operator==(const StepEntry&, const StepEntry&) = default;
};

struct Step {
  StepNo number;
  std::vector<StepEntry> entries;
  // Sequences whose block tables are void since the step before: ended or preempted.
  std::vector<SeqId> dropped;
  int32_t rows() const;
  bool empty() const { return entries.empty(); }
  friend bool operator==(const Step&, const Step&) = default;
};

// What evaluating an entry with `samples` gave.
struct Sampled {
  SeqId seq;
  int32_t token = 0;
  bool stop = false;   // the caller's rule: this token ends the sequence
  bool failed = false; // no token could be drawn; ends the sequence with kFailed
};

enum class EndReason { kStop, kLength, kCancelled, kFailed };
struct Ended {
  SeqId seq;
  EndReason reason;
};

class Batcher {
 public:
  Batcher(BatcherLimits limits, int32_t blocks);

  // Refuses an empty prompt, a duplicate id, or what could not run even alone.
  Result<void> add(SequenceSpec spec);
  // Ends now, or when the step it is in completes. Unknown ids are ignored.
  void cancel(SeqId seq);

  Step next_step();
  // The step was evaluated. `sampled` has one item for each of its entries with `samples`.
  void complete(const Step& step, std::span<const Sampled> sampled);
  // Sequences that ended since the last call, in order; each appears once, ever.
  std::vector<Ended> take_ended();

  bool idle() const { return sequences_.empty(); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  const BlockLedger& ledger() const { return ledger_; }
  // Prompt and output so far; empty if unknown.
  std::span<const int32_t> tokens(SeqId seq) const;
  // Prompt tokens that came from the prefix cache at first admission.
  int32_t cached_tokens(SeqId seq) const;

  struct Counters {
    int64_t preemptions = 0;
    int64_t prefix_queries = 0;  // tokens looked up at admission
    int64_t prefix_hits = 0;     // tokens found
    int64_t evaluated = 0;       // rows completed
  };
  const Counters& counters() const { return counters_; }

  // Preempts a running sequence that is in no step, as if its blocks were needed. For tests and
  // for swapping. False if it is not running or in flight.
  bool preempt(SeqId seq);

  void check_invariants() const;  // for tests

 private:
  struct Rank {
    int32_t priority = 0;
    int64_t arrival = 0;
    SeqId seq;
    friend auto operator<=>(const Rank&, const Rank&) = default;
  };
  struct Sequence {
    Rank rank;
    std::vector<int32_t> tokens;      // prompt, then output
    int32_t prompt = 0;
    int32_t max_tokens = 0;
    bool every_row = false;
    uint64_t salt = 0;
    int32_t computed = 0;             // rows whose KV exists
    std::vector<BlockId> blocks;
    std::vector<ChainLink> links;     // of the leading full blocks
    int32_t announced = 0;            // blocks already told in a step
    bool is_running = false, in_flight = false, cancelled = false;
    std::optional<int32_t> cached;    // at first admission
    int32_t length() const { return static_cast<int32_t>(tokens.size()); }
    int32_t output() const { return length() - prompt; }
    int32_t pending() const { return length() - computed; }
  };

  static int32_t blocks_for(int64_t tokens) {
    return static_cast<int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
  }
  void yield_to_priority();
  bool admit_next(Step& step, int32_t& budget);
  std::vector<BlockLedger::Match> match_prefix(const Sequence& s) const;
  bool can_admit(const Sequence& s, std::span<const BlockLedger::Match> cached) const;
  // Blocks for rows [0, to); takes them from worse-ranked sequences that are not in this step.
  // Returns the rows that have a block afterwards (may be less than `to`).
  int32_t provide_blocks(Sequence& s, int32_t to);
  bool preempt_worse_than(const Rank& rank);
  void preempt(Sequence& s);
  void release_blocks(Sequence& s);
  void schedule(Sequence& s, int32_t to, Step& step, int32_t& budget);
  void publish_full_blocks(Sequence& s);
  void end(SeqId seq, EndReason reason);

  BatcherLimits limits_;
  BlockLedger ledger_;
  std::map<SeqId, Sequence> sequences_;
  std::set<Rank> waiting_, running_;
  std::vector<SeqId> dropped_;
  std::vector<Ended> ended_;
  int64_t next_arrival_ = 0;
  StepNo next_step_{0};
  Counters counters_;
};

}  // namespace towline::policy
