// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Executor: what a rank does with the rows it is told to evaluate. The rank loop
// (worker/rank_loop.hpp) owns the messages, the mirror and the acks; an executor owns weights, KV
// memory and caches, and nothing else. Implementations: StageExecutor (the real decoder),
// EmulatedExecutor (profiled time instead of arithmetic), NullExecutor (fixed time; tests, bench).
//
// All ranks of a node make one executor each from the same description and get the same calls in
// the same order: no rank is special. An executor of rank r of n holds shard r and talks to its
// siblings inside run() (engine/collective.hpp).
//
// Threading: every call comes from the rank's own thread, except abort(), which may come from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "policy/step_delta.hpp"
#include "policy/step_result.hpp"

namespace towline::worker {

// Rows [from, to) of one sequence. `state` belongs to the rank's mirror and is valid for the call;
// it may be ahead (more tokens, blocks) because later messages were applied already.
struct Row {
  uint32_t slot = 0;
  const policy::SlotState* state = nullptr;
  int32_t from = 0, to = 0;      // positions
  int32_t logits_from = 0;       // rows [logits_from, to) yield logits or are pooled
  bool samples = false;          // the last row's logits choose the next token
  int32_t count() const { return to - from; }
  // The next token of a sequence, not a piece of its prompt.
  bool is_decode() const {
    return count() == 1 && state != nullptr && from >= state->spec.prompt_length;
  }
};

// SlotState::serial of rows that belong to no sequence (a dummy batch): input is not looked at.
inline constexpr uint64_t kDummySerial = UINT64_MAX;

// The rows of one lane step; they share a layer range.
struct RunItem {
  policy::LaneStep step;
  policy::LaneHop hop;           // layers, and whether tokens are embedded and sampled here
  std::span<const Row> rows;
  int32_t row_count() const {
    int32_t n = 0;
    for (const Row& row : rows) n += row.count();
    return n;
  }
};

using policy::RowResult;
using policy::ScoredToken;

// LoRA adapters in two phases, so that all ranks have one or none has it. Ids are the
// coordinator's and are never used again for other weights.
class Adapters {
 public:
  virtual ~Adapters() = default;
  // Phase 1: reads and checks the files; steps go on meanwhile (called on another thread).
  virtual Result<void> stage(int32_t id, const std::string& path) = 0;
  // Phase 2, between steps. After commit() rows may name the adapter. Neither fails.
  virtual void commit(int32_t id) = 0;
  virtual void discard(int32_t id) = 0;
  virtual Result<void> remove(int32_t id) = 0;
  virtual std::vector<int32_t> list() const = 0;  // committed ones, ascending
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual int32_t hidden_width() const = 0;  // floats of one row between nodes
  virtual int32_t max_rows() const = 0;      // of one run()
  virtual int32_t kv_blocks() const = 0;     // of 16 tokens; the node's count is the least rank's
  virtual LayerRange layers() const = 0;     // held
  virtual int32_t model_layers() const = 0;  // of the whole model

  // Evaluates all items, in order. hidden: [sum of row_count()][hidden_width()], item after item;
  // read where an item does not embed, written where it does not sample (and may be scratch
  // otherwise). Appends results of items that sample, the same on every rank: rank 0's are sent on,
  // and each rank learns the tokens from its own. An error fails the step on all ranks.
  virtual Result<void> run(std::span<const RunItem> items, std::span<float> hidden,
                           std::vector<RowResult>& results) = 0;

  // The rest has defaults that suit an executor without the feature.
  virtual Adapters* adapters() { return nullptr; }
  virtual Result<void> warm_up() { return {}; }            // touches memory, compiles nothing
  virtual Result<void> reset_kv() { return {}; }           // forget cached KV contents
  virtual Result<void> sleep(int level) { (void)level; return {}; }  // 1: KV freed, 2: weights too
  virtual Result<void> wake() { return {}; }
  virtual Json status() const { return Json::object(); }
  // Makes a run() that waits for its siblings return kUnavailable soon. Any thread.
  virtual void abort() {}
};

// Where an executor runs, for its factory.
struct RankPlace {
  int32_t rank = 0, of = 1;   // tensor-parallel rank within the stage
  int32_t stage = 0, stages = 1;  // of the node's layers (worker/stage_link.hpp)
  int32_t node = 0;           // its id in the plan
  // Among all ranks of the node: what people and messages call it.
  int32_t world_rank() const { return stage * of + rank; }
  // An inherited descriptor of the group's shared memory for collectives; negative: none.
  int collective_fd = -1;
  const std::atomic<uint32_t>* abort_word = nullptr;  // nonzero: leave collectives; may be null
};

// `description` is what the node was told about its model, the same for all its ranks:
// {"kind": "stage"|"emulated"|"null", ...}. The kinds are listed in worker/executor_factory.hpp.
using ExecutorFactory =
    std::function<Result<std::unique_ptr<Executor>>(const Json& description, const RankPlace&)>;

}  // namespace towline::worker
