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

#include "engine/kernel/kernel_table.hpp"
#include "engine/kernel/lane_attention.hpp"
#include "engine/kernel/lane_math.hpp"

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

  static F exp(F x) { return exp_lanes<V>(x); }
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
            .attention = LaneAttention<V>::run,
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
