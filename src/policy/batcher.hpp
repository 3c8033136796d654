// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Batcher: which tokens of which sequences are evaluated next.
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
// Pools and lanes. A pool is the KV memory of one node; a lane is a way through one or more pools
// (the hops of a pipeline), and a sequence belongs to one lane: it needs a block in each of the
// lane's pools for every 16 tokens. Steps are formed lane by lane. One process is the case of one
// pool and one lane, lane 0. Lanes that share a pool compete by rank; while the best-ranked waiting
// sequence of one lane wants a pool, no worse-ranked one of another lane is admitted to that pool.
//
// Several steps may be in flight. A sequence is in at most 1 + limits.ahead of them, and these
// complete in the order in which they were formed. With limits.placeholders a step may evaluate a
// token that is still being sampled by the step before (asynchronous scheduling): its value in
// StepEntry::tokens is kPlaceholder, and who evaluates it fills it in.
//
// Guarantees (property-tested): a step holds at most `step_tokens` tokens and a sequence at most
// once; no block is written by two sequences; every sequence added ends exactly once; while one
// that has a lane is unfinished and no step is in flight, some lane's next_step() is not empty.
//
// A sequence may be given by its prompt's length alone (simulation: no token vectors): then nothing
// of it is ever found in, or goes to, the prefix cache.
//
// A pure machine: no clock, no I/O, integers only; copyable. The caller runs
//   add / cancel -> next_step() -> evaluate -> complete() or abort() -> take_ended().
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/id_index.hpp"
#include "base/ids.hpp"
#include "base/result.hpp"
#include "policy/block_ledger.hpp"
#include "policy/flat_set.hpp"
#include "policy/lane_table.hpp"

namespace towline::policy {

inline constexpr int32_t kPlaceholder = -1;  // a token that is being sampled

struct BatcherLimits {
  int32_t step_tokens = 512;   // rows a step, at most
  int32_t sequences = 64;      // running at the same time, at most, over all lanes
  int32_t chunk_tokens = 512;  // of one prompt in one step, at most
  bool prefix_cache = true;
  int32_t ahead = 0;           // steps a sequence may be in besides one
  bool placeholders = false;   // ...also for tokens that are not known yet
  // KV blocks that admission leaves free for each running sequence, lest the newcomer be preempted at
  // once. 0: only its own tokens must fit (vLLM's rule).
  int32_t spare_blocks = 1;
};

struct SequenceSpec {
  SeqId id;
  std::vector<int32_t> prompt;  // at least one token...
  int32_t prompt_length = 0;    // ...or empty, and only its length
  int32_t max_tokens = 16;      // output tokens; 0: the prompt is only evaluated
  int32_t priority = 0;         // lower first
  // Every row of the prompt yields logits (or must be seen), so nothing may come from the cache.
  bool every_row = false;
  uint64_t cache_salt = 0;      // sequences of different salts never share KV blocks
  LaneId lane{0};
  // Rows whose KV was computed elsewhere and has come here: they take blocks and are not evaluated.
  // Fewer than the prompt's tokens. If the sequence is preempted, they are evaluated after all.
  int32_t present = 0;
};

// A run of rows of one sequence.
struct StepEntry {
  SeqId seq;
  int32_t from = 0, to = 0;      // positions [from, to)
  int32_t logits_from = 0;       // rows [logits_from, to) yield logits; == to: none
  bool samples = false;          // the last row's logits choose the next token
  bool fresh = false;            // first entry since (re-)admission: `blocks` is the whole table
  // Appended to the sequence's block tables: as many for each of the lane's pools, pool by pool.
  std::vector<BlockId> blocks;
  std::vector<int32_t> tokens;   // the tokens at [from, to); empty if only lengths are known
  int32_t place = -1;            // a note of the batcher to itself; means nothing to others
  friend bool operator==(const StepEntry&, const StepEntry&) = default;
};

struct Step {
  StepNo number;                 // counts the steps of all lanes
  LaneId lane;
  std::vector<StepEntry> entries;
  // Sequences (of any lane) whose block tables are void since the step before: ended or preempted.
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

// A pool on a lane's way. Blocks are shared through the prefix cache only between lanes that give
// the pool the same salt (which layers of the node the lane uses).
struct LanePool {
  int32_t pool = 0;
  uint64_t salt = 0;
};

class Batcher {
 public:
  // No pool, no lane.
  explicit Batcher(BatcherLimits limits);
  // One pool, and lane 0 through it.
  Batcher(BatcherLimits limits, int32_t blocks);

  // --- pools and lanes -------------------------------------------------------------------------
  int32_t add_pool(int32_t blocks);
  // The pool's memory is another one now: nothing of the old one is cached. No sequence may hold a
  // block of it (close its lanes first).
  void replace_pool(int32_t pool, int32_t blocks);
  // At least one pool, none twice. Ids ascend and are never used again.
  LaneId open_lane(std::vector<LanePool> pools);
  // Its sequences lose their blocks and have no lane (they stay; move() gives them another). None
  // may be in flight: abort() the lane's steps before. Returns them, best rank first.
  std::vector<SeqId> close_lane(LaneId lane);
  bool has_lane(LaneId lane) const { return lanes_.contains(lane); }
  // Sequences of the lane, running and waiting; 0 if it is closed.
  int32_t sequences_of(LaneId lane) const;
  // Gives a sequence that is not in flight another lane; it waits there in its old rank. Refuses
  // what could not run there even alone.
  Result<void> move(SeqId seq, LaneId lane);

  // --- sequences -------------------------------------------------------------------------------
  // Refuses an empty prompt, a duplicate id, a closed lane, or what could not run even alone.
  Result<void> add(SequenceSpec spec);
  // Ends now, or when the last step it is in completes. Unknown ids are ignored.
  void cancel(SeqId seq);

  // A share of the lane's sequences, which are divided over so many steps.
  int32_t most_entries(LaneId lane, int32_t parts) const;
  // At most `most_entries` sequences (a pipeline divides its sequences over several steps).
  Step next_step(LaneId lane = LaneId(0),
                 int32_t most_entries = std::numeric_limits<int32_t>::max());
  // The step was evaluated. `sampled` has one item for each of its entries with `samples`.
  void complete(const Step& step, std::span<const Sampled> sampled);
  // If complete(step) and next_step() of its lane would give the same entries again, each one token
  // further, does both: `step` becomes the next one. Otherwise changes nothing and returns false.
  // For decodes of sequences known by their lengths, in a lane where nobody else waits or is ready.
  // `parts`: next_step() would take most_entries(lane, parts).
  bool advance(Step& step, int32_t parts);
  // Whether complete(step) may come now: no earlier step of any of its sequences is in flight.
  bool in_order(const Step& step) const;
  // The step was lost: none of its rows count. Every other step in flight that holds one of its
  // sequences must be aborted as well.
  void abort(const Step& step);
  // Sequences that ended since the last call, in order; each appears once, ever.
  std::vector<Ended> take_ended();

  bool idle() const { return place_of_.empty(); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(place_of_.size() - running_.size()); }
  // Sequences of a lane that could have rows in a step now, and those waiting for admission.
  int32_t ready(LaneId lane) const;
  int32_t waiting(LaneId lane) const;
  // Whether a lane that found no room may find some by preemption when steps of others have ended:
  // what is in flight cannot be preempted.
  bool may_take_room(LaneId lane) const;
  const BlockLedger& ledger(int32_t pool = 0) const { return at(pool).ledger; }
  int32_t pools() const { return static_cast<int32_t>(pools_.size()); }
  // Prompt and output so far; empty if unknown.
  std::span<const int32_t> tokens(SeqId seq) const;
  int32_t length(SeqId seq) const;  // of these; 0 if unknown
  // Prompt tokens that came from the prefix cache at first admission.
  int32_t cached_tokens(SeqId seq) const;

  struct Counters {
    int64_t preemptions = 0;
    int64_t prefix_queries = 0;  // tokens looked up at admission
    int64_t prefix_hits = 0;     // tokens found
    int64_t evaluated = 0;       // rows completed
    int64_t aborted = 0;         // rows lost in aborted steps
  };
  const Counters& counters() const { return counters_; }

  // Preempts a running sequence that is in no step, as if its blocks were needed. For tests and
  // for swapping. False if it is not running or in flight.
  bool preempt(SeqId seq);

  void check_invariants() const;  // for tests

 private:
  // Who comes first. Arrivals are numbered, so no two ranks are equal.
  struct Rank {
    int32_t priority = 0;
    int32_t place = -1;          // in sequences_; takes no part in the order
    int64_t arrival = 0;
    friend bool operator<(const Rank& a, const Rank& b) {
      return a.priority != b.priority ? a.priority < b.priority : a.arrival < b.arrival;
    }
    friend bool operator==(const Rank& a, const Rank& b) {
      return a.priority == b.priority && a.arrival == b.arrival;
    }
  };
  struct alignas(64) Pool {      // what every block needs is in the first cache line
    BlockLedger ledger;
    FlatSet<Rank> running;       // of all lanes through it
    std::optional<Rank> wanted;  // the best rank that waits for blocks of this pool
  };
  struct Lane {
    std::vector<LanePool> pools;
    std::set<Rank> waiting;
    FlatSet<Rank> running;
    std::vector<Rank> ready;     // of these, best first: may be in one more step
  };
  // A step touches the members up to is_ready of each of its sequences: a cache line.
  struct Sequence {
    Rank rank;
    SeqId id;
    LaneId lane;                      // negative: none
    int32_t length = 0;               // of the prompt and the output known
    int32_t prompt = 0;
    int32_t max_tokens = 0;
    int32_t computed = 0;             // rows whose KV exists
    int32_t scheduled = 0;            // those, and the rows in flight
    int32_t expected = 0;             // tokens being sampled
    int32_t flying = 0;               // steps it is in
    int32_t held = 0;                 // blocks in each pool of the lane
    int32_t announced = 0;            // of these, already told in a step
    int32_t present = 0;              // rows that need not be evaluated at first admission
    bool lengths_only = false;
    bool is_running = false;
    bool is_ready = false;            // in Lane::ready
    bool every_row = false;
    std::optional<EndReason> ending;  // ends when it is in no step any more
    std::optional<int32_t> cached;    // at first admission
    uint64_t salt = 0;
    std::vector<BlockId> blocks;      // [block * pools of the lane + pool]
    std::vector<ChainLink> links;     // the same, of the leading full blocks
    std::vector<int32_t> tokens;      // prompt, then output; empty if only lengths are known
    int32_t output() const { return length - prompt; }
    bool has_lane() const { return lane.value >= 0; }
  };
  // [pool of the lane][block]; empty: nothing was looked for.
  using Matches = std::vector<std::vector<BlockLedger::Match>>;
  static constexpr int32_t kNothing = -1;     // what_blocks: not blocked
  static constexpr int32_t kPlaces = -2;      // by the limit of running sequences
  static constexpr int32_t kLanePlaces = -3;  // by the rows of a step of its lane

  static int32_t blocks_for(int64_t tokens) {
    return static_cast<int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
  }
  Pool& at(int32_t pool);
  const Pool& at(int32_t pool) const;
  Lane& lane_of(const Sequence& s) { return lanes_.at(s.lane); }
  Sequence& of(const Rank& rank) { return sequences_[static_cast<size_t>(rank.place)]; }
  // Null if unknown.
  Sequence* find(SeqId seq);
  const Sequence* find(SeqId seq) const;
  Sequence& of(const StepEntry& entry);
  int32_t most_entries(const Lane& lane, int32_t parts) const;
  bool can_advance(const Lane& lane, const Step& step);
  Result<void> check_fits(int64_t prompt, int32_t max_tokens, LaneId lane) const;
  // Rows [0, horizon) can be scheduled now.
  int32_t horizon(const Sequence& s) const;
  bool may_step(const Sequence& s) const {
    return s.is_running && !s.ending && s.flying <= limits_.ahead && s.scheduled < horizon(s);
  }
  void refresh_ready(Sequence& s);
  void join_ready(Lane& lane, std::vector<Rank>& more);
  void schedule_ready(Lane& lane, Step& step, int32_t& budget, size_t most);
  void enter_waiting(Sequence& s);
  void leave_lane(Sequence& s);
  void forget_wish(const Sequence& s);
  void yield_to_priority(Lane& lane);
  bool admit_next(Lane& lane, Step& step, int32_t& budget);
  void hold(Sequence& s, const Matches& cached);
  Matches match_prefix(const Sequence& s) const;
  // The pool that has too little for `s`, or one of the constants above.
  int32_t what_blocks(const Sequence& s, const Matches& cached) const;
  // Blocks for rows [0, to); takes them from worse-ranked sequences that are not in flight.
  // Returns the rows that have a block in every pool afterwards (may be less than `to`).
  int32_t provide_blocks(Sequence& s, int32_t to);
  int32_t provide_more_blocks(Sequence& s, int32_t to);
  template <class Ranks>
  bool preempt_worse_than(const Rank& rank, const Ranks& among);
  void preempt(Sequence& s);
  void release_blocks(Sequence& s);
  void schedule(Sequence& s, int32_t to, Step& step, int32_t& budget);
  static void announce_blocks(Sequence& s, StepEntry& entry);
  void settle(Sequence& s, const StepEntry& entry, const Sampled* choice);
  void publish_full_blocks(Sequence& s);
  void end(Sequence& s, EndReason reason);

  BatcherLimits limits_;
  std::vector<Pool> pools_;
  LaneTable<Lane> lanes_;
  std::vector<Sequence> sequences_;                // [place]
  std::vector<int32_t> free_places_;
  IdIndex<SeqId> place_of_;
  std::set<Rank> running_;
  std::vector<Rank> forming_, joining_, scratch_;  // empty between calls
  std::vector<SeqId> dropped_;
  std::vector<Ended> ended_;
  int64_t next_arrival_ = 0;
  int32_t next_lane_ = 0;
  StepNo next_step_{0};
  Counters counters_;
};

}  // namespace towline::policy
