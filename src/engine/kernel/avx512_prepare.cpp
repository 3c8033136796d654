// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Activations in the form that the weights ask for, with AVX-512.
#include "engine/kernel/isa_gemm.hpp"

#if defined(__AVX512F__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__)

#include <immintrin.h>

#include "engine/kernel/kernel_math.hpp"

namespace towline::engine::avx512 {
namespace {

void quantize_block(const float* x, std::byte* block, int64_t r, int64_t size) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const __m512i positive = _mm512_set1_epi32(INT32_MAX);
  const auto largest = static_cast<uint32_t>(_mm512_reduce_max_epi32(
      _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), positive),
                       _mm512_and_si512(_mm512_castps_si512(b), positive))));
  __m512i qa = _mm512_setzero_si512(), qb = qa;
  float d = 0.0f;
  if (largest >= kInfBits) {
    d = __builtin_nanf("");
  } else if (largest >= kActTinyBits) {
    float amax;
    __builtin_memcpy(&amax, &largest, 4);
    const __m512 inverse = _mm512_set1_ps(127.0f / amax);
    d = amax / 127.0f;
    qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
  }
  const int32_t first = _mm512_reduce_add_epi32(qa);
  const int32_t sum = first + _mm512_reduce_add_epi32(qb);
  const float c = d * static_cast<float>(sum);
  const int32_t s = -128 * sum, t = -128 * first;
  auto* q = reinterpret_cast<__m128i*>(block + r * kActBlock);
  _mm_storeu_si128(q, _mm512_cvtepi32_epi8(qa));
  _mm_storeu_si128(q + 1, _mm512_cvtepi32_epi8(qb));
  std::byte* tail = block + size * 32 + r * 4;
  __builtin_memcpy(tail, &d, 4);
  __builtin_memcpy(tail + size * 4, &c, 4);
  __builtin_memcpy(tail + size * 8, &s, 4);
  __builtin_memcpy(tail + size * 12, &t, 4);
}

// Places pairs of bf16 of one row; odd columns are completed with zero.
void place_bf16(const float* x, int64_t cols, int64_t r, int64_t size, std::byte* group) {
  alignas(32) uint32_t pairs[8];
  for (int64_t k = 0; k < cols; k += 16) {
    const int64_t left = cols - k;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
    const __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + k));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), (__m256i)v);
    for (int64_t i = 0; i < 8 && k + 2 * i < cols; ++i) {
      __builtin_memcpy(group + ((k / 2 + i) * size + r) * 4, &pairs[i], 4);
    }
  }
}

}  // namespace

void prepare(Activations& acts, int64_t begin, int64_t end, const float* x, int64_t ldx) {
  const int64_t cols = acts.cols();
  for (int64_t g = begin; g < end; ++g) {
    std::byte* group = acts.group(g);
    const int64_t size = acts.group_size(g), rows = acts.rows_in_group(g);
    if (size > rows) __builtin_memset(group, 0, static_cast<size_t>(acts.group_bytes()));
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x + (g * acts.group_rows() + r) * ldx;
      switch (acts.kind()) {
        case ActKind::kF32:
          for (int64_t k = 0; k < cols; ++k) {
            __builtin_memcpy(group + (k * size + r) * 4, row + k, 4);
          }
          break;
        case ActKind::kBF16: place_bf16(row, cols, r, size, group); break;
        case ActKind::kInt8:
          for (int64_t b = 0; b < cols / kActBlock; ++b) {
            quantize_block(row + b * kActBlock, group + b * size * kActBlockBytes, r, size);
          }
          break;
      }
    }
  }
}

}  // namespace towline::engine::avx512

#endif
