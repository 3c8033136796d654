// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The avx512 table: needs F, BW, DQ, VL, VNNI and BF16 (AMD Zen 4 and later, Intel Cooper Lake,
// Sapphire Rapids and later). Other AVX-512 processors get the avx2 table.
#include "engine/kernel/kernel_table.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__)

#include <immintrin.h>

#include "engine/kernel/isa_gemm.hpp"
#include "engine/kernel/lane_kernels.hpp"

namespace towline::engine {
namespace {

__mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

// Sixteen float lanes in one register. Functions with `n` touch the first n lanes' memory only; the
// other lanes of a load are zero.
struct Lanes {
  using F = __m512;
  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
  static F load_half(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_half(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
  }
  static void store_half(uint16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static void store_half(uint16_t* p, F v, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n),
                             _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }  // b if one is NaN
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F negate(F a) {
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN)));
  }
  static F round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // 2^n for whole n in [-126, 127].
  static F power_of_two(F n) {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
  }
  static F zero_if_less(F x, F limit, F v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), v);
  }
  // v in lanes [from, to], `other` elsewhere.
  static F keep_range(F v, int from, int to, F other) {
    const auto mask = static_cast<__mmask16>(((2u << to) - 1) & ~((1u << from) - 1));
    return _mm512_mask_mov_ps(other, mask, v);
  }
  static float first(F v) { return _mm512_cvtss_f32(v); }
  static float square_root(float x) {
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
  }
  static float top(F v) { return _mm512_reduce_max_ps(v); }
  // The lanes' sum in the order of generic.cpp.
  static float sum(F v) {
    v = add(v, _mm512_permute_ps(v, 0x4e));
    v = add(v, _mm512_permute_ps(v, 0xb1));
    v = add(v, _mm512_shuffle_f32x4(v, v, 0xb1));
    v = add(v, _mm512_shuffle_f32x4(v, v, 0x4e));
    return first(v);
  }
  // p[0], p[0], p[1], p[1], ... of 8 floats.
  static F load_twice(const float* p) {
    const __m512i index = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
  }
  static F swap_pairs(F v) { return _mm512_permute_ps(v, 0xb1); }
  // a - b in even lanes, a + b in odd lanes.
  static F subtract_add(F a, F b) { return _mm512_mask_sub_ps(add(a, b), 0x5555, a, b); }
  // Makes the compiler believe that v may be anything.
  static void opaque(F& v) { asm volatile("" : "+v"(v)); }
  static uint64_t read_all(const std::byte* from, int64_t bytes) {
    __m512i sum[4] = {};
    for (int64_t i = 0; i < bytes; i += 256) {
      for (int k = 0; k < 4; ++k) {
        _mm_prefetch(reinterpret_cast<const char*>(from + i + k * 64 + 4096), _MM_HINT_T0);
        sum[k] = _mm512_xor_si512(sum[k], _mm512_loadu_si512(from + i + k * 64));
      }
    }
    const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]),
                                         _mm512_xor_si512(sum[2], sum[3]));
    return static_cast<uint64_t>(_mm512_reduce_add_epi64(all));
  }
};

int64_t int8_burst(int64_t rounds) {
  __m512i sum[12];
  for (int i = 0; i < 12; ++i) sum[i] = _mm512_set1_epi32(i);
  __m512i w = _mm512_set1_epi8(3);
  const __m512i x = _mm512_set1_epi8(2);
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+v"(w));
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], w, x);
  }
  for (int i = 1; i < 12; ++i) sum[0] = _mm512_xor_si512(sum[0], sum[i]);
  asm volatile("" : "+v"(sum[0]));
  return rounds * 12 * 64 * 2;
}

}  // namespace

const KernelTable* avx512_table() {
  static constexpr KernelTable table =
      LaneKernels<Lanes>::table("avx512", avx512::prepare, avx512::gemm, int8_burst);
  static const bool runs = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  }();
  return runs ? &table : nullptr;
}

}  // namespace towline::engine

#else

namespace towline::engine {
const KernelTable* avx512_table() { return nullptr; }
}  // namespace towline::engine

#endif
