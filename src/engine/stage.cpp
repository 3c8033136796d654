// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/stage.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::engine {
namespace {

// Radians a position for each pair of rotated dimensions.
std::vector<double> rope_frequencies(const spec::ModelDesc& d) {
  const int32_t pairs = d.rope_dim / 2;
  std::vector<double> frequencies(static_cast<size_t>(pairs));
  for (int32_t i = 0; i < pairs; ++i) {
    double f = std::pow(static_cast<double>(d.rope_theta), -2.0 * i / d.rope_dim);
    switch (d.rope_scaling) {
      case spec::RopeScaling::kNone:
        break;
      case spec::RopeScaling::kLinear:
        f /= static_cast<double>(d.rope_factor);
        break;
      case spec::RopeScaling::kLlama3: {
        // Turns within the original context: many are kept, few are stretched, a ramp between.
        const double turns = d.rope_original_context * f / (2 * std::numbers::pi);
        const double low = static_cast<double>(d.rope_low_freq);
        const double high = static_cast<double>(d.rope_high_freq);
        const double keep = high > low ? std::clamp((turns - low) / (high - low), 0.0, 1.0)
                                       : (turns >= high ? 1.0 : 0.0);
        f = keep * f + (1 - keep) * f / static_cast<double>(d.rope_factor);
        break;
      }
      case spec::RopeScaling::kTable:
        f /= static_cast<double>(d.rope_factors[static_cast<size_t>(i)]);
        break;
    }
    frequencies[static_cast<size_t>(i)] = f;
  }
  return frequencies;
}

Result<void> check_shape(const spec::ModelDesc& d) {
  if (d.heads <= 0 || d.kv_heads <= 0 || d.heads % d.kv_heads != 0 || d.head_dim <= 0 ||
      d.rope_dim <= 0 || d.rope_dim % 2 != 0 || d.rope_dim > d.head_dim) {
    return errorf(Code::kUnsupported,
                  "attention with {} heads, {} KV heads of {} ({} rotated) cannot be computed",
                  d.heads, d.kv_heads, d.head_dim, d.rope_dim);
  }
  if (d.rope_scaling == spec::RopeScaling::kTable &&
      d.rope_factors.size() != static_cast<size_t>(d.rope_dim / 2)) {
    return errorf(Code::kDataCorrupt, "the model has {} rope factors for {} rotated pairs",
                  d.rope_factors.size(), d.rope_dim / 2);
  }
  return {};
}

// Rounds to the nearest float16 values.
void round_to_half(const KernelTable& kernels, float* x, int64_t n) {
  uint16_t half[256];
  for (int64_t i = 0; i < n; i += 256) {
    const int64_t count = std::min<int64_t>(256, n - i);
    kernels.to_half(x + i, count, half);
    kernels.from_half(half, count, x + i);
  }
}

// A token's key as float16, its numbers kBlockTokens apart.
void store_key(const KernelTable& kernels, const float* key, int64_t n, uint16_t* to) {
  uint16_t half[256];
  for (int64_t i = 0; i < n; i += 256) {
    const int64_t count = std::min<int64_t>(256, n - i);
    kernels.to_half(key + i, count, half);
    for (int64_t j = 0; j < count; ++j) to[(i + j) * kv::kBlockTokens] = half[j];
  }
}

bool is_quantised(const PackedMatrix& w) { return act_kind(w.dtype) == ActKind::kInt8; }

// What a thread reads before it looks whether others have taken the rest: some microseconds.
constexpr int64_t kLeastPieceBytes = 64 << 10;

size_t floats(int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols); }

}  // namespace

int32_t StepView::rows() const {
  int32_t total = 0;
  for (const StepSpan& span : spans) total += span.rows();
  return total;
}

int64_t Stage::shared_floats(const spec::ModelDesc& d, const StageOptions& options,
                             int32_t ranks) {
  const int64_t logit_rows = std::max(options.max_logit_rows, 1);
  const int64_t rows = std::max<int64_t>(options.max_rows, logit_rows);
  return 2 * (ranks * rows * (d.hidden + kMaxLoraRank) + logit_rows * d.vocab);
}

Result<Stage> Stage::load(std::shared_ptr<const ModelFile> file, const StageOptions& options,
                          const KernelTable& kernels, ComputeTeam& team,
                          const LoadProgress& progress) {
  const spec::ModelDesc& d = file->desc();
  TRY(check_shape(d));
  Stage stage(kernels, team);
  stage.options_ = options;
  if (stage.options_.layers.empty()) stage.options_.layers = {0, d.layers};
  stage.options_.max_logit_rows = std::max(options.max_logit_rows, 1);
  stage.options_.max_rows = std::max(options.max_rows, stage.options_.max_logit_rows);
  stage.shard_ = options.shard();
  ASSIGN_OR_RETURN(stage.own_, shard_shape(d, stage.shard_));
  if (stage.shard_.of > 1) {
    const auto needed = static_cast<size_t>(shared_floats(d, options, stage.shard_.of));
    const size_t given = options.collective->memory().size();
    if (given < needed) {
      return errorf(Code::kInvalidArgument,
                    "the tensor-parallel group shares {} numbers; {} are needed", given, needed);
    }
  }
  ASSIGN_OR_RETURN(Weights weights, Weights::load(file, stage.options_.layers, team, progress,
                                                  stage.shard_));
  stage.weights_ = std::make_unique<Weights>(std::move(weights));
  ASSIGN_OR_RETURN(stage.pool_, kv::BlockPool::create(stage.options_.layers.size(),
                                                      options.kv_blocks,
                                                      {stage.own_.kv_heads, d.head_dim}));
  stage.rope_frequencies_ = rope_frequencies(d);
  TRY(stage.allocate_buffers());
  return stage;
}

Result<void> Stage::allocate_buffers() {
  const spec::ModelDesc& d = own_;
  const int64_t rows = options_.max_rows;
  const int64_t logit_rows =
      weights_->is_last() && shard_.of == 1 ? options_.max_logit_rows : 0;
  const std::pair<std::span<float>*, int64_t> buffers[] = {
      {&cos_, rows * (d.rope_dim / 2)}, {&sin_, rows * (d.rope_dim / 2)},
      {&q_, rows * d.q_width()},        {&k_, rows * d.kv_width()},
      {&v_, rows * d.kv_width()},       {&mixed_, rows * d.q_width()},
      {&gate_, rows * d.ffn},           {&up_, rows * d.ffn},
      {&update_, rows * d.hidden},      {&normed_, rows * d.hidden},
      {&logits_, logit_rows * d.vocab}};
  constexpr int64_t kFloat = sizeof(float);
  int64_t total = 0;
  for (const auto& [buffer, count] : buffers) total += Arena::rounded(count * kFloat);
  ASSIGN_OR_RETURN(buffers_, Arena::create(total));
  for (const auto& [buffer, count] : buffers) {
    *buffer = {reinterpret_cast<float*>(buffers_.take(count * kFloat)), static_cast<size_t>(count)};
  }
  const int64_t bytes = attention_scratch_floats(d.head_dim) * static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(scratch_arena_, Arena::create(Arena::rounded(bytes) * team_->threads()));
  for (int t = 0; t < team_->threads(); ++t) {
    attention_scratch_.push_back(reinterpret_cast<float*>(scratch_arena_.take(bytes)));
  }
  return {};
}

// --- one step -----------------------------------------------------------------------------------

Result<void> Stage::run(const StepView& step, std::span<float> hidden, LayerRange sub) {
  const LayerRange held = options_.layers;
  if (sub.empty()) sub = held;
  CHECK(held.begin <= sub.begin && sub.end <= held.end, sub.begin, sub.end);
  const int32_t rows = step.rows();
  CHECK(rows <= options_.max_rows, rows, options_.max_rows);
  CHECK(hidden.size() >= floats(rows, desc().hidden), hidden.size(), rows);
  if (rows == 0) return {};
  place_rows(step);
  lora_.seal();
  parts_ = nullptr;
  const bool embed = sub.begin == 0;
  team_->parallel_for(rows, [&](int64_t row, int) { prepare_row(row, hidden.data(), embed); });
  for (int32_t i = sub.begin; i < sub.end; ++i) {
    TRY(run_layer(i - held.begin, rows, hidden.data()));
  }
  team_->parallel_for(rows, [&](int64_t row, int) { add_update(hidden.data(), row); });
  return {};
}

// Where every row lives, and the pieces that attention is cut into.
void Stage::place_rows(const StepView& step) {
  places_.clear();
  items_.clear();
  lora_.clear();
  const int32_t item_rows = std::max(1, kAttentionPairs / (own_.heads / own_.kv_heads));
  for (const StepSpan& span : step.spans) {
    const auto first = static_cast<int32_t>(places_.size());
    for (int32_t p = span.from; p < span.to; ++p) {
      const int32_t block = span.blocks[static_cast<size_t>(p / kv::kBlockTokens)];
      places_.push_back({p, block, span.tokens.empty() ? 0 : span.tokens[static_cast<size_t>(
                                                                 p - span.from)]});
    }
    for (int32_t row = 0; span.adapter != nullptr && row < span.rows(); ++row) {
      lora_.add_row(*span.adapter, first + row);
    }
    for (int32_t p = span.from; p < span.to; p += item_rows) {
      items_.push_back({&span, first + p - span.from, p, std::min(item_rows, span.to - p)});
    }
  }
}

// The row's rotation angles, and its embedding if the model begins here.
void Stage::prepare_row(int64_t row, float* hidden, bool embed) {
  const spec::ModelDesc& d = desc();
  const RowPlace& place = places_[static_cast<size_t>(row)];
  const int64_t pairs = d.rope_dim / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    const double angle = place.position * rope_frequencies_[static_cast<size_t>(i)];
    cos_[static_cast<size_t>(row * pairs + i)] = static_cast<float>(std::cos(angle));
    sin_[static_cast<size_t>(row * pairs + i)] = static_cast<float>(std::sin(angle));
  }
  if (embed) {
    weights_->embed(place.token, {hidden + row * d.hidden, static_cast<size_t>(d.hidden)});
  }
  std::fill_n(update_.begin() + row * d.hidden, d.hidden, 0.0f);
}

void Stage::add_update(float* hidden, int64_t row) {
  const int64_t n = own_.hidden;
  float* update = update_.data() + row * n;
  if (parts_ != nullptr) {
    sum_parts(parts_ + row * n, shard_.of, options_.max_rows * n, n, update);
  }
  kernels_->add(hidden + row * n, update, n);
  if (const float* more = lora_.kept(row, n)) kernels_->add(hidden + row * n, more, n);
}

float* Stage::update_target() {
  if (shard_.of == 1) return update_.data();
  const int64_t part = options_.max_rows * int64_t{own_.hidden};
  return options_.collective->memory().data() + (exchange_ * shard_.of + shard_.rank) * part;
}

Result<void> Stage::finish_update(int32_t index, LoraTarget target, const float* x, int64_t ldx) {
  const int64_t lora_part = options_.max_rows * int64_t{kMaxLoraRank};
  if (shard_.of == 1) {
    if (lora_.empty()) return {};
    lora_parts_.resize(static_cast<size_t>(lora_part));
    lora_.shrink(index, target, x, ldx, lora_parts_.data());
    lora_.expand(index, target, lora_parts_.data(), 1, 0, own_.hidden);
    return {};
  }
  float* const memory = options_.collective->memory().data();
  const int64_t part = options_.max_rows * int64_t{own_.hidden};
  const int64_t before = 2 * (shard_.of * part + options_.max_logit_rows * int64_t{own_.vocab});
  float* const lora = memory + before + exchange_ * shard_.of * lora_part;
  lora_.shrink(index, target, x, ldx, lora + shard_.rank * lora_part);
  TRY(options_.collective->barrier());
  lora_.expand(index, target, lora, shard_.of, lora_part, own_.hidden);
  parts_ = memory + exchange_ * shard_.of * part;
  exchange_ = 1 - exchange_;
  return {};
}

Result<void> Stage::run_layer(int32_t index, int32_t rows, float* hidden) {
  const spec::ModelDesc& d = own_;
  const LayerWeights& w = weights_->layer(index);
  const auto normalise = [&](const float* weight, const PackedMatrix& next) {
    return [this, weight, hidden, &d, half = is_quantised(next)](int64_t row) {
      add_update(hidden, row);  // the residual of the block before
      float* y = normed_.data() + row * d.hidden;
      kernels_->rmsnorm(hidden + row * d.hidden, weight, d.norm_eps, d.hidden, y);
      if (half) round_to_half(*kernels_, y, d.hidden);
    };
  };
  const Product qkv[] = {{&w.q, q_.data(), d.q_width()},
                         {&w.k, k_.data(), d.kv_width()},
                         {&w.v, v_.data(), d.kv_width()}};
  multiply(qkv, normed_.data(), rows, normalise(w.attention_norm, w.q));
  const LoraRows::Output lora_qkv[] = {{LoraTarget::kQ, q_.data(), d.q_width()},
                                       {LoraTarget::kK, k_.data(), d.kv_width()},
                                       {LoraTarget::kV, v_.data(), d.kv_width()}};
  lora_.add(index, lora_qkv, normed_.data(), d.hidden);
  rotate_and_store(index, rows);
  attend(index);
  const Product o[] = {{&w.o, update_target(), d.hidden}};
  multiply(o, mixed_.data(), rows, [&](int64_t row) {
    if (is_quantised(w.o)) round_to_half(*kernels_, mixed_.data() + row * d.q_width(), d.q_width());
  });
  TRY(finish_update(index, LoraTarget::kO, mixed_.data(), d.q_width()));
  const Product gate_up[] = {{&w.gate, gate_.data(), d.ffn}, {&w.up, up_.data(), d.ffn}};
  multiply(gate_up, normed_.data(), rows, normalise(w.ffn_norm, w.gate));
  const LoraRows::Output lora_gate_up[] = {{LoraTarget::kGate, gate_.data(), d.ffn},
                                           {LoraTarget::kUp, up_.data(), d.ffn}};
  lora_.add(index, lora_gate_up, normed_.data(), d.hidden);
  const Product down[] = {{&w.down, update_target(), d.hidden}};
  multiply(down, gate_.data(), rows, [&](int64_t row) {
    float* gate = gate_.data() + row * d.ffn;
    kernels_->silu_mul(gate, up_.data() + row * d.ffn, d.ffn, gate);
  });
  return finish_update(index, LoraTarget::kDown, gate_.data(), d.ffn);
}

template <class BeforeRow>
void Stage::multiply(std::span<const Product> products, const float* x, int64_t rows,
                     BeforeRow&& before) {
  // Weights of different types may want the input in different forms; usually there is one.
  bool prepared[kActKinds] = {};
  bool first = true;
  for (const Product& product : products) {
    const ActKind kind = act_kind(product.weights->dtype);
    const int64_t cols = product.weights->cols;
    if (std::exchange(prepared[static_cast<size_t>(kind)], true)) continue;
    Activations& acts = acts_[static_cast<size_t>(kind)];
    acts.reset(kind, rows, cols);
    team_->parallel_for(acts.group_count(), [&](int64_t group, int) {
      const int64_t begin = group * acts.group_rows();
      for (int64_t row = begin; first && row < begin + acts.rows_in_group(group); ++row) {
        before(row);
      }
      kernels_->prepare(acts, group, group + 1, x, cols);
    });
    first = false;
  }
  multiply_prepared(products);
}

// The panels of all products in one row, divided over the threads.
void Stage::multiply_prepared(std::span<const Product> products) {
  int64_t panels = 0;
  for (const Product& product : products) panels += product.weights->panel_count();
  const int64_t panel = products[0].weights->panel_bytes;
  const int64_t least = std::max<int64_t>(1, kLeastPieceBytes / panel);
  const int64_t most = std::max(least, kGemmBatchBytes / panel / 2 * 2);
  team_->parallel_ranges(panels, [&](int64_t begin, int64_t end, int) {
    int64_t offset = 0;
    for (const Product& product : products) {
      const PackedMatrix& w = *product.weights;
      const int64_t from = std::max(begin - offset, int64_t{0});
      const int64_t to = std::min(end - offset, w.panel_count());
      offset += w.panel_count();
      if (from >= to) continue;
      kernels_->gemm(w, from, to, acts_[static_cast<size_t>(act_kind(w.dtype))], product.out,
                     product.ldo);
    }
  }, least, most);
}

// Bias, norm of each head, rotation; keys and values go to the KV cache as float16.
void Stage::rotate_and_store(int32_t index, int32_t rows) {
  const spec::ModelDesc& d = own_;
  const LayerWeights& w = weights_->layer(index);
  const kv::BlockLayout& layout = pool_.layout();
  uint16_t* const cache = pool_.layer(index);
  team_->parallel_for(rows, [&](int64_t row, int) {
    float* q = q_.data() + row * d.q_width();
    float* k = k_.data() + row * d.kv_width();
    float* v = v_.data() + row * d.kv_width();
    if (w.q_bias != nullptr) {
      kernels_->add(q, w.q_bias, d.q_width());
      kernels_->add(k, w.k_bias, d.kv_width());
      kernels_->add(v, w.v_bias, d.kv_width());
    }
    if (w.q_norm != nullptr) {
      for (int32_t h = 0; h < d.heads; ++h) {
        kernels_->rmsnorm(q + h * d.head_dim, w.q_norm, d.norm_eps, d.head_dim, q + h * d.head_dim);
      }
      for (int32_t h = 0; h < d.kv_heads; ++h) {
        kernels_->rmsnorm(k + h * d.head_dim, w.k_norm, d.norm_eps, d.head_dim, k + h * d.head_dim);
      }
    }
    const float* cos = cos_.data() + row * (d.rope_dim / 2);
    const float* sin = sin_.data() + row * (d.rope_dim / 2);
    kernels_->rope(q, d.heads, d.head_dim, d.rope_dim, cos, sin, d.rope_pairing);
    kernels_->rope(k, d.kv_heads, d.head_dim, d.rope_dim, cos, sin, d.rope_pairing);
    if (is_quantised(w.q)) round_to_half(*kernels_, q, d.q_width());
    const RowPlace& place = places_[static_cast<size_t>(row)];
    uint16_t* block = cache + place.block * layout.block_stride();
    const int32_t slot = place.position % kv::kBlockTokens;
    for (int32_t h = 0; h < d.kv_heads; ++h) {
      store_key(*kernels_, k + h * d.head_dim, d.head_dim, block + layout.k_offset(h, slot));
      kernels_->to_half(v + h * d.head_dim, d.head_dim, block + layout.v_offset(h, slot));
    }
  });
}

void Stage::attend(int32_t index) {
  const spec::ModelDesc& d = own_;
  const kv::BlockLayout& layout = pool_.layout();
  const int32_t group = d.heads / d.kv_heads;
  const auto items = static_cast<int64_t>(items_.size());
  // Head by head, so that an even split of the parts is an even split of the work.
  team_->parallel_for(d.kv_heads * items, [&](int64_t part, int thread) {
    const auto head = static_cast<int32_t>(part / items);
    const AttentionItem& item = items_[static_cast<size_t>(part % items)];
    const int64_t offset = item.first_row * int64_t{d.q_width()} + head * group * d.head_dim;
    AttentionArgs args;
    args.q = q_.data() + offset;
    args.q_stride = d.q_width();
    args.out = mixed_.data() + offset;
    args.out_stride = d.q_width();
    args.rows = item.rows;
    args.first_position = item.from;
    args.heads = group;
    args.head_dim = d.head_dim;
    args.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d.head_dim)));
    args.window = d.sliding_window;
    args.k = pool_.layer(index) + layout.k_offset(head, 0);
    args.v = pool_.layer(index) + layout.v_offset(head, 0);
    args.block_stride = layout.block_stride();
    args.blocks = item.span->blocks.data();
    args.scratch = attention_scratch_[static_cast<size_t>(thread)];
    kernels_->attention(args);
  });
}

// --- the end of the last stage ------------------------------------------------------------------

Result<std::span<const float>> Stage::logits(std::span<const float> hidden,
                                             std::span<const int32_t> rows) {
  const spec::ModelDesc& d = desc();
  const auto count = static_cast<int64_t>(rows.size());
  CHECK(weights_->is_last() && count <= options_.max_logit_rows, count, options_.max_logit_rows);
  if (count == 0) return std::span<const float>();
  float* out = logits_.data();
  if (shard_.of > 1) {  // every rank writes its columns; the buffers follow those of the sums
    const int64_t sums = 2 * shard_.of * int64_t{options_.max_rows} * d.hidden;
    const int64_t buffer = options_.max_logit_rows * int64_t{d.vocab};
    out = options_.collective->memory().data() + sums + logits_exchange_ * buffer;
    logits_exchange_ = 1 - logits_exchange_;
  }
  const Product head[] = {{&weights_->output(), out + weights_->first_output_row(), d.vocab}};
  multiply(head, normed_.data(), count, [&](int64_t i) {
    float* state = normed_.data() + i * d.hidden;
    final_state(hidden, rows[static_cast<size_t>(i)], {state, static_cast<size_t>(d.hidden)});
    if (is_quantised(weights_->output())) round_to_half(*kernels_, state, d.hidden);
  });
  if (shard_.of > 1) TRY(options_.collective->barrier());
  return std::span<const float>(out, floats(count, d.vocab));
}

void Stage::final_state(std::span<const float> hidden, int32_t row, std::span<float> out) const {
  const int64_t n = desc().hidden;
  kernels_->rmsnorm(hidden.data() + row * n, weights_->output_norm(), desc().norm_eps, n,
                    out.data());
}

}  // namespace towline::engine
