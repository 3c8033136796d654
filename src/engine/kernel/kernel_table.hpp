// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// KernelTable: the arithmetic of the decoder, as a struct of functions chosen once at start.
//
// There are three tables: `generic` (portable C++, the oracle), `avx2` and `avx512`. All do the
// same operations in the same order, which is part of this interface (docs/kernels.md spells it
// out):
//   - a gemm output is one chain of fused multiply-adds over k in ascending order (per k shard);
//     how many rows are computed together, and on how many threads, changes nothing;
//   - sums over a vector use 16 lanes (lane = index mod 16) and one fixed tree over the lanes;
//   - attention walks the KV blocks of a row in token order in chunks of 64 tokens aligned to
//     absolute positions, whatever the number of query rows.
// So a sequence's numbers are the same bits in any batch, chunking and thread count, and the same
// in all three tables, except products with BF16 weights, where avx512 uses the processor's own
// bf16 dot product, whose rounding inside a pair differs.
//
// Functions are pure apart from their outputs and may be called from many threads on disjoint
// outputs; none allocates, but for a scratch of up to 1 MiB that gemm keeps for each thread that
// calls it. Pointers need no alignment unless said.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "engine/kernel/activations.hpp"
#include "engine/kernel/packed.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

inline constexpr int kKvBlockTokens = 16;

// gemm keeps about this many bytes of panels in L2 while many rows pass by: shorter ranges of
// panels than this are slower with many rows.
inline constexpr int64_t kGemmBatchBytes = 512 << 10;

// Attention of consecutive query rows of one sequence, for some query heads of one KV head.
// KV memory of one layer: of a block and KV head, K is float16 [head_dim][16 tokens] (one dimension
// of 16 tokens is a vector of the kernels) and V is float16 [16 tokens][head_dim].
struct AttentionArgs {
  const float* q = nullptr;     // row 0, first head of the item; heads head_dim apart
  int64_t q_stride = 0;         // floats from a query row to the next
  float* out = nullptr;         // laid out as q
  int64_t out_stride = 0;
  int32_t rows = 0;             // query row i sits at position first_position + i
  int32_t first_position = 0;   // and sees positions [max(0, p - window + 1), p]
  int32_t heads = 0;            // query heads of this item, all of the one KV head
  int32_t head_dim = 0;
  float scale = 1.0f;           // usually 1 / sqrt(head_dim)
  int32_t window = 0;           // 0: no sliding window
  const uint16_t* k = nullptr;  // block b: k + b * block_stride, already moved to layer and head
  const uint16_t* v = nullptr;
  int64_t block_stride = 0;     // in float16 elements
  // Block of tokens [16 i, 16 i + 16) is blocks[i]. Only blocks that the rows see are read, and
  // inside the last one only tokens up to the row's own position matter (the rest may be garbage).
  const int32_t* blocks = nullptr;
  float* scratch = nullptr;     // attention_scratch_floats(), 64-byte aligned, one per thread
};
// Query rows of one call are worked on at most this many (row, head) pairs at a time.
inline constexpr int kAttentionPairs = 64;
int64_t attention_scratch_floats(int32_t head_dim);

struct KernelTable {
  std::string_view name;  // "generic", "avx2", "avx512"

  // Converts rows of x (float, ldx apart) of groups [group_begin, group_end) into `acts`.
  void (*prepare)(Activations& acts, int64_t group_begin, int64_t group_end, const float* x,
                  int64_t ldx);

  // out[i * ldo + r] = sum over k of w[r, k] * x[i, k], for all rows i of `acts` and for the weight
  // rows r of panels [panel_begin, panel_end). Requires acts.kind() == act_kind(w.dtype) and
  // acts.cols() == w.cols. Writes nothing beyond w.rows.
  void (*gemm)(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end,
               const Activations& acts, float* out, int64_t ldo);

  void (*attention)(const AttentionArgs& args);

  // y = x / sqrt(mean(x^2) + eps) * weight. y may be x.
  void (*rmsnorm)(const float* x, const float* weight, float eps, int64_t n, float* y);
  void (*add)(float* x, const float* y, int64_t n);  // x += y (residual, bias, partial sums)
  // Rotates the first rope_dim of head_dim dimensions of `heads` consecutive heads in place.
  // cos, sin: rope_dim / 2 values of the row's position.
  void (*rope)(float* x, int32_t heads, int32_t head_dim, int32_t rope_dim, const float* cos,
               const float* sin, spec::RopePairing pairing);
  // out = silu(gate) * up, silu(z) = z / (1 + exp(-z)). out may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  void (*to_half)(const float* x, int64_t n, uint16_t* y);    // nearest even: what goes into KV
  void (*from_half)(const uint16_t* x, int64_t n, float* y);
  // x = exp(x - max(x)) / sum, and returns log(sum) + max(x): sampling and log-probabilities.
  float (*softmax)(float* x, int64_t n);
  float (*exp)(float x);  // the exponential used by all of the above, for tests

  // For the probes (probe.hpp). read_all loads every byte once and returns something that depends
  // on them; bytes is a multiple of 1024. The bursts run the dot-product instruction of gemm
  // (int8; float32) on registers and return how many operations they did.
  uint64_t (*read_all)(const std::byte* from, int64_t bytes);
  int64_t (*int8_burst)(int64_t rounds);
  int64_t (*fma_burst)(int64_t rounds);
};

// The table of that name if this build has it and this processor can run it; the error names the
// ones that would do. "auto" (or empty): the best.
Result<const KernelTable*> kernel_table(std::string_view name = "auto");
// Every table that this processor can run, the best first.
std::vector<const KernelTable*> attainable_tables();
// What the processor offers, for `towline doctor`: "avx2 fma f16c avx512f ... avx512_bf16".
std::string_view cpu_features();

// One a translation unit; null where the compiler or the architecture lacks the instructions.
const KernelTable* generic_table();
const KernelTable* avx2_table();
const KernelTable* avx512_table();

}  // namespace towline::engine
