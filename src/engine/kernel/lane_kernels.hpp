// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Everything in a kernel table but the matrix product, written once over a vector V of 16 float
// lanes (one zmm register, or two ymm registers). Included by one translation unit an instruction
// set; V's functions are listed at Lanes in avx512.cpp. Operation for operation the same as
// generic.cpp, which says what is computed; here is only how.
#pragma once

#include <cmath>
#include <cstdint>

#include "engine/kernel/kernel_math.hpp"
#include "engine/kernel/kernel_table.hpp"

namespace towline::engine {

template <class V>
struct LaneKernels {
  using F = typename V::F;

  // body(i, load, store) for each run of 16; at the end with as many lanes as are left.
  template <class Body>
  static void each(int64_t n, const Body& body) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      body(i, [](const float* p) { return V::load(p); }, [](float* p, F v) { V::store(p, v); });
    }
    if (i < n) {
      const int left = static_cast<int>(n - i);
      body(i, [left](const float* p) { return V::load(p, left); },
           [left](float* p, F v) { V::store(p, v, left); });
    }
  }

  static F exp(F x) {
    const F top = V::min(V::set(kExpHighest), x);  // in this order NaN passes
    const F n = V::round(V::mul(top, V::set(kLog2E)));
    F r = V::fma(n, V::set(-kLn2High), top);
    r = V::fma(n, V::set(-kLn2Low), r);
    F y = V::set(kExpTaylor[0]);
    for (int i = 1; i < 8; ++i) y = V::fma(y, r, V::set(kExpTaylor[i]));
    return V::zero_if_less(x, V::set(kExpLowest), V::mul(y, V::power_of_two(n)));
  }

  static float exp_one(float x) { return V::first(exp(V::set(x))); }

  static void rmsnorm(const float* x, const float* weight, float eps, int64_t n, float* y) {
    F squares = V::zero();
    each(n, [&](int64_t i, const auto& load, const auto&) {
      const F v = load(x + i);
      squares = V::fma(v, v, squares);
    });
    const float mean = V::sum(squares) / static_cast<float>(n);
    const F inverse = V::set(1.0f / V::square_root(mean + eps));
    each(n, [&](int64_t i, const auto& load, const auto& store) {
      store(y + i, V::mul(V::mul(load(x + i), inverse), load(weight + i)));
    });
  }

  static void add(float* x, const float* y, int64_t n) {
    each(n, [&](int64_t i, const auto& load, const auto& store) {
      store(x + i, V::add(load(x + i), load(y + i)));
    });
  }

  static void rope(float* x, int32_t heads, int32_t head_dim, int32_t rope_dim, const float* cos,
                   const float* sin, spec::RopePairing pairing) {
    const int32_t half = rope_dim / 2;
    const bool interleaved = pairing == spec::RopePairing::kInterleaved;
    for (int32_t h = 0; h < heads; ++h, x += head_dim) {
      int32_t i = 0;
      if (interleaved) {
        for (; i + 8 <= half; i += 8) {
          const F v = V::load(x + 2 * i);
          V::store(x + 2 * i, V::subtract_add(V::mul(v, V::load_twice(cos + i)),
                                              V::mul(V::swap_pairs(v), V::load_twice(sin + i))));
        }
      } else {
        for (; i + kLanes <= half; i += kLanes) {
          const F a = V::load(x + i), b = V::load(x + half + i);
          const F c = V::load(cos + i), s = V::load(sin + i);
          V::store(x + i, V::sub(V::mul(a, c), V::mul(b, s)));
          V::store(x + half + i, V::add(V::mul(a, s), V::mul(b, c)));
        }
      }
      for (; i < half; ++i) {
        float& a = x[interleaved ? 2 * i : i];
        float& b = x[interleaved ? 2 * i + 1 : i + half];
        const float turned = a * cos[i] - b * sin[i];
        b = a * sin[i] + b * cos[i];
        a = turned;
      }
    }
  }

  static void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
    const F one = V::set(1.0f);
    each(n, [&](int64_t i, const auto& load, const auto& store) {
      const F z = load(gate + i);
      const F y = V::div(z, V::add(one, exp(V::negate(z))));
      store(out + i, V::mul(y, load(up + i)));
    });
  }

  static void to_half(const float* x, int64_t n, uint16_t* y) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) V::store_half(y + i, V::load(x + i));
    const int left = static_cast<int>(n - i);
    if (left > 0) V::store_half(y + i, V::load(x + i, left), left);
  }
  static void from_half(const uint16_t* x, int64_t n, float* y) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) V::store(y + i, V::load_half(x + i));
    const int left = static_cast<int>(n - i);
    if (left > 0) V::store(y + i, V::load_half(x + i, left), left);
  }

  static float softmax(float* x, int64_t n) {
    constexpr float kNone = -__builtin_inff();
    F highest = V::set(kNone);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) highest = V::max(highest, V::load(x + i));
    float top = V::top(highest);
    for (; i < n; ++i) top = x[i] > top ? x[i] : top;
    F total = V::zero();
    const F shift = V::set(top);
    for (i = 0; i + kLanes <= n; i += kLanes) {
      const F e = exp(V::sub(V::load(x + i), shift));
      V::store(x + i, e);
      total = V::add(total, e);
    }
    if (i < n) {
      const int left = static_cast<int>(n - i);
      V::store(x + i, exp(V::sub(V::load(x + i, left), shift)), left);
      total = V::add(total, V::load(x + i, left));
    }
    const float sum = V::sum(total);
    const F inverse = V::set(1.0f / sum);
    each(n, [&](int64_t k, const auto& load, const auto& store) {
      store(x + k, V::mul(load(x + k), inverse));
    });
    return top + std::log(sum);
  }

  // --- attention ---

  // A (row, head) pair of a tile; the arrays lie in the caller's scratch.
  struct Pairs {
    int64_t count, dim;  // dim: head_dim rounded up to 16
    float* q;            // [pair][dim], times the scale, zero beyond head_dim
    float* acc;          // [pair][dim]
    float* score;        // [pair][64]
    float* lanes;        // [pair][16] sums of the exponentials
    float* top;          // [pair], of 16 places
    float* block;        // [16 tokens][dim] K or V as float32
  };
  struct Range {
    int64_t low, high;  // visible positions, inclusive
  };

  static Range visible(const AttentionArgs& a, int64_t row) {
    const int64_t p = a.first_position + row;
    const int64_t low = a.window > 0 ? p - a.window + 1 : 0;
    return {low > 0 ? low : 0, p};
  }

  // Makes a block float32 and asks for the same block of the next chunk.
  static void widen(const AttentionArgs& a, const uint16_t* plane, int64_t block, int64_t last,
                    const Pairs& s) {
    const uint16_t* from = plane + a.blocks[block] * a.block_stride;
    if (block + kChunkBlocks <= last) {
      const uint16_t* next = plane + a.blocks[block + kChunkBlocks] * a.block_stride;
      for (int64_t i = 0; i < kKvBlockTokens * a.head_dim; i += 32) __builtin_prefetch(next + i);
    }
    for (int64_t t = 0; t < kKvBlockTokens; ++t, from += a.head_dim) {
      float* to = s.block + t * s.dim;
      int64_t i = 0;
      for (; i + kLanes <= a.head_dim; i += kLanes) V::store(to + i, V::load_half(from + i));
      if (i < a.head_dim) {
        V::store(to + i, V::load_half(from + i, static_cast<int>(a.head_dim - i)));
      }
    }
  }

  // Scores of a pair with the 16 tokens of the widened block.
  static F scores(const float* q, const Pairs& s) {
    F dot[kKvBlockTokens];
    for (int t = 0; t < kKvBlockTokens; ++t) dot[t] = V::zero();
    for (int64_t i = 0; i < s.dim; i += kLanes) {
      const F v = V::load(q + i);
      const float* k = s.block + i;
#pragma GCC unroll 16
      for (int t = 0; t < kKvBlockTokens; ++t, k += s.dim) dot[t] = V::fma(v, V::load(k), dot[t]);
    }
    return V::sums(dot);
  }

  // acc[i..] = fma(p[t], v[t][i..], acc[i..]) for tokens [from, to] of the widened block.
  template <int kVectors>
  static void add_values(const Pairs& s, const float* p, int from, int to, float* acc,
                         int64_t offset) {
    F sum[kVectors];
    for (int n = 0; n < kVectors; ++n) sum[n] = V::load(acc + offset + n * kLanes);
    for (int t = from; t <= to; ++t) {
      const F weight = V::set(p[t]);
      const float* v = s.block + t * s.dim + offset;
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) sum[n] = V::fma(weight, V::load(v + n * kLanes), sum[n]);
    }
    for (int n = 0; n < kVectors; ++n) V::store(acc + offset + n * kLanes, sum[n]);
  }

  // The softmax step of one pair after the scores of a chunk.
  static void update(const Pairs& s, int64_t pair) {
    float* score = s.score + pair * kChunkTokens;
    F e[kChunkBlocks];
    for (int b = 0; b < kChunkBlocks; ++b) e[b] = V::load(score + b * kLanes);
    const float chunk_top = V::top(V::max(V::max(e[0], e[1]), V::max(e[2], e[3])));
    const float old = s.top[pair];
    const float top = old > chunk_top ? old : chunk_top;
    F total = V::load(s.lanes + pair * kLanes);
    if (top != old) {
      const F shrink = exp(V::set(old - top));
      total = V::mul(total, shrink);
      float* acc = s.acc + pair * s.dim;
      for (int64_t i = 0; i < s.dim; i += kLanes) {
        V::store(acc + i, V::mul(V::load(acc + i), shrink));
      }
      s.top[pair] = top;
    }
    for (int b = 0; b < kChunkBlocks; ++b) {
      e[b] = exp(V::sub(e[b], V::set(top)));
      V::store(score + b * kLanes, e[b]);
      total = V::add(total, e[b]);
    }
    V::store(s.lanes + pair * kLanes, total);
  }

  static void attend_chunk(const AttentionArgs& a, int64_t row0, int64_t heads, Range all,
                           int64_t chunk, const Pairs& s) {
    const int64_t base = chunk * kChunkTokens;
    const F none = V::set(-__builtin_inff());
    const int64_t last = all.high / kKvBlockTokens;
    for (int64_t b = 0; b < kChunkBlocks; ++b) {
      const int64_t first = base + b * kKvBlockTokens;
      const bool any = first <= all.high && first + kKvBlockTokens > all.low;
      if (any) widen(a, a.k, first / kKvBlockTokens, last, s);
      for (int64_t pair = 0; pair < s.count; ++pair) {
        const Range r = visible(a, row0 + pair / heads);
        F v = none;
        if (any && first <= r.high && first + kKvBlockTokens > r.low) {
          v = scores(s.q + pair * s.dim, s);
          if (r.low > first || r.high < first + kKvBlockTokens - 1) {
            v = V::keep_range(v, static_cast<int>(r.low > first ? r.low - first : 0),
                              static_cast<int>(r.high - first < 15 ? r.high - first : 15), none);
          }
        }
        V::store(s.score + pair * kChunkTokens + b * kLanes, v);
      }
    }
    for (int64_t pair = 0; pair < s.count; ++pair) {
      const Range r = visible(a, row0 + pair / heads);
      if (base <= r.high && base + kChunkTokens > r.low) update(s, pair);
    }
    for (int64_t b = 0; b < kChunkBlocks; ++b) {
      const int64_t first = base + b * kKvBlockTokens;
      if (first > all.high || first + kKvBlockTokens <= all.low) continue;
      widen(a, a.v, first / kKvBlockTokens, last, s);
      for (int64_t pair = 0; pair < s.count; ++pair) {
        const Range r = visible(a, row0 + pair / heads);
        const int from = static_cast<int>(r.low > first ? r.low - first : 0);
        const int to = static_cast<int>(r.high - first < 15 ? r.high - first : 15);
        const float* p = s.score + pair * kChunkTokens + b * kLanes;
        float* acc = s.acc + pair * s.dim;
        int64_t i = 0;
        for (; i + 4 * kLanes <= s.dim; i += 4 * kLanes) add_values<4>(s, p, from, to, acc, i);
        for (; i < s.dim; i += kLanes) add_values<1>(s, p, from, to, acc, i);
      }
    }
  }

  // Query rows [row0, row0 + rows) and heads [head0, head0 + heads).
  static void attend_tile(const AttentionArgs& a, int64_t row0, int64_t rows, int64_t head0,
                          int64_t heads) {
    Pairs s;
    s.count = rows * heads;
    s.dim = (a.head_dim + kLanes - 1) / kLanes * kLanes;
    s.q = a.scratch;
    s.acc = s.q + kAttentionPairs * s.dim;
    s.score = s.acc + kAttentionPairs * s.dim;
    s.lanes = s.score + kAttentionPairs * kChunkTokens;
    s.top = s.lanes + kAttentionPairs * kLanes;
    s.block = s.top + kAttentionPairs * kLanes;
    const F scale = V::set(a.scale);
    for (int64_t pair = 0; pair < s.count; ++pair) {
      const float* q = a.q + (row0 + pair / heads) * a.q_stride +
                       (head0 + pair % heads) * a.head_dim;
      for (int64_t i = 0; i < s.dim; i += kLanes) {
        const int64_t left = a.head_dim - i;
        const F v = left >= kLanes ? V::load(q + i) : V::load(q + i, static_cast<int>(left));
        V::store(s.q + pair * s.dim + i, V::mul(v, scale));
        V::store(s.acc + pair * s.dim + i, V::zero());
      }
      V::store(s.lanes + pair * kLanes, V::zero());
      s.top[pair] = -__builtin_inff();
    }
    const Range all{visible(a, row0).low, visible(a, row0 + rows - 1).high};
    for (int64_t chunk = all.low / kChunkTokens; chunk <= all.high / kChunkTokens; ++chunk) {
      attend_chunk(a, row0, heads, all, chunk, s);
    }
    for (int64_t pair = 0; pair < s.count; ++pair) {
      float* out = a.out + (row0 + pair / heads) * a.out_stride +
                   (head0 + pair % heads) * a.head_dim;
      const float* acc = s.acc + pair * s.dim;
      const F inverse = V::set(1.0f / V::sum(V::load(s.lanes + pair * kLanes)));
      each(a.head_dim, [&](int64_t i, const auto& load, const auto& store) {
        store(out + i, V::mul(load(acc + i), inverse));
      });
    }
  }

  static void attention(const AttentionArgs& a) {
    const int64_t heads = a.heads < kAttentionPairs ? a.heads : kAttentionPairs;
    const int64_t rows = kAttentionPairs / heads;
    for (int64_t row = 0; row < a.rows; row += rows) {
      for (int64_t head = 0; head < a.heads; head += heads) {
        attend_tile(a, row, a.rows - row < rows ? a.rows - row : rows, head,
                    a.heads - head < heads ? a.heads - head : heads);
      }
    }
  }

  static int64_t fma_burst(int64_t rounds) {
    F sum[12];
    for (int i = 0; i < 12; ++i) sum[i] = V::set(static_cast<float>(i));
    F factor = V::set(0.5f), term = V::set(1.0f);
    for (int64_t r = 0; r < rounds; ++r) {
      V::opaque(factor);  // or the compiler would find the fixed point
#pragma GCC unroll 12
      for (int i = 0; i < 12; ++i) sum[i] = V::fma(sum[i], factor, term);
    }
    for (int i = 1; i < 12; ++i) sum[0] = V::add(sum[0], sum[i]);
    V::opaque(sum[0]);
    return rounds * 12 * kLanes * 2;
  }

  static constexpr KernelTable table(std::string_view name, decltype(KernelTable::prepare) prepare,
                                     decltype(KernelTable::gemm) gemm,
                                     decltype(KernelTable::int8_burst) int8_burst) {
    return {.name = name,
            .prepare = prepare,
            .gemm = gemm,
            .attention = attention,
            .rmsnorm = rmsnorm,
            .add = add,
            .rope = rope,
            .silu_mul = silu_mul,
            .to_half = to_half,
            .from_half = from_half,
            .softmax = softmax,
            .exp = exp_one,
            .read_all = V::read_all,
            .int8_burst = int8_burst,
            .fma_burst = fma_burst};
  }
};

}  // namespace towline::engine
