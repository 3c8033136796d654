// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/weights.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::engine {
namespace {

// The part of a tensor that a rank holds; sizes of 0 mean all.
struct Part {
  int64_t row = 0, rows = 0;
  int64_t col = 0, cols = 0;
};

// Collects the tensors of one arena, then packs them all: the size must be known first.
class ArenaPlan {
 public:
  explicit ArenaPlan(const ModelFile& file) : file_(file) {}

  // A tensor [rows, cols], of which `part` is packed, summed in k_shards pieces.
  Result<void> matrix(const std::string& name, int64_t rows, int64_t cols, const Part& part,
                      PackedMatrix* to, bool is_split_sum = false, int32_t ranks = 1) {
    ASSIGN_OR_RETURN(const Tensor* tensor, file_.require(name, rows, cols));
    const Part taken{part.row, part.rows > 0 ? part.rows : rows, part.col,
                     part.cols > 0 ? part.cols : cols};
    const int32_t pieces = is_split_sum ? reduction_pieces(tensor->dtype, cols) : 1;
    if (is_split_sum && pieces % ranks != 0) {
      return errorf(Code::kUnsupported,
                    "tensor '{}' of {} columns of {} is summed in {} pieces, which {} "
                    "tensor-parallel ranks cannot share; use fewer ranks",
                    name, cols, dtype_info(tensor->dtype).name, pieces, ranks);
    }
    auto planned = plan_packed(tensor->dtype, taken.rows, taken.cols, pieces / ranks);
    if (!planned) return std::move(planned).error().context("tensor '" + name + "'");
    *to = *planned;
    bytes_ += Arena::rounded(to->bytes());
    matrices_.push_back({tensor, taken, to});
    return {};
  }

  // Numbers [first, first + size) of a vector of `total`.
  Result<void> vector(const std::string& name, int64_t total, const float** to, int64_t first = 0,
                      int64_t size = 0) {
    ASSIGN_OR_RETURN(const Tensor* tensor, file_.require(name, 1, total));
    if (size == 0) size = total;
    bytes_ += Arena::rounded(size * static_cast<int64_t>(sizeof(float)));
    vectors_.push_back({tensor, first, size, to});
    return {};
  }

  int64_t bytes() const { return bytes_; }

  Result<void> load(Arena* arena, ComputeTeam& team, const std::function<void(int64_t)>& packed) {
    ASSIGN_OR_RETURN(*arena, Arena::create(bytes_));
    std::vector<float> whole;
    for (const VectorPlan& v : vectors_) {
      whole.resize(static_cast<size_t>(v.tensor->cols));
      dequantize_row(v.tensor->dtype, v.tensor->data, whole);
      auto* values = reinterpret_cast<float*>(arena->take(v.size * 4));
      std::copy_n(whole.begin() + v.first, v.size, values);
      *v.to = values;
    }
    for (const MatrixPlan& m : matrices_) {
      m.to->panels = arena->take(m.to->bytes());
      pack_matrix(*m.tensor, m.part, *m.to, team, packed);
    }
    return {};
  }

 private:
  // In slices, each let go once it is packed: the largest matrix is a third of a small model, and
  // it must not be resident twice even for a moment.
  void pack_matrix(const Tensor& tensor, const Part& part, const PackedMatrix& to,
                   ComputeTeam& team, const std::function<void(int64_t)>& packed) {
    const int64_t stride = row_bytes(tensor.dtype, tensor.cols);
    const PackSource source{.dtype = tensor.dtype,
                            .data = tensor.row(part.row),
                            .row_stride = stride,
                            .rows = part.rows,
                            .col_begin = part.col,
                            .cols = part.cols};
    const int64_t slice = std::max<int64_t>(kSliceBytes / to.panel_bytes, team.threads());
    for (int64_t from = 0; from < to.panel_count(); from += slice) {
      const int64_t panels = std::min(slice, to.panel_count() - from);
      team.parallel_ranges(panels, [&](int64_t begin, int64_t end, int) {
        pack(source, to, from + begin, from + end);
      });
      Tensor done = tensor;
      done.data = tensor.row(part.row + from * kPanelRows);
      done.rows = std::min(panels * kPanelRows, part.rows - from * kPanelRows);
      file_.drop_pages(done);
      packed(panels * to.panel_bytes);
    }
  }

  struct MatrixPlan {
    const Tensor* tensor;
    Part part;
    PackedMatrix* to;
  };
  struct VectorPlan {
    const Tensor* tensor;
    int64_t first, size;
    const float** to;
  };
  static constexpr int64_t kSliceBytes = int64_t{16} << 20;
  const ModelFile& file_;
  int64_t bytes_ = 0;
  std::vector<MatrixPlan> matrices_;
  std::vector<VectorPlan> vectors_;
};

Result<void> plan_layer(const spec::ModelDesc& d, Shard shard, int32_t index, ArenaPlan& plan,
                        LayerWeights& w) {
  ASSIGN_OR_RETURN(const spec::ModelDesc own, shard_shape(d, shard));
  const int64_t q = shard.rank * int64_t{own.q_width()};
  // With fewer KV heads than ranks, neighbours hold the same one.
  const int64_t kv = int64_t{shard.rank} * d.kv_heads / shard.of * d.head_dim;
  const int64_t ffn = shard.rank * int64_t{own.ffn};
  const Part q_rows{.row = q, .rows = own.q_width()}, kv_rows{.row = kv, .rows = own.kv_width()};
  const Part ffn_rows{.row = ffn, .rows = own.ffn};
  const std::string p = format("blk.{}.", index);
  TRY(plan.vector(p + "attn_norm.weight", d.hidden, &w.attention_norm));
  TRY(plan.matrix(p + "attn_q.weight", d.q_width(), d.hidden, q_rows, &w.q));
  TRY(plan.matrix(p + "attn_k.weight", d.kv_width(), d.hidden, kv_rows, &w.k));
  TRY(plan.matrix(p + "attn_v.weight", d.kv_width(), d.hidden, kv_rows, &w.v));
  if (d.qkv_bias) {
    TRY(plan.vector(p + "attn_q.bias", d.q_width(), &w.q_bias, q, own.q_width()));
    TRY(plan.vector(p + "attn_k.bias", d.kv_width(), &w.k_bias, kv, own.kv_width()));
    TRY(plan.vector(p + "attn_v.bias", d.kv_width(), &w.v_bias, kv, own.kv_width()));
  }
  if (d.qk_norm) {
    TRY(plan.vector(p + "attn_q_norm.weight", d.head_dim, &w.q_norm));
    TRY(plan.vector(p + "attn_k_norm.weight", d.head_dim, &w.k_norm));
  }
  TRY(plan.matrix(p + "attn_output.weight", d.hidden, d.q_width(),
                  {.col = q, .cols = own.q_width()}, &w.o, true, shard.of));
  TRY(plan.vector(p + "ffn_norm.weight", d.hidden, &w.ffn_norm));
  TRY(plan.matrix(p + "ffn_gate.weight", d.ffn, d.hidden, ffn_rows, &w.gate));
  TRY(plan.matrix(p + "ffn_up.weight", d.ffn, d.hidden, ffn_rows, &w.up));
  TRY(plan.matrix(p + "ffn_down.weight", d.hidden, d.ffn, {.col = ffn, .cols = own.ffn}, &w.down,
                  true, shard.of));
  return {};
}

// The rank's rows of the output matrix: whole panels, as even as they go.
Result<Part> output_part(const spec::ModelDesc& d, Shard shard) {
  const int64_t panels = (d.vocab + kPanelRows - 1) / kPanelRows;
  const int64_t from = panels * shard.rank / shard.of * kPanelRows;
  const int64_t to = std::min<int64_t>(panels * (shard.rank + 1) / shard.of * kPanelRows, d.vocab);
  if (panels < shard.of) {
    return errorf(Code::kUnsupported, "a vocabulary of {} is too small for {} ranks", d.vocab,
                  shard.of);
  }
  return Part{.row = from, .rows = to - from};
}

}  // namespace

int32_t reduction_pieces(DType dtype, int64_t cols) {
  const int64_t block = dtype == DType::kBF16 ? 2 : dtype_info(dtype).block;
  int32_t pieces = cols % (8 * block) == 0 && cols / 8 >= 1024 ? 8 : 4;
  while (cols % (pieces * block) != 0) pieces /= 2;
  return std::max(pieces, 1);
}

Result<spec::ModelDesc> shard_shape(const spec::ModelDesc& d, Shard shard) {
  if (shard.of < 1 || !std::has_single_bit(static_cast<uint32_t>(shard.of)) || shard.rank < 0 ||
      shard.rank >= shard.of) {
    return errorf(Code::kInvalidArgument,
                  "tensor-parallel rank {} of {} makes no sense: ranks are a power of two",
                  shard.rank, shard.of);
  }
  if (d.heads % shard.of != 0 || d.ffn % shard.of != 0 ||
      (d.kv_heads % shard.of != 0 && shard.of % d.kv_heads != 0)) {
    return errorf(Code::kUnsupported,
                  "{} heads, {} KV heads and a feed-forward width of {} cannot be split over {} "
                  "tensor-parallel ranks",
                  d.heads, d.kv_heads, d.ffn, shard.of);
  }
  spec::ModelDesc own = d;
  own.heads = d.heads / shard.of;
  own.kv_heads = std::max(d.kv_heads / shard.of, 1);
  own.ffn = d.ffn / shard.of;
  return own;
}

Result<Weights> Weights::load(std::shared_ptr<const ModelFile> file, LayerRange layers,
                              ComputeTeam& team, const LoadProgress& progress, Shard shard) {
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
    TRY(plan_layer(d, shard, layers.begin + i, plans[at], w.stack_[at]));
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
    ASSIGN_OR_RETURN(const Part rows, output_part(d, shard));
    TRY(head.matrix(output, d.vocab, d.hidden, rows, &w.output_));
    w.first_output_row_ = static_cast<int32_t>(rows.row);
    total += head.bytes();
  }
  const bool has_whole_table = w.is_last() && embedding == output && shard.of == 1;
  if (w.is_first() && !has_whole_table) {
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
