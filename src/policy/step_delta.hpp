// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StepDelta: what the coordinator tells a node each step, as the smallest change of what the node
// already knows. The idea is the SPMD worker proposal's (vLLM #6032, #7109): every worker keeps the
// state of the requests, so a step costs bytes in proportion to what changed, whatever the length
// of the contexts.
//
//   StepSender (coordinator, one per node)  --NodeStep-->  StepMirror (node agent and every rank)
//
// A NodeStep is one message of a node's own strictly ordered stream (number n, then n + 1, ...).
// The same struct is the full form: `full` set and every live slot in `fresh`. It is not a second
// protocol: it is the snapshot, the resynchronisation, the start of a replaced worker and the
// ablation arm of `towline bench spmd`.
//
// Slots. The coordinator gives each sequence a slot (number, generation) for the whole cluster.
// Messages name slots; no strings and no hash maps. Nodes never allocate, reorder, evict or choose:
// rows are evaluated in the order sent.
//
// Tokens. Only the first node of a pipeline (embedding) and the last (sampling history, scores of
// the prompt) keep tokens; the sender leaves them out of messages to the others. A token sampled by
// the cluster itself need not come from the coordinator: a row with kFed says that it arrives, or
// has arrived, through feed() (from the last node, past the coordinator).
//
// Hash. hash() is a pure function of the messages applied since the last full form, updated in
// O(change): the sum of one share a live slot and one a lane; a slot's share mixes the sum of its
// contents with its computed rows, so that a row that only goes on costs one multiplication chain.
// A message carries the hash its receiver must have before it; a difference, a gap or
// another epoch refuses the message with kUnavailable ("needs the full form") and leaves the state
// as it was. Tokens that came through feed() are not
// in hash(), because the coordinator does not know when they came; rank_hash() has them too, and
// is the same on all ranks of one node, which apply everything in one order.
//
// Pure machines: no clock, no I/O, copyable; not thread-safe. Malformed messages are errors, never
// CHECKs: messages come from a peer.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "policy/token_table.hpp"
#include "spec/sampling_params.hpp"

namespace towline::policy {

struct SlotGen {
  uint32_t slot = 0;
  uint16_t gen = 0;  // changes whenever the slot is given to another sequence
  friend auto operator<=>(const SlotGen&, const SlotGen&) = default;
};

// One node's part of a lane (a pipeline).
struct LaneHop {
  LaneId lane;
  LayerRange layers;       // evaluated here, within the layers the node holds
  NodeId previous{-1};     // negative: this node embeds tokens
  NodeId next{-1};         // negative: this node samples
  NodeId first{-1};        // the node that embeds; the last one feeds sampled tokens to it
  bool embeds() const { return previous.value < 0; }
  bool samples() const { return next.value < 0; }
  bool keeps_tokens() const { return embeds() || samples(); }
  friend bool operator==(const LaneHop&, const LaneHop&) = default;
};

// What never changes of a sequence while it holds its slot.
struct SlotSpec {
  SeqId seq;                     // the coordinator's name of it, for logs and results
  int32_t choice = 0;            // among the n choices of one request; part of the sampling key
  int32_t prompt_length = 0;     // tokens [0, prompt_length) are prompt, the rest output
  int32_t adapter = -1;          // LoRA adapter id; negative: none
  bool prompt_logprobs = false;  // rows with kEveryRow are scored
  bool embed = false;            // rows with kEveryRow are pooled into an embedding
  spec::SamplingParams sampling;
  friend bool operator==(const SlotSpec&, const SlotSpec&) = default;
};

// A sequence that the node does not know yet: the whole record.
struct FreshSlot {
  SlotGen slot;
  LaneId lane;
  SlotSpec spec;
  int32_t computed = 0;          // rows whose KV is in `blocks` already (prefix cache, streamed)
  std::vector<int32_t> tokens;   // prompt and output so far; empty where tokens are not kept
  std::vector<int32_t> blocks;   // of this node's pool
  friend bool operator==(const FreshSlot&, const FreshSlot&) = default;
};

// A preempted, moved or rewound sequence goes on: its block table is *replaced* (never appended
// to: that is new_blocks' business).
struct ResumedSlot {
  SlotGen slot;
  LaneId lane;
  int32_t computed = 0;
  int32_t tokens_from = 0;       // `tokens` replace the tokens from this position on
  std::vector<int32_t> tokens;   // only what the node cannot have; may be empty
  std::vector<int32_t> blocks;
  friend bool operator==(const ResumedSlot&, const ResumedSlot&) = default;
};

// Rows [from, from + count) of one sequence.
struct StepRow {
  enum Flag : uint32_t {
    kSamples = 1,   // the logits of the last row choose the next token
    kEveryRow = 2,  // every row yields logits or is pooled (prompt logprobs, embeddings)
    kToken = 4,     // `token` is the token at the last position; the node does not know it
    kFed = 8,       // the token at the last position comes through feed()
  };
  uint32_t slot = 0;
  int32_t from = 0;    // must be the rows computed so far
  int32_t count = 0;   // 1 when generating, more for a piece of a prompt
  uint32_t flags = 0;
  int32_t token = 0;   // with kToken
  int32_t to() const { return from + count; }
  bool samples() const { return (flags & kSamples) != 0; }
  // Rows [logits_from(), to()) yield logits.
  int32_t logits_from() const {
    return (flags & kEveryRow) != 0 ? from : samples() ? to() - 1 : to();
  }
  friend bool operator==(const StepRow&, const StepRow&) = default;
};

// A block appended to the table of the row's sequence.
struct NewBlock {
  uint32_t row = 0;   // index into the rows of the step, implied ones counted first
  int32_t block = 0;  // of this node's pool
  friend bool operator==(const NewBlock&, const NewBlock&) = default;
};

// Sections are applied in the order in which they are declared here.
struct NodeStep {
  Epoch epoch;
  int64_t number = 0;      // of this node's stream; the full form may jump ahead
  uint64_t base_hash = 0;  // what the receiver's hash() must be before; 0: unchecked
  bool full = false;       // forget everything first

  std::vector<LaneId> closed;      // their slots keep their KV but belong to no lane
  std::vector<SlotGen> finished;   // slot free
  std::vector<SlotGen> preempted;  // tokens stay, block table and computed rows go
  std::vector<LaneHop> opened;
  std::vector<FreshSlot> fresh;
  std::vector<ResumedSlot> resumed;

  // The rows to evaluate; lane < 0: nothing to run. A step of a lane has one message per node.
  LaneId lane{-1};
  int64_t step = -1;       // of the lane
  // Compact form of rows that go on generating: bit i set = row i of that earlier step of the lane,
  // one more token, kSamples, its token fed. They come before `rows`.
  int64_t implied_step = -1;
  std::vector<uint32_t> implied;
  std::vector<StepRow> rows;
  std::vector<NewBlock> new_blocks;

  bool runs() const { return lane.value >= 0; }
  friend bool operator==(const NodeStep&, const NodeStep&) = default;
};

// Bounds on what a message may claim; the receiver's own, from the handshake.
struct MirrorLimits {
  int32_t slots = 4096;
  int32_t blocks = 1 << 20;    // in the node's pool
  int32_t context = 1 << 20;   // tokens of a sequence
  int32_t vocab = 1 << 20;
  int32_t step_rows = 1 << 16; // rows of one step, sum of counts
  int32_t pending = 256;       // lane steps received and not yet run
  LayerRange layers{0, 1 << 16};
};

struct alignas(64) SlotState {
  // What a row that goes on generating touches comes first, in one cache line with the end of
  // `tokens`; what an executor asks of it besides is in the second.
  bool live = false;
  uint16_t gen = 0;
  LaneId lane{-1};
  int32_t computed = 0;
 private:
  int32_t capacity_ = 0;         // rows that its blocks hold
  uint64_t content_ = 0;         // sum of the hashes of all but the computed rows
  uint64_t share_ = 0;           // of the mirror's hash
  int64_t last_message_ = -1;    // that had a row of it
 public:
  TokenTable tokens;             // kUnknownToken where a feed has not arrived
  uint64_t serial = 0;           // changes with every fresh or resumed record: caches key on it
  SlotSpec spec;
  std::vector<int32_t> blocks;   // KV blocks of positions [0, computed), 16 a block
 private:
  friend class StepMirror;
  uint64_t blocks_hash_ = 0, lane_hash_ = 0;  // terms of content_ that can go
};
inline constexpr int32_t kUnknownToken = -1;

struct LaneStep {
  LaneId lane;
  int64_t step = 0;
  friend auto operator<=>(const LaneStep&, const LaneStep&) = default;
};

// A sampled token on its way to the nodes that keep tokens.
struct FedToken {
  SlotGen slot;
  int32_t position = 0;
  int32_t token = 0;
  friend bool operator==(const FedToken&, const FedToken&) = default;
};

// The node's side: agent and every rank hold one and apply the same messages in the same order.
class StepMirror {
 public:
  explicit StepMirror(const MirrorLimits& limits) : limits_(limits) {}

  // Errors:
  //   kAlreadyExists  a duplicate of a message applied before: ignore it; state unchanged
  //   kUnavailable    gap, other epoch or other base hash: state unchanged; ask for the full form
  //   kDataCorrupt    the content is impossible; the state is void until a full form
  Result<void> apply(const NodeStep& message);
  // The same; tokens and blocks of new sequences are moved out of the message, not copied.
  Result<void> apply(NodeStep&& message);

  // Token `token` at `position` of the slot, sampled elsewhere. Stale (slot, gen) pairs and
  // sequences without tokens are ignored; a contradiction is kDataCorrupt.
  Result<void> feed(SlotGen slot, int32_t position, int32_t token);
  // Many of them, up to the first error.
  Result<void> feed(std::span<const FedToken> tokens);

  // Rows of a step that was received and not retired; null if none (or its lane closed since).
  // Valid until the next apply().
  const std::vector<StepRow>* pending(LaneStep step) const;
  // Whether the tokens of all its rows are known.
  bool tokens_ready(LaneStep step) const;
  // Whether the tokens of a row of a slot that keeps them are.
  static bool tokens_known(const SlotState& s, const StepRow& row);
  // The step was run, or never will be.
  void retire(LaneStep step);
  const std::map<LaneStep, std::vector<StepRow>>& all_pending() const { return pending_; }

  const SlotState* slot(SlotGen slot) const;       // null if stale or unknown
  const SlotState* slot_at(uint32_t slot) const;   // null if not live
  std::span<const SlotState> slots() const { return slots_; }
  const LaneHop* lane(LaneId lane) const;          // null if not open

  Epoch epoch() const { return epoch_; }
  int64_t number() const { return number_; }       // last applied; -1 before the first
  bool needs_full() const { return void_; }
  uint64_t hash() const { return hash_; }
  uint64_t rank_hash() const { return hash_ ^ fed_hash_; }
  const MirrorLimits& limits() const { return limits_; }

 private:
  friend class StepSender;
  // Row lists of a lane's last steps, which later messages may imply.
  static constexpr size_t kImpliedHistory = 8;
  struct Remembered {
    int64_t step = -1;
    std::vector<SlotGen> rows;  // that sampled, in order
  };
  struct Lane {
    LaneHop hop;
    int64_t last_step = -1;
    size_t newest = 0;           // index into `recent`, which is a circle
    std::array<Remembered, kImpliedHistory> recent;
  };
  Result<void> check_order(const NodeStep& message) const;
  template <class Message>
  Result<void> apply_any(Message&& message);
  Result<void> close(LaneId lane);
  Result<void> release(SlotGen slot, bool finished);
  Result<void> open(const LaneHop& hop);
  template <class Fresh>
  Result<void> add(Fresh&& fresh);
  Result<void> resume(const ResumedSlot& resumed);
  Result<void> apply_rows(const NodeStep& message);
  Result<void> expand(const NodeStep& message, const Lane& lane, std::vector<StepRow>& rows) const;
  Result<void> append_blocks(const NodeStep& message, std::span<const StepRow> rows);
  Result<void> advance(const StepRow& row, const Lane& lane, int64_t message);
  Result<void> take_token(const StepRow& row, SlotState& s) const;
  Result<void> check_token(int32_t token) const;
  Result<void> check_tokens(std::span<const int32_t> tokens, int64_t from) const;
  Result<void> take_blocks(SlotState& s, std::span<const int32_t> blocks) const;
  static void drop_blocks(SlotState& s);
  static void move_to(SlotState& s, LaneId lane);
  Result<void> check_lane(LaneId lane) const;
  Result<SlotState*> find(SlotGen slot);
  void rehash(SlotState& s);
  std::vector<StepRow> take_pending(LaneStep step);  // for the sender; empty if none
  void clear();

  MirrorLimits limits_;
  Epoch epoch_{-1};
  int64_t number_ = -1;
  bool void_ = true;
  uint64_t hash_ = 0, fed_hash_ = 0;
  uint64_t next_serial_ = 1;
  std::vector<SlotState> slots_;
  std::map<LaneId, Lane> lanes_;
  std::map<LaneStep, std::vector<StepRow>> pending_;
  std::vector<std::vector<StepRow>> spare_;  // memory of retired steps, used again
  std::vector<SlotGen> sampling_;            // working memory of apply_rows()
};

enum class DeltaForm {
  kImplied,   // continuing rows as bits where possible
  kExplicit,  // every row written out
  kFull,      // every message is the full form: the ablation arm, never needed otherwise
};

// The coordinator's copy of one node, and the writer of its stream.
class StepSender {
 public:
  StepSender(const MirrorLimits& limits, Epoch epoch, DeltaForm form = DeltaForm::kImplied)
      : mirror_(limits), epoch_(epoch), form_(form) {}

  // Completes a draft (sections and explicit rows; tokens everywhere) into the next message of the
  // stream: numbers it, leaves out tokens that this node does not keep, implies what can be
  // implied, and applies it to the copy. An error means that the draft was impossible, a bug of
  // the caller; the copy is void then: restart() and tell every sequence as fresh.
  Result<NodeStep> next(NodeStep draft);

  // A token that the cluster sampled, so that later full forms have it.
  Result<void> learn(SlotGen slot, int32_t position, int32_t token) {
    return mirror_.feed(slot, position, token);
  }
  Result<void> learn(std::span<const FedToken> tokens) { return mirror_.feed(tokens); }
  // The step was run (its results are here): resync() will not repeat it.
  void completed(LaneStep step) { unrun_.erase(step); }

  // After NEED_SYNC: the full form of what the node must know, its rows rewound to before the first
  // step that was not run, then one message for each such step. The node's KV blocks are taken to
  // hold what they held (a replaced node's sequences are preempted instead, by the caller).
  Result<std::vector<NodeStep>> resync();

  // The full form of the copy as it is, nothing to run; does not advance the stream.
  NodeStep snapshot() const;
  const StepMirror& mirror() const { return mirror_; }
  // A new incarnation of the node or the coordinator: the stream begins again, with a full form.
  void restart(Epoch epoch);

 private:
  void strip_tokens(NodeStep& draft) const;
  void imply(NodeStep& draft) const;
  Result<NodeStep> send(NodeStep message);

  StepMirror mirror_;
  Epoch epoch_;
  DeltaForm form_;
  int64_t next_number_ = 1;
  struct Unrun {
    int64_t number;              // of the message that carried it
    std::vector<uint16_t> gens;  // of the slots of its rows
    std::vector<StepRow> rows;   // implied ones written out
  };
  std::map<LaneStep, Unrun> unrun_;
};

}  // namespace towline::policy
