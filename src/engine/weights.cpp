// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/weights.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::engine {
namespace {

// Collects the tensors of one arena, then packs them all: the size must be known first.
class ArenaPlan {
 public:
  explicit ArenaPlan(const ModelFile& file) : file_(file) {}

  Result<void> matrix(const std::string& name, int64_t rows, int64_t cols, PackedMatrix* to) {
    ASSIGN_OR_RETURN(const Tensor* tensor, file_.require(name, rows, cols));
    auto planned = plan_packed(tensor->dtype, rows, cols);
    if (!planned) return std::move(planned).error().context("tensor '" + name + "'");
    *to = *planned;
    bytes_ += Arena::rounded(to->bytes());
    matrices_.push_back({tensor, to});
    return {};
  }

  Result<void> vector(const std::string& name, int64_t size, const float** to) {
    ASSIGN_OR_RETURN(const Tensor* tensor, file_.require(name, 1, size));
    bytes_ += Arena::rounded(size * static_cast<int64_t>(sizeof(float)));
    vectors_.push_back({tensor, to});
    return {};
  }

  int64_t bytes() const { return bytes_; }

  Result<void> load(Arena* arena, ComputeTeam& team, const std::function<void(int64_t)>& packed) {
    ASSIGN_OR_RETURN(*arena, Arena::create(bytes_));
    for (const auto& [tensor, to] : vectors_) {
      auto* values = reinterpret_cast<float*>(arena->take(tensor->cols * 4));
      dequantize_row(tensor->dtype, tensor->data, {values, static_cast<size_t>(tensor->cols)});
      *to = values;
    }
    for (const auto& [tensor, to] : matrices_) {
      to->panels = arena->take(to->bytes());
      pack_matrix(*tensor, *to, team, packed);
    }
    return {};
  }

 private:
  // In slices, each let go once it is packed: the largest matrix is a third of a small model, and
  // it must not be resident twice even for a moment.
  void pack_matrix(const Tensor& tensor, const PackedMatrix& to, ComputeTeam& team,
                   const std::function<void(int64_t)>& packed) {
    const int64_t stride = row_bytes(tensor.dtype, tensor.cols);
    const PackSource source{.dtype = tensor.dtype,
                            .data = tensor.data,
                            .row_stride = stride,
                            .rows = tensor.rows,
                            .col_begin = 0,
                            .cols = tensor.cols};
    const int64_t slice = std::max<int64_t>(kSliceBytes / to.panel_bytes, team.threads());
    for (int64_t from = 0; from < to.panel_count(); from += slice) {
      const int64_t panels = std::min(slice, to.panel_count() - from);
      team.parallel_ranges(panels, [&](int64_t begin, int64_t end, int) {
        pack(source, to, from + begin, from + end);
      });
      Tensor done = tensor;
      done.data += from * kPanelRows * stride;
      done.rows = std::min(panels * kPanelRows, tensor.rows - from * kPanelRows);
      file_.drop_pages(done);
      packed(panels * to.panel_bytes);
    }
  }

  static constexpr int64_t kSliceBytes = int64_t{16} << 20;
  const ModelFile& file_;
  int64_t bytes_ = 0;
  std::vector<std::pair<const Tensor*, PackedMatrix*>> matrices_;
  std::vector<std::pair<const Tensor*, const float**>> vectors_;
};

Result<void> plan_layer(const spec::ModelDesc& d, int32_t index, ArenaPlan& plan,
                        LayerWeights& w) {
  const std::string p = format("blk.{}.", index);
  TRY(plan.vector(p + "attn_norm.weight", d.hidden, &w.attention_norm));
  TRY(plan.matrix(p + "attn_q.weight", d.q_width(), d.hidden, &w.q));
  TRY(plan.matrix(p + "attn_k.weight", d.kv_width(), d.hidden, &w.k));
  TRY(plan.matrix(p + "attn_v.weight", d.kv_width(), d.hidden, &w.v));
  if (d.qkv_bias) {
    TRY(plan.vector(p + "attn_q.bias", d.q_width(), &w.q_bias));
    TRY(plan.vector(p + "attn_k.bias", d.kv_width(), &w.k_bias));
    TRY(plan.vector(p + "attn_v.bias", d.kv_width(), &w.v_bias));
  }
  if (d.qk_norm) {
    TRY(plan.vector(p + "attn_q_norm.weight", d.head_dim, &w.q_norm));
    TRY(plan.vector(p + "attn_k_norm.weight", d.head_dim, &w.k_norm));
  }
  TRY(plan.matrix(p + "attn_output.weight", d.hidden, d.q_width(), &w.o));
  TRY(plan.vector(p + "ffn_norm.weight", d.hidden, &w.ffn_norm));
  TRY(plan.matrix(p + "ffn_gate.weight", d.ffn, d.hidden, &w.gate));
  TRY(plan.matrix(p + "ffn_up.weight", d.ffn, d.hidden, &w.up));
  TRY(plan.matrix(p + "ffn_down.weight", d.hidden, d.ffn, &w.down));
  return {};
}

}  // namespace

Result<Weights> Weights::load(std::shared_ptr<const ModelFile> file, LayerRange layers,
                              ComputeTeam& team, const LoadProgress& progress) {
  const spec::ModelDesc& d = file->desc();
  if (layers.begin < 0 || layers.empty() || layers.end > d.layers) {
    return errorf(Code::kInvalidArgument, "layers {}..{} are not in {}, which has {}", layers.begin,
                  layers.end, file->path(), d.layers);
  }
  TRY(file->check(layers));
  Weights w;
  w.file_ = file;
  w.layers_ = layers;
  w.stack_.resize(static_cast<size_t>(layers.size()));

  std::vector<ArenaPlan> plans(static_cast<size_t>(layers.size()), ArenaPlan(*file));
  int64_t total = 0;
  for (int32_t i = 0; i < layers.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    TRY(plan_layer(d, layers.begin + i, plans[at], w.stack_[at]));
    total += plans[at].bytes();
  }
  ArenaPlan head(*file);
  const bool has_embedding = file->find("token_embd.weight") != nullptr;
  const bool has_output = file->find("output.weight") != nullptr;
  // Tied models store the one matrix under either name.
  const std::string embedding = has_embedding ? "token_embd.weight" : "output.weight";
  const std::string output =
      has_output && !(d.tied_embeddings && has_embedding) ? "output.weight" : embedding;
  if (w.is_last()) {
    TRY(head.vector("output_norm.weight", d.hidden, &w.output_norm_));
    TRY(head.matrix(output, d.vocab, d.hidden, &w.output_));
    total += head.bytes();
  }
  if (w.is_first() && !(w.is_last() && embedding == output)) {
    ASSIGN_OR_RETURN(w.embedding_, file->require(embedding, d.vocab, d.hidden));
  }

  int64_t done = 0;
  const auto packed = [&](int64_t bytes) {
    done += bytes;
    if (progress) progress(std::min(done, total), total);
  };
  for (size_t i = 0; i < plans.size(); ++i) TRY(plans[i].load(&w.stack_[i].arena, team, packed));
  if (w.is_last()) TRY(head.load(&w.head_arena_, team, packed));
  if (progress) progress(total, total);
  return w;
}

void Weights::embed(int32_t token, std::span<float> row) const {
  DCHECK(token >= 0 && token < desc().vocab, token);
  if (embedding_ == nullptr) return unpack_row(output_, token, row);
  const int64_t stride = row_bytes(embedding_->dtype, embedding_->cols);
  dequantize_row(embedding_->dtype, embedding_->data + token * stride, row);
}

int64_t Weights::bytes() const {
  int64_t total = head_arena_.size();
  for (const LayerWeights& layer : stack_) total += layer.arena.size();
  return total;
}

int64_t Weights::bytes_per_token() const {
  int64_t total = head_arena_.used();
  for (const LayerWeights& layer : stack_) total += layer.arena.used();
  return total;
}

}  // namespace towline::engine
