// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Stage: a range of decoder layers with its KV cache, evaluated on this machine.
//
// One decoder, varied by data (spec/model_desc.hpp): RMSNorm, rotary attention with grouped heads,
// gated SiLU. A step is a list of spans, each a run of consecutive positions of one sequence;
// decode tokens and prompt chunks mix freely. Matrix products see all rows of the step together;
// attention works sequence by sequence on paged KV blocks.
//
// Exact bits: every operation on a row either looks at that row alone or (attention) walks the KV
// blocks of its own sequence in an order fixed by absolute positions. So a row's result does not
// depend on the other rows of the step, on how a prompt was cut into spans, on the number of
// threads, or on how the layers are divided into stages (docs/engine.md).
//
// With quantised weights, normalised inputs, q and the attention's output are rounded to float16,
// as 16-bit inference does: their int8 form is coarser still (docs/engine.md says what it is for).
//
// A model of one stage: run() then logits(). A pipeline: the first stage's run() fills `hidden`,
// the float32 residual stream, which is sent on as it is; the last stage's logits() follows its
// run().
//
// Tensor parallelism: the ranks of a group (engine/collective.hpp) run the same steps on the same
// `hidden`; each has its heads, its part of the feed-forward width and of the vocabulary, and its
// part of the KV cache. o and down are summed in a tree that is fixed by the model, not by the
// number of ranks (reduction_pieces), so that any number of ranks gives the bits of one.
//
// Threading: one caller at a time; work is divided over the team given to load().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "engine/kernel/activations.hpp"
#include "engine/kernel/compute_team.hpp"
#include "engine/kernel/kernel_table.hpp"
#include "engine/lora_rows.hpp"
#include "engine/weights.hpp"
#include "kv/block_pool.hpp"

namespace towline::engine {

// Rows [from, to) of one sequence. The tables belong to the caller and must outlive the call.
struct StepSpan {
  int32_t from = 0, to = 0;                // positions
  std::span<const int32_t> tokens;         // to - from of them; used by the first stage only
  std::span<const int32_t> blocks;         // KV blocks of positions [0, to), 16 a block
  // Loaded for this stage's layers and shard; null: none. Its KV is another than without it.
  const LoraAdapter* adapter = nullptr;
  int32_t rows() const { return to - from; }
};

struct StepView {
  std::span<const StepSpan> spans;
  int32_t rows() const;
};

struct StageOptions {
  LayerRange layers;            // empty: all
  int32_t kv_blocks = 64;       // of 16 tokens, shared by all sequences
  int32_t max_rows = 512;       // rows of one step, at most
  int32_t max_logit_rows = 32;  // rows of one logits() call, at most
  // With more than one rank: the group, which must outlive the stage and have the memory that
  // Stage::shared_floats() says; all ranks' options are alike otherwise.
  Collective* collective = nullptr;
  Shard shard() const { return collective == nullptr ? Shard{} : collective->shard(); }
};

class Stage {
 public:
  // `kernels` and `team` must outlive the stage.
  static Result<Stage> load(std::shared_ptr<const ModelFile> file, const StageOptions& options,
                            const KernelTable& kernels, ComputeTeam& team,
                            const LoadProgress& progress = {});

  // Floats of shared memory that a tensor-parallel group of `ranks` needs.
  static int64_t shared_floats(const spec::ModelDesc& d, const StageOptions& options,
                               int32_t ranks);

  const spec::ModelDesc& desc() const { return weights_->desc(); }
  Shard shard() const { return shard_; }
  const Weights& weights() const { return *weights_; }
  const kv::BlockPool& pool() const { return pool_; }
  int32_t max_rows() const { return options_.max_rows; }
  int32_t max_logit_rows() const { return options_.max_logit_rows; }

  // Evaluates the layers `sub` (a part of this stage's, numbered from the model's first; empty:
  // all). hidden: [rows][hidden], read unless sub begins with the model's first layer, and written.
  // Token ids and block numbers must be valid (the caller checked them); writes the KV cache.
  // kUnavailable if the tensor-parallel group was aborted; a stage of one rank cannot fail.
  Result<void> run(const StepView& step, std::span<float> hidden, LayerRange sub = {});

  // Gives the KV cache's memory back to the system; all its contents are lost.
  void forget_kv() { pool_.forget(); }

  // Last stage: logits of the chosen rows of `hidden`, [rows.size()][vocab], valid until the next
  // call. At most max_logit_rows(). Errors as run().
  Result<std::span<const float>> logits(std::span<const float> hidden,
                                        std::span<const int32_t> rows);
  // Last stage: row `row` of `hidden` after the output norm (embeddings), out: [hidden].
  void final_state(std::span<const float> hidden, int32_t row, std::span<float> out) const;

 private:
  // One product that shares its input with others: out[row * ldo + ...] = w * input row.
  struct Product {
    const PackedMatrix* weights;
    float* out;
    int64_t ldo;
  };
  struct RowPlace {  // where a row of the step lives
    int32_t position;
    int32_t block;     // of the KV pool
    int32_t token;     // first stage only
  };
  struct AttentionItem {  // a few rows of one sequence
    const StepSpan* span;
    int32_t first_row;    // of the step
    int32_t from;         // position of the first row
    int32_t rows;
  };

  Stage(const KernelTable& kernels, ComputeTeam& team)
      : kernels_(&kernels), team_(&team), lora_(kernels, team) {}
  Result<void> allocate_buffers();
  void place_rows(const StepView& step);
  void prepare_row(int64_t row, float* hidden, bool embed);
  void add_update(float* hidden, int64_t row);
  Result<void> run_layer(int32_t index, int32_t rows, float* hidden);
  // o and down: into update_, or into this rank's part of a sum over the ranks; then, with the
  // product's input x, what the adapters add, and the exchange.
  float* update_target();
  Result<void> finish_update(int32_t index, LoraTarget target, const float* x, int64_t ldx);
  // Calls before(row) for every row (it may write x), then does all products with the rows of x,
  // which are as far apart as the products are wide.
  template <class BeforeRow>
  void multiply(std::span<const Product> products, const float* x, int64_t rows,
                BeforeRow&& before);
  void multiply_prepared(std::span<const Product> products);
  void rotate_and_store(int32_t index, int32_t rows);
  void attend(int32_t index);

  // Constant after load.
  const KernelTable* kernels_;
  ComputeTeam* team_;
  StageOptions options_;
  Shard shard_;
  spec::ModelDesc own_;                   // desc() with this rank's heads, KV heads and ffn
  std::unique_ptr<Weights> weights_;
  kv::BlockPool pool_;
  std::vector<double> rope_frequencies_;  // [rope_dim / 2] radians a position

  // Exchanges with the other ranks: two buffers in turn (engine/collective.hpp).
  int exchange_ = 0;                        // which buffer comes next
  const float* parts_ = nullptr;            // [ranks][R][hidden] to be summed into update_, if any
  int logits_exchange_ = 0;
  LoraRows lora_;                           // of this step
  std::vector<float> lora_parts_;           // [R][kMaxLoraRank], if there is one rank

  // Working memory of a step; R = max_rows. Widths are the rank's. The numbers lie in buffers_,
  // whose pages become resident as steps get that large.
  std::vector<RowPlace> places_;            // [rows]
  std::vector<AttentionItem> items_;
  Arena buffers_;
  std::span<float> cos_, sin_;              // [R][rope_dim / 2]
  std::span<float> q_, k_, v_;              // [R][q_width], [R][kv_width] twice
  std::span<float> mixed_;                  // [R][q_width] attention output
  std::span<float> gate_, up_;              // [R][ffn]
  std::span<float> update_;                 // [R][hidden] what is added to the residual stream
  std::span<float> normed_;                 // [R][hidden] input of the next products
  std::span<float> logits_;                 // [max_logit_rows][vocab], if there is one rank
  std::vector<float*> attention_scratch_;   // [threads], in scratch_arena_
  Arena scratch_arena_;
  static constexpr size_t kActKinds = 3;
  Activations acts_[kActKinds];             // by ActKind
};

}  // namespace towline::engine
