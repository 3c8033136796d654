// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ModelDesc: the shape and the switches of a decoder-only transformer, as data.
//
// There is one decoder; Llama 1/2/3.x, Mistral, Qwen2/2.5/3, SmolLM and TinyStories-class models
// differ only in these fields. GGUF metadata and Hugging Face config.json both map to it
// (engine/format). The planner and the simulator read the same struct to size weights, KV cache
// and activations, so a model description without any weights is useful too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/units.hpp"

namespace towline::spec {

// How rotary embeddings pair the dimensions of a head.
//   kInterleaved: (0,1), (2,3), ...        GGUF files of llama and mistral
//   kHalfSplit:   (0,d/2), (1,d/2+1), ...  Hugging Face files, and GGUF files of qwen2/qwen3
enum class RopePairing { kInterleaved, kHalfSplit };

// How frequencies are stretched beyond the trained context.
enum class RopeScaling {
  kNone,
  kLinear,  // every angle / factor
  kLlama3,  // low frequencies / factor, high ones as they are, a ramp between
  kTable,   // rope_factors holds one divisor a frequency (GGUF's rope_freqs tensor)
};

struct ModelDesc {
  std::string name;          // for people; from the file or the path
  std::string architecture;  // "llama", "mistral", "qwen2", "qwen3"

  int32_t layers = 0;
  int32_t hidden = 0;        // width of the residual stream
  int32_t ffn = 0;           // width of gate and up
  int32_t heads = 0;         // query heads
  int32_t kv_heads = 0;      // divides heads
  int32_t head_dim = 0;      // usually hidden / heads, but not always (qwen3)
  int32_t vocab = 0;
  int32_t context = 0;       // trained context, tokens

  float norm_eps = 1e-5f;    // RMSNorm
  bool tied_embeddings = false;  // the output matrix is the embedding matrix
  bool qkv_bias = false;     // qwen2
  bool qk_norm = false;      // qwen3: RMSNorm over each head of q and k before RoPE
  int32_t sliding_window = 0;    // mistral: attend to the last this many tokens; 0 = all

  RopePairing rope_pairing = RopePairing::kInterleaved;
  float rope_theta = 10000.0f;
  int32_t rope_dim = 0;      // dimensions of a head that rotate; head_dim unless partial
  RopeScaling rope_scaling = RopeScaling::kNone;
  float rope_factor = 1.0f;
  float rope_low_freq = 1.0f, rope_high_freq = 4.0f;  // kLlama3
  int32_t rope_original_context = 8192;               // kLlama3
  std::vector<float> rope_factors;                    // kTable: rope_dim / 2 divisors

  int32_t q_width() const { return heads * head_dim; }
  int32_t kv_width() const { return kv_heads * head_dim; }
  // Parameters of one decoder layer (matrices only), of embedding + head, and in total.
  int64_t layer_parameters() const;
  int64_t parameters() const;
  // Bytes of K and V that one token adds to one layer, for a cache element of `element` bytes.
  Bytes kv_bytes_per_token_layer(int32_t element = 2) const {
    return Bytes(int64_t{2} * kv_width() * element);
  }
};

}  // namespace towline::spec
