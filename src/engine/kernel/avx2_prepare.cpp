// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Activations in the form that the weights ask for, with AVX2.
#include "engine/kernel/isa_gemm.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "engine/format/dtype.hpp"
#include "engine/kernel/prepare_rows.hpp"

namespace towline::engine::avx2 {
namespace {

struct Isa {
  static uint32_t largest(const float* x) {
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + 8 * i));
      most = _mm256_max_epi32(most, _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MAX)));
    }
    __m128i top = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
    top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(top));
  }

  static int32_t quantise(const float* x, float inverse, int8_t* q, int32_t* first) {
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i v[4];
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), factor));
    }
    // Packing works inside 128-bit lanes; the last permutation puts the dwords in order.
    const __m256i packed = _mm256_permutevar8x32_epi32(
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3])),
        _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), packed);
    *first = sum_of(_mm256_add_epi32(v[0], v[1]));
    return *first + sum_of(_mm256_add_epi32(v[2], v[3]));
  }

  static int32_t sum_of(__m256i n) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }

  static void place_bf16(const float* x, int64_t cols, int64_t r, int64_t size, std::byte* group) {
    for (int64_t k = 0; k < (cols + 1) / 2 * 2; ++k) {
      const uint16_t v = k < cols ? float_to_bf16(x[k]) : uint16_t{0};
      std::memcpy(group + ((k / 2 * size + r) * 2 + k % 2) * 2, &v, 2);
    }
  }
};

}  // namespace

void prepare(Activations& acts, int64_t begin, int64_t end, const float* x, int64_t ldx) {
  PrepareRows<Isa>::run(acts, begin, end, x, ldx);
}

}  // namespace towline::engine::avx2

#endif
