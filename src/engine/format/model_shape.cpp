// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/model_shape.hpp"

#include <algorithm>
#include <cmath>

#include "base/fmt.hpp"
#include "engine/format/model_file.hpp"

namespace towline::engine {
namespace {

struct Limit {
  std::string_view what;
  int64_t value, low, high;
};

Error out_of_limit(const Limit& l) {
  return errorf(Code::kDataCorrupt, "the model's {} is {}; it must be in {}..{}", l.what, l.value,
                l.low, l.high);
}

Result<void> validate_floats(const spec::ModelDesc& d) {
  if (!(d.norm_eps >= 0 && d.norm_eps < 1)) {
    return errorf(Code::kDataCorrupt, "the model's norm epsilon is {}; it must be in [0, 1)",
                  d.norm_eps);
  }
  if (!(d.rope_theta > 0 && std::isfinite(d.rope_theta))) {
    return errorf(Code::kDataCorrupt, "the model's rotary base is {}; it must be positive",
                  d.rope_theta);
  }
  const bool factor_used = d.rope_scaling != spec::RopeScaling::kNone;
  if (factor_used && !(d.rope_factor > 0 && std::isfinite(d.rope_factor))) {
    return errorf(Code::kDataCorrupt,
                  "the model's rotary scaling factor is {}; it must be positive", d.rope_factor);
  }
  if (d.rope_scaling == spec::RopeScaling::kLlama3 &&
      !(d.rope_low_freq > 0 && d.rope_high_freq > d.rope_low_freq &&
        std::isfinite(d.rope_high_freq))) {
    return errorf(Code::kDataCorrupt,
                  "the model's llama3 rotary scaling has low factor {} and high factor {}; 0 < low "
                  "< high is needed",
                  d.rope_low_freq, d.rope_high_freq);
  }
  for (const float factor : d.rope_factors) {
    if (!(factor > 0 && std::isfinite(factor))) {
      return errorf(Code::kDataCorrupt,
                    "the model's table of rotary factors contains {}; all must be positive",
                    factor);
    }
  }
  return {};
}

void add_layer(const spec::ModelDesc& d, int32_t layer, std::vector<TensorShape>& out) {
  const auto add = [&](std::string_view name, int64_t rows, int64_t cols) {
    out.push_back({format("blk.{}.{}", layer, name), rows, cols});
  };
  add("attn_norm.weight", 1, d.hidden);
  add("attn_q.weight", d.q_width(), d.hidden);
  add("attn_k.weight", d.kv_width(), d.hidden);
  add("attn_v.weight", d.kv_width(), d.hidden);
  if (d.qkv_bias) {
    add("attn_q.bias", 1, d.q_width());
    add("attn_k.bias", 1, d.kv_width());
    add("attn_v.bias", 1, d.kv_width());
  }
  if (d.qk_norm) {
    add("attn_q_norm.weight", 1, d.head_dim);
    add("attn_k_norm.weight", 1, d.head_dim);
  }
  add("attn_output.weight", d.hidden, d.q_width());
  add("ffn_norm.weight", 1, d.hidden);
  add("ffn_gate.weight", d.ffn, d.hidden);
  add("ffn_up.weight", d.ffn, d.hidden);
  add("ffn_down.weight", d.hidden, d.ffn);
}

}  // namespace

Result<void> validate(const spec::ModelDesc& d) {
  const int64_t most = int64_t{1} << 20;
  for (const Limit& l : {Limit{"layer count", d.layers, 1, 4096},
                         Limit{"hidden width", d.hidden, 1, most},
                         Limit{"feed-forward width", d.ffn, 1, most},
                         Limit{"head count", d.heads, 1, 8192},
                         Limit{"key/value head count", d.kv_heads, 1, d.heads},
                         Limit{"head width", d.head_dim, 1, 16384},
                         Limit{"query width", int64_t{d.heads} * d.head_dim, 1, most},
                         Limit{"vocabulary size", d.vocab, 1, int64_t{1} << 24},
                         Limit{"context length", d.context, 1, int64_t{1} << 30},
                         Limit{"rotary width", d.rope_dim, 2, d.head_dim},
                         Limit{"sliding window", d.sliding_window, 0, int64_t{1} << 30},
                         Limit{"original context", d.rope_original_context, 1, int64_t{1} << 30}}) {
    if (l.value < l.low || l.value > l.high) return out_of_limit(l);
  }
  if (d.heads % d.kv_heads != 0) {
    return errorf(Code::kDataCorrupt,
                  "the model has {} heads, which {} key/value heads do not divide", d.heads,
                  d.kv_heads);
  }
  if (d.rope_dim % 2 != 0) {
    return errorf(Code::kDataCorrupt, "the model's rotary width {} is odd", d.rope_dim);
  }
  const size_t factors = d.rope_factors.size();
  const bool table = d.rope_scaling == spec::RopeScaling::kTable;
  if (table && factors != static_cast<size_t>(d.rope_dim / 2)) {
    return errorf(Code::kDataCorrupt,
                  "the model's table of rotary factors has {} entries; {} are needed", factors,
                  d.rope_dim / 2);
  }
  return validate_floats(d);
}

std::vector<TensorShape> needed_tensors(const spec::ModelDesc& d, LayerRange layers) {
  std::vector<TensorShape> out;
  const bool first = layers.begin == 0, last = layers.end == d.layers;
  if (first || (last && d.tied_embeddings)) out.push_back({"token_embd.weight", d.vocab, d.hidden});
  for (int32_t layer = layers.begin; layer < layers.end; ++layer) add_layer(d, layer, out);
  if (last) {
    out.push_back({"output_norm.weight", 1, d.hidden});
    if (!d.tied_embeddings) out.push_back({"output.weight", d.vocab, d.hidden});
  }
  return out;
}

Result<void> sort_tensors(std::vector<Tensor>& tensors) {
  std::ranges::sort(tensors, {}, &Tensor::name);
  const auto twin = std::ranges::adjacent_find(tensors, {}, &Tensor::name);
  if (twin == tensors.end()) return {};
  return errorf(Code::kDataCorrupt, "the tensor '{}' occurs twice", printable(twin->name));
}

std::string printable(std::string_view text) {
  constexpr size_t kMost = 80;
  std::string out(text.substr(0, kMost));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return text.size() > kMost ? out + "..." : out;
}

}  // namespace towline::engine
