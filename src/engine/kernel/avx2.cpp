// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The avx2 table: needs AVX2, FMA and F16C (Intel Haswell, AMD Zen, and later).
#include "engine/kernel/kernel_table.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "engine/kernel/isa_gemm.hpp"
#include "engine/kernel/lane_kernels.hpp"

namespace towline::engine {
namespace {

// Sixteen float lanes in two registers: a holds lanes 0..7, b lanes 8..15. The functions are those
// of Lanes in avx512.cpp.
struct Lanes {
  struct F {
    __m256 a, b;
  };
  // All ones in the first n lanes (n <= 16), in two registers.
  struct Mask {
    __m256i a, b;
  };
  static __m256i iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  static Mask first_lanes(int n) {
    return {_mm256_cmpgt_epi32(_mm256_set1_epi32(n), iota()),
            _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), iota())};
  }
  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F load(const float* p, int n) {
    const Mask m = first_lanes(n);
    return {_mm256_maskload_ps(p, m.a), _mm256_maskload_ps(p + 8, m.b)};
  }
  static void store(float* p, F v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  static void store(float* p, F v, int n) {
    const Mask m = first_lanes(n);
    _mm256_maskstore_ps(p, m.a, v.a);
    _mm256_maskstore_ps(p + 8, m.b, v.b);
  }
  static F load_half(const uint16_t* p) {
    const auto* at = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
  }
  static F load_half(const uint16_t* p, int n) {
    uint16_t all[kLanes] = {};
    __builtin_memcpy(all, p, static_cast<size_t>(n) * 2);
    return load_half(all);
  }
  static void store_half(uint16_t* p, F v) {
    auto* at = reinterpret_cast<__m128i*>(p);
    _mm_storeu_si128(at, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(at + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static void store_half(uint16_t* p, F v, int n) {
    uint16_t all[kLanes];
    store_half(all, v);
    __builtin_memcpy(p, all, static_cast<size_t>(n) * 2);
  }
  static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static F fma(F x, F y, F z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static F negate(F x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
  }
  static F round(F x) {
    constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
  }
  static F power_of_two(F n) {
    const auto power = [](__m256 x) {
      const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
      return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
    };
    return {power(n.a), power(n.b)};
  }
  static F zero_if_less(F x, F limit, F v) {
    return {_mm256_andnot_ps(_mm256_cmp_ps(x.a, limit.a, _CMP_LT_OQ), v.a),
            _mm256_andnot_ps(_mm256_cmp_ps(x.b, limit.b, _CMP_LT_OQ), v.b)};
  }
  static F keep_range(F v, int from, int to, F other) {
    const Mask in = first_lanes(to + 1), out = first_lanes(from);
    const auto pick = [](__m256 x, __m256 y, __m256i inside, __m256i outside) {
      return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(_mm256_andnot_si256(outside, inside)));
    };
    return {pick(v.a, other.a, in.a, out.a), pick(v.b, other.b, in.b, out.b)};
  }
  static float first(F v) { return _mm256_cvtss_f32(v.a); }
  static float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static float top(F v) {
    __m256 m = _mm256_max_ps(v.a, v.b);
    m = _mm256_max_ps(m, _mm256_permute2f128_ps(m, m, 1));
    m = _mm256_max_ps(m, _mm256_permute_ps(m, 0x4e));
    return _mm256_cvtss_f32(_mm256_max_ps(m, _mm256_permute_ps(m, 0xb1)));
  }
  static float sum(F v) {
    const auto half = [](__m256 x) {
      x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e));
      x = _mm256_add_ps(x, _mm256_permute_ps(x, 0xb1));
      return _mm256_cvtss_f32(_mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 1)));
    };
    return half(v.a) + half(v.b);
  }
  static F load_twice(const float* p) {
    const __m256 v = _mm256_loadu_ps(p);
    return {_mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
            _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
  }
  static F swap_pairs(F v) {
    return {_mm256_permute_ps(v.a, 0xb1), _mm256_permute_ps(v.b, 0xb1)};
  }
  static F subtract_add(F x, F y) {
    return {_mm256_addsub_ps(x.a, y.a), _mm256_addsub_ps(x.b, y.b)};
  }
  static void opaque(F& v) { asm volatile("" : "+x"(v.a), "+x"(v.b)); }
  static uint64_t read_all(const std::byte* from, int64_t bytes) {
    __m256i sum[4] = {};
    for (int64_t i = 0; i < bytes; i += 128) {
      _mm_prefetch(reinterpret_cast<const char*>(from + i + 4096), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(from + i + 4160), _MM_HINT_T0);
      for (int k = 0; k < 4; ++k) {
        const auto* at = reinterpret_cast<const __m256i*>(from + i + k * 32);
        sum[k] = _mm256_xor_si256(sum[k], _mm256_loadu_si256(at));
      }
    }
    const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]),
                                         _mm256_xor_si256(sum[2], sum[3]));
    return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^
                                 _mm256_extract_epi64(all, 2) ^ _mm256_extract_epi64(all, 3));
  }
};

int64_t int8_burst(int64_t rounds) {
  __m256i sum[6];
  for (int i = 0; i < 6; ++i) sum[i] = _mm256_set1_epi32(i);
  __m256i w = _mm256_set1_epi8(3);
  for (int64_t r = 0; r < rounds; ++r) {
    for (int i = 0; i < 6; ++i) {
      asm volatile("" : "+x"(w));
      sum[i] = _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(w, _mm256_set1_epi8(2)));
    }
  }
  for (int i = 1; i < 6; ++i) sum[0] = _mm256_xor_si256(sum[0], sum[i]);
  asm volatile("" : "+x"(sum[0]));
  return rounds * 6 * 32 * 2;
}

}  // namespace

const KernelTable* avx2_table() {
  static constexpr KernelTable table =
      LaneKernels<Lanes>::table("avx2", avx2::prepare, avx2::gemm, int8_burst);
  static const bool runs = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
  }();
  return runs ? &table : nullptr;
}

}  // namespace towline::engine

#else

namespace towline::engine {
const KernelTable* avx2_table() { return nullptr; }
}  // namespace towline::engine

#endif
