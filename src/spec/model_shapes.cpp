// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/model_shapes.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/fmt.hpp"

namespace towline::spec {
namespace {

struct Shape {
  std::string_view name, architecture;
  int32_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, context;
  float theta, eps;
  bool tied;
  float llama3_factor = 1;     // > 1: llama3 rotary scaling over an 8,192 token context
  int32_t sliding_window = 0;
};

constexpr auto kShapes = std::to_array<Shape>({
    {"llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, 131072, 5e5f, 1e-5f, true, 32},
    {"llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128, 128256, 131072, 5e5f, 1e-5f, true, 32},
    {"llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, 5e5f, 1e-5f, false, 8},
    {"llama-3.1-70b", "llama", 80, 8192, 28672, 64, 8, 128, 128256, 131072, 5e5f, 1e-5f, false, 8},
    {"llama-3-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 8192, 5e5f, 1e-5f, false},
    {"llama-3-70b", "llama", 80, 8192, 28672, 64, 8, 128, 128256, 8192, 5e5f, 1e-5f, false},
    {"llama2-7b", "llama", 32, 4096, 11008, 32, 32, 128, 32000, 4096, 1e4f, 1e-5f, false},
    {"llama2-13b", "llama", 40, 5120, 13824, 40, 40, 128, 32000, 4096, 1e4f, 1e-5f, false},
    {"llama2-70b", "llama", 80, 8192, 28672, 64, 8, 128, 32000, 4096, 1e4f, 1e-5f, false},
    {"llama1-7b", "llama", 32, 4096, 11008, 32, 32, 128, 32000, 2048, 1e4f, 1e-6f, false},
    {"llama1-30b", "llama", 60, 6656, 17920, 52, 52, 128, 32000, 2048, 1e4f, 1e-6f, false},
    {"llama1-65b", "llama", 80, 8192, 22016, 64, 64, 128, 32000, 2048, 1e4f, 1e-5f, false},
    {"tinyllama-1.1b", "llama", 22, 2048, 5632, 32, 4, 64, 32000, 2048, 1e4f, 1e-5f, false},
    {"smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, 1e5f, 1e-5f, true},
    {"smollm2-360m", "llama", 32, 960, 2560, 15, 5, 64, 49152, 8192, 1e5f, 1e-5f, true},
    {"smollm2-1.7b", "llama", 24, 2048, 8192, 32, 32, 64, 49152, 8192, 1.3e5f, 1e-5f, true},
    {"mistral-7b", "mistral", 32, 4096, 14336, 32, 8, 128, 32000, 32768, 1e4f, 1e-5f, false, 1,
     4096},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151936, 32768, 1e6f, 1e-6f, true},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, 32768, 1e6f, 1e-6f, true},
    {"qwen2.5-3b", "qwen2", 36, 2048, 11008, 16, 2, 128, 151936, 32768, 1e6f, 1e-6f, true},
    {"qwen2.5-7b", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, 32768, 1e6f, 1e-6f, false},
    {"qwen2.5-32b", "qwen2", 64, 5120, 27648, 40, 8, 128, 152064, 32768, 1e6f, 1e-6f, false},
    {"qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 40960, 1e6f, 1e-6f, true},
    {"qwen3-1.7b", "qwen3", 28, 2048, 6144, 16, 8, 128, 151936, 40960, 1e6f, 1e-6f, true},
    {"qwen3-4b", "qwen3", 36, 2560, 9728, 32, 8, 128, 151936, 40960, 1e6f, 1e-6f, true},
    {"qwen3-8b", "qwen3", 36, 4096, 12288, 32, 8, 128, 151936, 40960, 1e6f, 1e-6f, false},
});

ModelDesc to_desc(const Shape& s) {
  ModelDesc d;
  d.name = std::string(s.name);
  d.architecture = std::string(s.architecture);
  d.layers = s.layers;
  d.hidden = s.hidden;
  d.ffn = s.ffn;
  d.heads = s.heads;
  d.kv_heads = s.kv_heads;
  d.head_dim = d.rope_dim = s.head_dim;
  d.vocab = s.vocab;
  d.context = s.context;
  d.norm_eps = s.eps;
  d.tied_embeddings = s.tied;
  d.qkv_bias = s.architecture == "qwen2";
  d.qk_norm = s.architecture == "qwen3";
  d.sliding_window = s.sliding_window;
  d.rope_theta = s.theta;
  d.rope_pairing =
      s.architecture.starts_with("qwen") ? RopePairing::kHalfSplit : RopePairing::kInterleaved;
  if (s.llama3_factor > 1) {
    d.rope_scaling = RopeScaling::kLlama3;
    d.rope_factor = s.llama3_factor;
  }
  return d;
}

bool same_word(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

}  // namespace

std::span<const std::string_view> model_shape_names() {
  static const auto kNames = [] {
    std::array<std::string_view, kShapes.size()> names;
    for (size_t i = 0; i < names.size(); ++i) names[i] = kShapes[i].name;
    return names;
  }();
  return kNames;
}

Result<ModelDesc> model_shape(std::string_view name) {
  std::string known;
  for (const Shape& shape : kShapes) {
    if (same_word(shape.name, name)) return to_desc(shape);
    known += (known.empty() ? "" : ", ") + std::string(shape.name);
  }
  return errorf(Code::kNotFound, "no model shape is called '{}'; known are {}", name, known);
}

}  // namespace towline::spec
