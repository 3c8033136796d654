// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Weights: the tensors of a range of layers, rearranged for the kernels.
//
// Loading reads the layers [begin, end) of a model file and nothing else: each layer is packed by
// all threads of the team into its own huge-page arena, then the file's pages are let go, so that
// the process holds one copy. The embedding table belongs to the first stage and the output norm
// and matrix to the last. An embedding table that is used for look-ups only stays in the file
// mapping (rows are dequantised as tokens need them); a tied one that is also the output matrix is
// packed once, and look-ups unpack rows of it. Nothing is held twice, and nothing is re-quantised.
//
// A tensor-parallel rank (engine/collective.hpp) holds its heads' rows of q, k and v, its rows of
// gate and up, the columns of o and down that belong to these, and its rows of the output matrix;
// norms and the embedding table are everyone's. Only its part of the file is read.
//
// Immutable once loaded; safe to share between threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "engine/collective.hpp"
#include "engine/format/model_file.hpp"
#include "engine/kernel/arena.hpp"
#include "engine/kernel/compute_team.hpp"
#include "engine/kernel/packed.hpp"

namespace towline::engine {

// A matrix whose input is split over the ranks (o, down) is summed in this many equal pieces, and
// the pieces in a fixed tree, whether one rank holds them all or each of several holds some: 8 if a
// piece has 1024 columns then, else as many up to 4 as leave whole blocks. It is also the largest
// number of ranks. A function of the matrix alone, so that bits do not depend on the ranks.
int32_t reduction_pieces(DType dtype, int64_t cols);

// The dimensions of a rank's share: d with heads, kv_heads and ffn of the rank (vocab stays; see
// Weights::output_rows). kUnsupported if the model cannot be split that way.
Result<spec::ModelDesc> shard_shape(const spec::ModelDesc& d, Shard shard);

// Widths are the rank's.
struct LayerWeights {
  PackedMatrix q, k, v;      // [q_width, hidden], [kv_width, hidden] twice
  PackedMatrix o;            // [hidden, q_width]
  PackedMatrix gate, up;     // [ffn, hidden]
  PackedMatrix down;         // [hidden, ffn]
  const float* attention_norm = nullptr;  // [hidden]
  const float* ffn_norm = nullptr;        // [hidden]
  const float* q_bias = nullptr;          // [q_width]; null: none
  const float* k_bias = nullptr;          // [kv_width]
  const float* v_bias = nullptr;          // [kv_width]
  const float* q_norm = nullptr;          // [head_dim]; null: none
  const float* k_norm = nullptr;          // [head_dim]
  Arena arena;               // holds all of the above
};

// Bytes packed so far and in total; called from the loading thread.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

class Weights {
 public:
  // `file` is kept: the embedding table may stay in its mapping.
  static Result<Weights> load(std::shared_ptr<const ModelFile> file, LayerRange layers,
                              ComputeTeam& team, const LoadProgress& progress = {},
                              Shard shard = {});

  const spec::ModelDesc& desc() const { return file_->desc(); }
  LayerRange layers() const { return layers_; }
  bool is_first() const { return layers_.begin == 0; }
  bool is_last() const { return layers_.end == desc().layers; }

  // `index` counts from layers().begin.
  const LayerWeights& layer(int32_t index) const { return stack_[static_cast<size_t>(index)]; }
  // First stage: the embedding of `token` (0 <= token < vocab) into row[hidden].
  void embed(int32_t token, std::span<float> row) const;
  // Last stage.
  const float* output_norm() const { return output_norm_; }  // [hidden]
  const PackedMatrix& output() const { return output_; }     // [rank's part of vocab, hidden]
  int32_t first_output_row() const { return first_output_row_; }  // where that part begins

  // Packed bytes held in memory (not counting an embedding table left in the file).
  int64_t bytes() const;
  // Bytes read from memory to decode one token of one sequence, KV cache aside.
  int64_t bytes_per_token() const;

 private:
  Weights() = default;
  std::shared_ptr<const ModelFile> file_;
  LayerRange layers_;
  std::vector<LayerWeights> stack_;
  const Tensor* embedding_ = nullptr;  // in the file; null if look-ups use output_
  PackedMatrix output_;
  int32_t first_output_row_ = 0;
  const float* output_norm_ = nullptr;
  Arena head_arena_;
};

}  // namespace towline::engine
