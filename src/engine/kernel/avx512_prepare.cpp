// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Activations in the form that the weights ask for, with AVX-512.
#include "engine/kernel/isa_gemm.hpp"

#if defined(__AVX512F__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__)

#include <immintrin.h>

#include "engine/kernel/prepare_rows.hpp"

namespace towline::engine::avx512 {
namespace {

struct Isa {
  static uint32_t largest(const float* x) {
    const __m512i positive = _mm512_set1_epi32(INT32_MAX);
    const auto magnitude = [&](const float* p) {
      return _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(p)), positive);
    };
    return static_cast<uint32_t>(
        _mm512_reduce_max_epi32(_mm512_max_epi32(magnitude(x), magnitude(x + 16))));
  }

  static int32_t quantise(const float* x, float inverse, int8_t* q, int32_t* first) {
    const auto sixteen = [inverse](const float* from, int8_t* to) {
      const __m512i v =
          _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), _mm512_set1_ps(inverse)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(v));
      return _mm512_reduce_add_epi32(v);
    };
    *first = sixteen(x, q);
    return *first + sixteen(x + 16, q + 16);
  }

  // Pairs of bf16; odd columns are completed with zero.
  static void place_bf16(const float* x, int64_t cols, int64_t r, int64_t size, std::byte* group) {
    alignas(32) uint32_t pairs[8];
    for (int64_t k = 0; k < cols; k += 16) {
      const int64_t left = cols - k;
      const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
      const __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + k));
      _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), (__m256i)v);
      for (int64_t i = 0; i < 8 && k + 2 * i < cols; ++i) {
        std::memcpy(group + ((k / 2 + i) * size + r) * 4, &pairs[i], 4);
      }
    }
  }
};

}  // namespace

void prepare(Activations& acts, int64_t begin, int64_t end, const float* x, int64_t ldx) {
  PrepareRows<Isa>::run(acts, begin, end, x, ldx);
}

}  // namespace towline::engine::avx512

#endif
