// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Matrix products with AVX2 and FMA. A tile is half a panel (8 weight rows, one ymm lane a row) or
// a whole one, times up to 6 activation rows.
//
// The byte product is vpmaddubsw (unsigned weights times signed activations, neighbours added in 16
// bits). Its 16-bit sums must not overflow: two products of an n-bit weight are at most
// 2 * (2^n - 1) * 127, so 8 vectors of 4-bit weights may be added up in 16 bits, 4 of 5-bit ones
// and 2 of 6-bit ones; 8-bit weights are used as |w| times the activation with w's sign (at most 2
// * 128 * 127 = 32512), one vector at a time. The sums are exact, so the bits are those of the
// other tables.
#include "engine/kernel/isa_gemm.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "engine/kernel/kernel_math.hpp"
#include "engine/kernel/panel_gemm.hpp"
#include "engine/kernel/panel_layout.hpp"

namespace towline::engine::avx2 {
namespace {

enum class Scaling { kOne, kWithMin, kTwo };  // d; d and m; d for each half of the block

__m256i load_bytes(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
__m256 load_halves(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
__m256 load_floats(const std::byte* p) {
  return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
}
__m128i load_8_bytes(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
__m256i broadcast32(const std::byte* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
__m256 broadcast_float(const std::byte* p) {
  float v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_ps(v);
}

// Weight types as data: where things are in a unit of a panel, see panel_layout.hpp.
struct Format {
  DType type;
  Scaling scaling;
  int bits;     // of an unsigned weight
  int shift;    // turns -128 * sum into -offset * sum
  int nibbles;  // bytes from the group to the nibble vectors
};
constexpr Format format_of(DType type) {
  switch (type) {
    case DType::kQ4_0: return {type, Scaling::kOne, 4, 4, 0};
    case DType::kQ5_0: return {type, Scaling::kOne, 5, 3, kVector};
    case DType::kQ4_1: return {type, Scaling::kWithMin, 4, 0, 0};
    case DType::kQ5_1: return {type, Scaling::kWithMin, 5, 0, kVector};
    case DType::kQ4_K: return {type, Scaling::kWithMin, 4, 0, 0};
    case DType::kQ5_K: return {type, Scaling::kWithMin, 5, 0, kVector};
    case DType::kQ6_K: return {type, Scaling::kTwo, 6, 2, 2 * kVector};
    default: return {type, Scaling::kOne, 8, 0, 0};
  }
}

struct Head {
  __m256 d, m;
};

// Scales of rows [8 half, 8 half + 8) in block b of a unit.
template <DType kType>
Head load_head(const std::byte* unit, int64_t b, int half) {
  const __m256 d = load_halves(unit + half * 16);
  if constexpr (kType == DType::kQ4_1 || kType == DType::kQ5_1) {
    return {d, load_halves(unit + 32 + half * 16)};
  } else if constexpr (kType == DType::kQ4_K || kType == DType::kQ5_K) {
    const std::byte* scales = unit + 64 + (b & 7) * 16 + half * 8;
    const auto small = [](const std::byte* p) {
      return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8_bytes(p)));
    };
    const __m256 min = _mm256_xor_ps(load_halves(unit + 32 + half * 16), _mm256_set1_ps(-0.0f));
    return {_mm256_mul_ps(d, small(scales)), _mm256_mul_ps(min, small(scales + 128))};
  } else if constexpr (kType == DType::kQ6_K) {
    const std::byte* scales = unit + 32 + (b & 7) * 32 + half * 8;
    const auto small = [](const std::byte* p) {
      return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(p)));
    };
    return {_mm256_mul_ps(d, small(scales)), _mm256_mul_ps(d, small(scales + 16))};
  } else {
    return {d, _mm256_setzero_ps()};
  }
}

// x moved by `left` bits (to the right if negative); bits that cross a byte are masked by the
// caller.
template <int kLeft>
__m256i move_bits(__m256i x) {
  if constexpr (kLeft > 0) return _mm256_slli_epi16(x, kLeft);
  if constexpr (kLeft < 0) return _mm256_srli_epi16(x, -kLeft);
  return x;
}

// Unsigned weights of vectors p and p + 4 of a group, half a panel.
template <DType kType, int kP>
void load_pair(const std::byte* group, int half, __m256i& low, __m256i& high) {
  constexpr Format kFormat = format_of(kType);
  const std::byte* g = group + half * 32;
  if constexpr (kType == DType::kQ8_0) {  // signed here: value + 128 xor 128
    const __m256i flip = _mm256_set1_epi8(INT8_MIN);
    low = _mm256_xor_si256(load_bytes(g + kP * kVector), flip);
    high = _mm256_xor_si256(load_bytes(g + (kP + 4) * kVector), flip);
    return;
  }
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i both = load_bytes(g + kFormat.nibbles + kP * kVector);
  low = _mm256_and_si256(both, mask);
  high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
  if constexpr (kFormat.bits == 5) {
    const __m256i bit = _mm256_set1_epi8(16), bits = load_bytes(g);
    low = _mm256_or_si256(low, _mm256_and_si256(move_bits<4 - kP>(bits), bit));
    high = _mm256_or_si256(high, _mm256_and_si256(move_bits<-kP>(bits), bit));
  }
  if constexpr (kFormat.bits == 6) {
    const __m256i two = _mm256_set1_epi8(0x30);
    low = _mm256_or_si256(low, _mm256_and_si256(move_bits<4 - 2 * kP>(load_bytes(g)), two));
    high = _mm256_or_si256(high,
                           _mm256_and_si256(move_bits<4 - 2 * kP>(load_bytes(g + kVector)), two));
  }
}

__m256i widen_sum(__m256i sums16) { return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)); }

// Products of 32 columns for kHalves half panels and kRows rows: `first` over columns 0..15 (all 32
// unless kTwo), `second` over the rest.
template <DType kType, int kHalves, int kRows>
struct BlockSums {
  static constexpr Format kFormat = format_of(kType);
  static constexpr bool kTwo = kFormat.scaling == Scaling::kTwo;
  __m256i first[kHalves][kRows], second[kTwo ? kHalves : 1][kTwo ? kRows : 1];

  void start(const std::byte* s, const std::byte* t) {
    for (int i = 0; i < kRows; ++i) {
      __m256i a = _mm256_setzero_si256(), b = a;
      if constexpr (kFormat.scaling == Scaling::kOne && kType != DType::kQ8_0) {
        a = _mm256_srai_epi32(broadcast32(s + i * 4), kFormat.shift);
      }
      if constexpr (kTwo) {
        a = _mm256_srai_epi32(broadcast32(t + i * 4), kFormat.shift);
        b = _mm256_sub_epi32(_mm256_srai_epi32(broadcast32(s + i * 4), kFormat.shift), a);
      }
      for (int h = 0; h < kHalves; ++h) {
        first[h][i] = a;
        if constexpr (kTwo) second[h][i] = b;
      }
    }
  }

  static __m256i signed_product(__m256i w, __m256i x) {
    return widen_sum(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
  }

  // Vectors p, p + 4, and for the narrow types also p + 1, p + 5.
  template <int kP>
  void add_two(const std::byte* const (&group)[kHalves], const std::byte* q) {
    for (int h = 0; h < kHalves; ++h) {
      __m256i w[4];
      load_pair<kType, kP>(group[h], h & 1, w[0], w[2]);
      load_pair<kType, kP + 1>(group[h], h & 1, w[1], w[3]);
      for (int i = 0; i < kRows; ++i) {
        const std::byte* x = q + i * kActBlock + kP * 4;
        if constexpr (kType == DType::kQ8_0) {
          const __m256i a = _mm256_add_epi32(signed_product(w[0], broadcast32(x)),
                                             signed_product(w[1], broadcast32(x + 4)));
          const __m256i b = _mm256_add_epi32(signed_product(w[2], broadcast32(x + 16)),
                                             signed_product(w[3], broadcast32(x + 20)));
          first[h][i] = _mm256_add_epi32(first[h][i], _mm256_add_epi32(a, b));
        } else {
          const __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], broadcast32(x)),
                                             _mm256_maddubs_epi16(w[1], broadcast32(x + 4)));
          const __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(w[2], broadcast32(x + 16)),
                                             _mm256_maddubs_epi16(w[3], broadcast32(x + 20)));
          if constexpr (kTwo) {
            first[h][i] = _mm256_add_epi32(first[h][i], widen_sum(a));
            second[h][i] = _mm256_add_epi32(second[h][i], widen_sum(b));
          } else {
            first[h][i] = _mm256_add_epi32(first[h][i], widen_sum(_mm256_add_epi16(a, b)));
          }
        }
      }
    }
  }
};

// kHalves == 2: a whole panel; 1: the half `which` (0 or 1).
template <DType kType, int kHalves, int kRows>
void tile_halves(const TileArgs& a, int which) {
  constexpr Format kFormat = format_of(kType);
  constexpr PanelUnit kUnit = panel_unit(kType);
  constexpr int kBlocks = kUnit.cols / 32;
  __m256 acc[kHalves][kRows];
  for (int h = 0; h < kHalves; ++h) {
    for (int i = 0; i < kRows; ++i) acc[h][i] = _mm256_setzero_ps();
  }
  const std::byte* block = a.acts + a.begin * a.size * kActBlockBytes;
  for (int64_t b = a.begin; b < a.end; ++b, block += a.size * kActBlockBytes) {
    const std::byte* unit = a.panel + b / kBlocks * kUnit.bytes;
    const std::byte* q = block + a.row * kActBlock;
    const std::byte* d = block + a.size * 32 + a.row * 4;
    const std::byte* c = d + a.size * 4;
    const std::byte* s = c + a.size * 4;
    const std::byte* group[kHalves];
    Head head[kHalves];
    for (int h = 0; h < kHalves; ++h) {
      // load_pair takes half h & 1 of the panel: move the pointer for a lone second half.
      group[h] = unit + kUnit.head + b % kBlocks * kUnit.group + (kHalves == 1 ? which * 32 : 0);
      head[h] = load_head<kType>(unit, b, kHalves == 1 ? which : h);
    }
    BlockSums<kType, kHalves, kRows> sums;
    sums.start(s, s + a.size * 4);
    sums.template add_two<0>(group, q);
    sums.template add_two<2>(group, q);
    for (int i = 0; i < kRows; ++i) {
      const __m256 scale = broadcast_float(d + i * 4);
      for (int h = 0; h < kHalves; ++h) {
        const __m256 whole = _mm256_cvtepi32_ps(sums.first[h][i]);
        if constexpr (kFormat.scaling == Scaling::kTwo) {
          const __m256 rest = _mm256_mul_ps(head[h].m, _mm256_cvtepi32_ps(sums.second[h][i]));
          acc[h][i] = _mm256_fmadd_ps(_mm256_fmadd_ps(head[h].d, whole, rest), scale, acc[h][i]);
        } else {
          acc[h][i] = _mm256_fmadd_ps(head[h].d, _mm256_mul_ps(whole, scale), acc[h][i]);
        }
        if constexpr (kFormat.scaling == Scaling::kWithMin) {
          acc[h][i] = _mm256_fmadd_ps(head[h].m, broadcast_float(c + i * 4), acc[h][i]);
        }
      }
    }
  }
  for (int h = 0; h < kHalves; ++h) {
    for (int i = 0; i < kRows; ++i) {
      _mm256_storeu_ps(a.out + i * kPanelRows + (kHalves == 1 ? which : h) * 8, acc[h][i]);
    }
  }
}

template <DType kType, int kRows>
void tile(const TileArgs& a) {
  if constexpr (kRows <= 2) {
    tile_halves<kType, 2, kRows>(a, 0);
  } else {
    tile_halves<kType, 1, kRows>(a, 0);
    tile_halves<kType, 1, kRows>(a, 1);
  }
}

// Plain types: one step is one vector of weights and one dword of each activation row.
template <DType kType, int kRows>
void plain_tile(const TileArgs& a) {
  __m256 acc[2][kRows];
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < kRows; ++i) acc[h][i] = _mm256_setzero_ps();
  }
  constexpr int64_t kBytes = kType == DType::kF16 ? 32 : 64;
  const __m256 upper = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int32_t>(0xffff0000)));
  const auto even = [](__m256 v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 16));
  };
  const std::byte* x = a.acts + (a.begin * a.size + a.row) * 4;
  for (int64_t k = a.begin; k < a.end; ++k, x += a.size * 4) {
    __m256 w[2];
    for (int h = 0; h < 2; ++h) {
      const std::byte* at = a.panel + k * kBytes + h * kBytes / 2;
      w[h] = kType == DType::kF16 ? load_halves(at) : load_floats(at);
    }
    for (int i = 0; i < kRows; ++i) {
      const __m256 v = broadcast_float(x + i * 4);
      for (int h = 0; h < 2; ++h) {
        if constexpr (kType == DType::kBF16) {  // a pair of columns in each dword, the first below
          acc[h][i] = _mm256_fmadd_ps(even(w[h]), even(v), acc[h][i]);
          acc[h][i] = _mm256_fmadd_ps(_mm256_and_ps(w[h], upper), _mm256_and_ps(v, upper),
                                      acc[h][i]);
        } else {
          acc[h][i] = _mm256_fmadd_ps(w[h], v, acc[h][i]);
        }
      }
    }
  }
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < kRows; ++i) _mm256_storeu_ps(a.out + i * kPanelRows + h * 8, acc[h][i]);
  }
}

// How many rows of a group of R a tile takes at a time.
constexpr int kRowsAtOnce[kMaxGroupRows + 1] = {0, 1, 2, 3, 4, 0, 6, 0, 4, 0, 5, 0, 6};

template <template <int> class Make>
TileFunction pick(int64_t rows) {
  switch (rows) {
    case 1: return Make<1>::run;
    case 2: return Make<2>::run;
    case 3: return Make<3>::run;
    case 4: return Make<4>::run;
    case 5: return Make<5>::run;
    default: return Make<6>::run;
  }
}
template <DType kType>
struct Kernel {
  template <int kRows>
  struct Make {
    static void run(const TileArgs& a) {
      if constexpr (kType == DType::kF32 || kType == DType::kF16 || kType == DType::kBF16) {
        plain_tile<kType, kRows>(a);
      } else {
        tile<kType, kRows>(a);
      }
    }
  };
  static TileFunction of(int64_t rows) { return pick<Make>(rows); }
};

TileFunction tile_for(DType type, int64_t rows) {
  switch (type) {
    case DType::kF32: return Kernel<DType::kF32>::of(rows);
    case DType::kF16: return Kernel<DType::kF16>::of(rows);
    case DType::kBF16: return Kernel<DType::kBF16>::of(rows);
    case DType::kQ8_0: return Kernel<DType::kQ8_0>::of(rows);
    case DType::kQ4_0: return Kernel<DType::kQ4_0>::of(rows);
    case DType::kQ4_1: return Kernel<DType::kQ4_1>::of(rows);
    case DType::kQ5_0: return Kernel<DType::kQ5_0>::of(rows);
    case DType::kQ5_1: return Kernel<DType::kQ5_1>::of(rows);
    case DType::kQ4_K: return Kernel<DType::kQ4_K>::of(rows);
    case DType::kQ5_K: return Kernel<DType::kQ5_K>::of(rows);
    case DType::kQ6_K: return Kernel<DType::kQ6_K>::of(rows);
  }
  __builtin_unreachable();
}

}  // namespace

void gemm(const PackedMatrix& w, int64_t begin, int64_t end, const Activations& acts, float* out,
          int64_t ldo) {
  const Output o{out, ldo, w.rows};
  float buffer[kMaxTile];
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t g = 0; g < acts.group_count(); ++g) {
      const int64_t size = acts.group_size(g), at_once = kRowsAtOnce[size];
      const TileFunction run = tile_for(w.dtype, at_once);
      for (int64_t row = 0; row < acts.rows_in_group(g); row += at_once) {
        const TileArgs a{.panel = w.panel(p),
                         .panel_stride = 0,
                         .begin = 0,
                         .end = k_steps(w),
                         .acts = acts.group(g),
                         .size = size,
                         .row = row,
                         .out = buffer,
                         .ahead = w.panel(p),
                         .ahead_step = 0};
        sum_shards(run, a, w.k_shards, at_once * kPanelRows);
        const int64_t valid = acts.rows_in_group(g) - row;
        store_tile(buffer, 1, p, g * acts.group_rows() + row, valid < at_once ? valid : at_once, o);
      }
    }
  }
}

}  // namespace towline::engine::avx2

#endif
