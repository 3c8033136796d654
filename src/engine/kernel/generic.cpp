// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The portable table: the definition of every kernel, and the oracle of the others. Written to be
// read; its only concession to speed is that it is not wasteful.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/kernel/kernel_math.hpp"
#include "engine/kernel/kernel_table.hpp"
#include "engine/kernel/panel_layout.hpp"
#include "engine/kernel/prepare_rows.hpp"

namespace towline::engine {
namespace {

// Sixteen partial sums and the one order in which they are added up.
struct Lanes {
  float v[kLanes] = {};
  float sum() const {
    float quad[4];
    for (int i = 0; i < 4; ++i) {
      const float* l = v + 4 * i;
      quad[i] = (l[0] + l[2]) + (l[1] + l[3]);
    }
    return (quad[0] + quad[1]) + (quad[2] + quad[3]);
  }
};

float exp_generic(float x) {
  if (!(x >= kExpLowest)) return std::isnan(x) ? x : 0.0f;
  x = std::min(x, kExpHighest);
  const float n = std::nearbyint(x * kLog2E);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float y = kExpTaylor[0];
  for (int i = 1; i < 8; ++i) y = std::fma(y, r, kExpTaylor[i]);
  const auto exponent = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  return y * std::bit_cast<float>(exponent);
}

// --- activations ---

template <class T>
T* at(std::byte* base, int64_t bytes) {
  return reinterpret_cast<T*>(base + bytes);
}
template <class T>
const T* at(const std::byte* base, int64_t bytes) {
  return reinterpret_cast<const T*>(base + bytes);
}

struct Isa {
  static uint32_t largest(const float* x) {
    uint32_t most = 0;
    for (int k = 0; k < kActBlock; ++k) {
      most = std::max(most, std::bit_cast<uint32_t>(x[k]) & 0x7fffffffu);
    }
    return most;
  }
  static int32_t quantise(const float* x, float inverse, int8_t* q, int32_t* first) {
    int32_t sum = 0;
    for (int k = 0; k < kActBlock; ++k) {
      q[k] = static_cast<int8_t>(std::nearbyint(x[k] * inverse));
      sum += q[k];
      if (k == 15) *first = sum;
    }
    return sum;
  }
  static void place_bf16(const float* x, int64_t cols, int64_t r, int64_t size, std::byte* group) {
    for (int64_t k = 0; k < (cols + 1) / 2 * 2; ++k) {
      at<uint16_t>(group, 0)[(k / 2 * size + r) * 2 + k % 2] =
          k < cols ? float_to_bf16(x[k]) : uint16_t{0};
    }
  }
};

// --- matrix product ---

// 32 columns of the 16 rows of a panel: integers and the scales that go with them.
struct Block {
  int16_t w[kPanelRows][32];
  float d[kPanelRows];        // scale (of the first 16 columns for Q6_K)
  float second[kPanelRows];   // Q6_K: scale of the last 16 columns
  float m[kPanelRows];        // offset: value = d * w + m
};

float half_at(const std::byte* p) { return half_to_float(*at<uint16_t>(p, 0)); }

bool has_min(DType t) {
  return t == DType::kQ4_1 || t == DType::kQ5_1 || t == DType::kQ4_K || t == DType::kQ5_K;
}

void load_block(DType type, const std::byte* panel, int64_t block, Block& out) {
  const PanelUnit layout = panel_unit(type);
  const std::byte* unit = panel + block * 32 / layout.cols * layout.bytes;
  const int64_t g = block * 32 % layout.cols / 32;
  const std::byte* group = unit + layout.head + g * layout.group;
  const bool fifth = type == DType::kQ5_0 || type == DType::kQ5_1 || type == DType::kQ5_K;
  const bool sixth = type == DType::kQ6_K;
  const std::byte* nibbles = group + (sixth ? 2 * kVector : fifth ? kVector : 0);
  const int offset = type == DType::kQ4_0 ? 8 : type == DType::kQ5_0 ? 16 : sixth ? 32 : 0;
  for (int r = 0; r < kPanelRows; ++r) {
    for (int k = 0; k < 32; ++k) {
      const int j = k / 4, place = r * 4 + k % 4;
      if (type == DType::kQ8_0) {
        out.w[r][k] = static_cast<int16_t>(at<uint8_t>(group, j * kVector)[place] - 128);
        continue;
      }
      int q = at<uint8_t>(nibbles, j % 4 * kVector)[place] >> (j / 4 * 4) & 15;
      if (fifth) q |= (at<uint8_t>(group, 0)[place] >> j & 1) << 4;
      if (sixth) q |= (at<uint8_t>(group, j / 4 * kVector)[place] >> (j % 4 * 2) & 3) << 4;
      out.w[r][k] = static_cast<int16_t>(q - offset);
    }
    const float d = half_at(unit + r * 2);
    out.d[r] = d;
    out.m[r] = 0.0f;
    if (type == DType::kQ4_1 || type == DType::kQ5_1) out.m[r] = half_at(unit + 32 + r * 2);
    if (type == DType::kQ4_K || type == DType::kQ5_K) {
      out.d[r] = d * at<uint8_t>(unit, 64 + g * 16)[r];
      out.m[r] = -half_at(unit + 32 + r * 2) * at<uint8_t>(unit, 192 + g * 16)[r];
    }
    if (sixth) {
      out.d[r] = d * at<int8_t>(unit, 32 + g * 32)[r];
      out.second[r] = d * at<int8_t>(unit, 48 + g * 32)[r];
    }
  }
}

// acc[row][r] += one block of weights times one block of activations.
void add_block(DType type, const Block& w, const std::byte* acts, int64_t rows,
               float (*acc)[kPanelRows]) {
  const bool min = has_min(type);
  for (int64_t i = 0; i < rows; ++i) {
    const auto* q = at<int8_t>(acts, i * kActBlock);
    const float d = at<float>(acts, rows * 32)[i];
    const float c = at<float>(acts, rows * 36)[i];
    for (int r = 0; r < kPanelRows; ++r) {
      int32_t first = 0, second = 0;
      for (int k = 0; k < 16; ++k) first += w.w[r][k] * q[k];
      for (int k = 16; k < 32; ++k) second += w.w[r][k] * q[k];
      float& sum = acc[i][r];
      if (type == DType::kQ6_K) {
        const float u = std::fma(w.d[r], static_cast<float>(first),
                                 w.second[r] * static_cast<float>(second));
        sum = std::fma(u, d, sum);
      } else {
        sum = std::fma(w.d[r], static_cast<float>(first + second) * d, sum);
        if (min) sum = std::fma(w.m[r], c, sum);
      }
    }
  }
}

// acc[row][r] += columns [begin, end) of plain numbers.
void add_columns(DType type, const std::byte* panel, int64_t begin, int64_t end,
                 const std::byte* acts, int64_t rows, float (*acc)[kPanelRows]) {
  for (int64_t k = begin; k < end; ++k) {
    for (int r = 0; r < kPanelRows; ++r) {
      float w = 0.0f;
      if (type == DType::kF32) w = at<float>(panel, 0)[k * kPanelRows + r];
      if (type == DType::kF16) w = half_to_float(at<uint16_t>(panel, 0)[k * kPanelRows + r]);
      if (type == DType::kBF16) {
        w = bf16_to_float(at<uint16_t>(panel, 0)[(k / 2 * kPanelRows + r) * 2 + k % 2]);
      }
      for (int64_t i = 0; i < rows; ++i) {
        const float x = type == DType::kBF16
                            ? bf16_to_float(at<uint16_t>(acts, 0)[(k / 2 * rows + i) * 2 + k % 2])
                            : at<float>(acts, 0)[k * rows + i];
        acc[i][r] = std::fma(w, x, acc[i][r]);
      }
    }
  }
}

using Tile = float[kMaxGroupRows][kPanelRows];

// The products of columns [begin, end) of a panel with the rows of a group.
void sum_range(const PackedMatrix& w, const std::byte* panel, int64_t begin, int64_t end,
               const std::byte* acts, int64_t rows, Tile& tile) {
  std::memset(tile, 0, sizeof tile);
  if (act_kind(w.dtype) != ActKind::kInt8) {
    add_columns(w.dtype, panel, begin, end, acts, rows, tile);
    return;
  }
  Block block;
  for (int64_t b = begin / 32; b < end / 32; ++b) {
    load_block(w.dtype, panel, b, block);
    add_block(w.dtype, block, acts + b * rows * kActBlockBytes, rows, tile);
  }
}

// Shards [first, first + count) of k: the sum of its two halves.
void sum_shards(const PackedMatrix& w, const std::byte* panel, int64_t first, int64_t count,
                const std::byte* acts, int64_t rows, Tile& tile) {
  if (count == 1) {
    const int64_t width = w.cols / w.k_shards;
    sum_range(w, panel, first * width, (first + 1) * width, acts, rows, tile);
    return;
  }
  Tile right;
  sum_shards(w, panel, first, count / 2, acts, rows, tile);
  sum_shards(w, panel, first + count / 2, count / 2, acts, rows, right);
  for (int64_t i = 0; i < rows; ++i) {
    for (int r = 0; r < kPanelRows; ++r) tile[i][r] += right[i][r];
  }
}

void gemm_generic(const PackedMatrix& w, int64_t begin, int64_t end, const Activations& acts,
                  float* out, int64_t ldo) {
  for (int64_t p = begin; p < end; ++p) {
    const int64_t valid = std::min<int64_t>(kPanelRows, w.rows - p * kPanelRows);
    for (int64_t g = 0; g < acts.group_count(); ++g) {
      Tile tile;
      sum_shards(w, w.panel(p), 0, w.k_shards, acts.group(g), acts.group_size(g), tile);
      for (int64_t i = 0; i < acts.rows_in_group(g); ++i) {
        float* to = out + (g * acts.group_rows() + i) * ldo + p * kPanelRows;
        std::copy_n(tile[i], valid, to);
      }
    }
  }
}

// --- attention ---

// One query row and head. q is already multiplied by the scale.
void attend(const AttentionArgs& a, const float* q, int64_t position, float* out) {
  const int64_t dim = a.head_dim;
  const int64_t low = a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
  float top = -std::numeric_limits<float>::infinity();
  Lanes total;
  std::fill_n(out, dim, 0.0f);
  for (int64_t chunk = low / kChunkTokens; chunk <= position / kChunkTokens; ++chunk) {
    const int64_t base = chunk * kChunkTokens;
    const int64_t from = std::max(low, base);
    const int64_t to = std::min(position, base + kChunkTokens - 1);
    float p[kChunkTokens];
    std::fill_n(p, kChunkTokens, -std::numeric_limits<float>::infinity());
    float highest = top;
    for (int64_t t = from; t <= to; ++t) {
      const uint16_t* k = a.k + a.blocks[t / kKvBlockTokens] * a.block_stride +
                          t % kKvBlockTokens;
      Lanes dot;
      for (int64_t i = 0; i < dim; ++i) {
        float& lane = dot.v[i % kLanes];
        lane = std::fma(q[i], half_to_float(k[i * kKvBlockTokens]), lane);
      }
      p[t - base] = dot.sum();
      highest = std::max(highest, p[t - base]);
    }
    const float shrink = exp_generic(top - highest);
    top = highest;
    for (float& lane : total.v) lane *= shrink;
    for (int64_t i = 0; i < dim; ++i) out[i] *= shrink;
    for (int i = 0; i < kChunkTokens; ++i) {
      p[i] = exp_generic(p[i] - top);
      total.v[i % kLanes] += p[i];
    }
    for (int64_t t = from; t <= to; ++t) {
      const uint16_t* v = a.v + a.blocks[t / kKvBlockTokens] * a.block_stride +
                          t % kKvBlockTokens * dim;
      for (int64_t i = 0; i < dim; ++i) out[i] = std::fma(p[t - base], half_to_float(v[i]), out[i]);
    }
  }
  const float inverse = 1.0f / total.sum();
  for (int64_t i = 0; i < dim; ++i) out[i] *= inverse;
}

void attention_generic(const AttentionArgs& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t h = 0; h < a.heads; ++h) {
      const float* q = a.q + i * a.q_stride + h * a.head_dim;
      for (int64_t d = 0; d < a.head_dim; ++d) a.scratch[d] = q[d] * a.scale;
      attend(a, a.scratch, a.first_position + i, a.out + i * a.out_stride + h * a.head_dim);
    }
  }
}

// --- vectors ---

void rmsnorm_generic(const float* x, const float* weight, float eps, int64_t n, float* y) {
  Lanes squares;
  for (int64_t i = 0; i < n; ++i) {
    float& lane = squares.v[i % kLanes];
    lane = std::fma(x[i], x[i], lane);
  }
  const float inverse = 1.0f / std::sqrt(squares.sum() / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

void add_generic(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

void rope_generic(float* x, int32_t heads, int32_t head_dim, int32_t rope_dim, const float* cos,
                  const float* sin, spec::RopePairing pairing) {
  const bool interleaved = pairing == spec::RopePairing::kInterleaved;
  for (int32_t h = 0; h < heads; ++h, x += head_dim) {
    for (int32_t i = 0; i < rope_dim / 2; ++i) {
      float& a = x[interleaved ? 2 * i : i];
      float& b = x[interleaved ? 2 * i + 1 : i + rope_dim / 2];
      const float turned = a * cos[i] - b * sin[i];
      b = a * sin[i] + b * cos[i];
      a = turned;
    }
  }
}

void silu_mul_generic(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + exp_generic(-gate[i])) * up[i];
}

void to_half_generic(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_half(x[i]);
}

void from_half_generic(const uint16_t* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = half_to_float(x[i]);
}

float softmax_generic(float* x, int64_t n) {
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) top = std::max(top, x[i]);
  Lanes total;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = exp_generic(x[i] - top);
    total.v[i % kLanes] += x[i];
  }
  const float sum = total.sum();
  const float inverse = 1.0f / sum;
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
  return top + std::log(sum);
}

// --- probes ---

uint64_t read_all_generic(const std::byte* from, int64_t bytes) {
  uint64_t sum[4] = {};
  for (int64_t i = 0; i < bytes; i += 32) {
    for (int lane = 0; lane < 4; ++lane) {
      uint64_t word;
      std::memcpy(&word, from + i + lane * 8, 8);
      sum[lane] += word;
    }
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

// Keeps a value that nobody uses, so that the loop computing it stays.
template <class T>
void keep(const T& value) {
  [[maybe_unused]] static volatile T sink;
  sink = value;
}

int64_t int8_burst_generic(int64_t rounds) {
  int32_t sum[16] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (int lane = 0; lane < 16; ++lane) sum[lane] += static_cast<int8_t>(i + lane) * 3;
  }
  for (const int32_t s : sum) keep(s);
  return rounds * 16 * 2;
}

int64_t fma_burst_generic(int64_t rounds) {
  float sum[16] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (float& s : sum) s = s * 0.5f + 1.0f;
  }
  for (const float s : sum) keep(s);
  return rounds * 16 * 2;
}

}  // namespace

const KernelTable* generic_table() {
  static constexpr KernelTable table = {
      .name = "generic",
      .prepare = PrepareRows<Isa>::run,
      .gemm = gemm_generic,
      .attention = attention_generic,
      .rmsnorm = rmsnorm_generic,
      .add = add_generic,
      .rope = rope_generic,
      .silu_mul = silu_mul_generic,
      .to_half = to_half_generic,
      .from_half = from_half_generic,
      .softmax = softmax_generic,
      .exp = exp_generic,
      .read_all = read_all_generic,
      .int8_burst = int8_burst_generic,
      .fma_burst = fma_burst_generic,
  };
  return &table;
}

}  // namespace towline::engine
