// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Matrix products with AVX-512: vpdpbusd for the quantised types, vdpbf16ps for BF16, FMA for F16
// and F32.
//
// One routine, tile(), multiplies kPanels panels (16 weight rows each, one vector lane a row) with
// kRows activation rows. It is instantiated for every weight type through a small decoder struct,
// for every group size, and for one or two panels. For many groups of activations the panels of
// some types are first unpacked to bytes in a scratch that stays in L1/L2, so that decoding is paid
// once; this changes no bit, because the integers are the same.
//
// vpdpbusd wants unsigned weights: byte = w + offset. The accumulator therefore starts at
// -offset * (sum of the activations), which the activations bring along (s = -128 * sum).
#include "engine/kernel/isa_gemm.hpp"

#if defined(__AVX512F__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__)

#include <immintrin.h>

#include <memory>
#include <new>

#include "engine/kernel/panel_gemm.hpp"
#include "engine/kernel/panel_layout.hpp"

namespace towline::engine::avx512 {
namespace {

enum class Scaling { kOne, kWithMin, kTwo };  // d; d and m; d for each half of the block

__m512i load_bytes(const std::byte* p) { return _mm512_loadu_si512(p); }
__m512 load_halves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
__m512 load_floats(const std::byte* p) { return _mm512_loadu_ps(p); }
__m512 bytes_to_floats(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)); }
__m128i load_16_bytes(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

// A decoder says where block b of a panel is, what its scales are, and gives the byte vectors
// p and p + 4. `shift` turns -128 * sum into -offset * sum.
struct Head {
  __m512 d, m;
};

template <int kUnitBytes, int kHeadBytes>
struct SimpleUnits {
  static constexpr int kBlocksPerUnit = 1;
  static const std::byte* unit(const std::byte* panel, int64_t b) { return panel + b * kUnitBytes; }
  static const std::byte* group(const std::byte* panel, int64_t b) {
    return unit(panel, b) + kHeadBytes;
  }
};

struct DecodeQ8_0 : SimpleUnits<544, 32> {
  static constexpr Scaling kScaling = Scaling::kOne;
  static constexpr int kShift = 0;
  static Head head(const std::byte* panel, int64_t b) {
    return {load_halves(unit(panel, b)), _mm512_setzero_ps()};
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    low = load_bytes(g + p * kVector);
    high = load_bytes(g + (p + 4) * kVector);
  }
};

void nibbles(const std::byte* g, int p, __m512i& low, __m512i& high) {
  const __m512i mask = _mm512_set1_epi8(15);
  const __m512i both = load_bytes(g + p * kVector);
  low = _mm512_and_si512(both, mask);
  high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
}

// a | (b & mask)
__m512i or_masked(__m512i a, __m512i b, __m512i mask) {
  return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}
// Moves bit `from` of each byte to bit `to`; other bits become garbage, which the caller masks off.
template <int kFrom, int kTo>
__m512i move_bits(__m512i x) {
  if constexpr (kFrom < kTo) return _mm512_slli_epi16(x, kTo - kFrom);
  if constexpr (kFrom > kTo) return _mm512_srli_epi16(x, kFrom - kTo);
  return x;
}

template <int kP>
void fifth_bits_at(__m512i bits, __m512i& low, __m512i& high) {
  const __m512i mask = _mm512_set1_epi8(16);
  low = or_masked(low, move_bits<kP, 4>(bits), mask);
  high = or_masked(high, move_bits<kP + 4, 4>(bits), mask);
}
// Nibbles whose fifth bits stand in the vector before them.
void nibbles_and_fifth(const std::byte* g, int p, __m512i& low, __m512i& high) {
  nibbles(g + kVector, p, low, high);
  const __m512i bits = load_bytes(g);
  switch (p) {
    case 0: return fifth_bits_at<0>(bits, low, high);
    case 1: return fifth_bits_at<1>(bits, low, high);
    case 2: return fifth_bits_at<2>(bits, low, high);
    default: return fifth_bits_at<3>(bits, low, high);
  }
}

struct DecodeQ4_0 : SimpleUnits<288, 32> {
  static constexpr Scaling kScaling = Scaling::kOne;
  static constexpr int kShift = 4;
  static Head head(const std::byte* panel, int64_t b) {
    return {load_halves(unit(panel, b)), _mm512_setzero_ps()};
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles(g, p, low, high);
  }
};

struct DecodeQ4_1 : SimpleUnits<320, 64> {
  static constexpr Scaling kScaling = Scaling::kWithMin;
  static constexpr int kShift = 0;
  static Head head(const std::byte* panel, int64_t b) {
    return {load_halves(unit(panel, b)), load_halves(unit(panel, b) + 32)};
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles(g, p, low, high);
  }
};

struct DecodeQ5_0 : SimpleUnits<352, 32> {
  static constexpr Scaling kScaling = Scaling::kOne;
  static constexpr int kShift = 3;
  static Head head(const std::byte* panel, int64_t b) {
    return {load_halves(unit(panel, b)), _mm512_setzero_ps()};
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles_and_fifth(g, p, low, high);
  }
};

struct DecodeQ5_1 : SimpleUnits<384, 64> {
  static constexpr Scaling kScaling = Scaling::kWithMin;
  static constexpr int kShift = 0;
  static Head head(const std::byte* panel, int64_t b) {
    return {load_halves(unit(panel, b)), load_halves(unit(panel, b) + 32)};
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles_and_fifth(g, p, low, high);
  }
};

template <int kUnitBytes, int kHeadBytes, int kGroupBytes>
struct SuperUnits {
  static constexpr int kBlocksPerUnit = 8;
  static const std::byte* unit(const std::byte* panel, int64_t b) {
    return panel + (b >> 3) * kUnitBytes;
  }
  static const std::byte* group(const std::byte* panel, int64_t b) {
    return unit(panel, b) + kHeadBytes + (b & 7) * kGroupBytes;
  }
};

// d * scale and -(min * group minimum): products of 11 and 6 bits, exact in float.
Head scale_min_head(const std::byte* unit, int64_t b) {
  const std::byte* scales = unit + 64 + (b & 7) * 16;
  const __m512 d = load_halves(unit);
  const __m512 min = load_halves(unit + 32);
  const __m512 minus = _mm512_castsi512_ps(
      _mm512_xor_si512(_mm512_castps_si512(min), _mm512_set1_epi32(INT32_MIN)));
  return {_mm512_mul_ps(d, bytes_to_floats(load_16_bytes(scales))),
          _mm512_mul_ps(minus, bytes_to_floats(load_16_bytes(scales + 128)))};
}

struct DecodeQ4_K : SuperUnits<2368, 320, 256> {
  static constexpr Scaling kScaling = Scaling::kWithMin;
  static constexpr int kShift = 0;
  static Head head(const std::byte* panel, int64_t b) {
    return scale_min_head(unit(panel, b), b);
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles(g, p, low, high);
  }
};

struct DecodeQ5_K : SuperUnits<2880, 320, 320> {
  static constexpr Scaling kScaling = Scaling::kWithMin;
  static constexpr int kShift = 0;
  static Head head(const std::byte* panel, int64_t b) {
    return scale_min_head(unit(panel, b), b);
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles_and_fifth(g, p, low, high);
  }
};

struct DecodeQ6_K : SuperUnits<3360, 288, 384> {
  static constexpr Scaling kScaling = Scaling::kTwo;
  static constexpr int kShift = 2;
  static Head head(const std::byte* panel, int64_t b) {
    const std::byte* u = unit(panel, b);
    const std::byte* scales = u + 32 + (b & 7) * 32;
    const __m512 d = load_halves(u);
    const auto scale = [](__m128i s) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(s)); };
    return {_mm512_mul_ps(d, scale(load_16_bytes(scales))),
            _mm512_mul_ps(d, scale(load_16_bytes(scales + 16)))};
  }
  template <int kP>
  static void high_bits_at(const std::byte* g, __m512i& low, __m512i& high) {
    const __m512i mask = _mm512_set1_epi8(0x30);
    low = or_masked(low, move_bits<2 * kP, 4>(load_bytes(g)), mask);
    high = or_masked(high, move_bits<2 * kP, 4>(load_bytes(g + kVector)), mask);
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    nibbles(g + 2 * kVector, p, low, high);
    switch (p) {
      case 0: return high_bits_at<0>(g, low, high);
      case 1: return high_bits_at<1>(g, low, high);
      case 2: return high_bits_at<2>(g, low, high);
      default: return high_bits_at<3>(g, low, high);
    }
  }
};

// Panels unpacked to bytes: a block is d float[16], m float[16] and 8 vectors.
template <Scaling kHow, int kOffsetShift>
struct DecodeUnpacked : SimpleUnits<640, 128> {
  static constexpr Scaling kScaling = kHow;
  static constexpr int kShift = kOffsetShift;
  static Head head(const std::byte* panel, int64_t b) {
    return {load_floats(unit(panel, b)), load_floats(unit(panel, b) + 64)};
  }
  static void pair(const std::byte* g, int p, __m512i& low, __m512i& high) {
    low = load_bytes(g + p * kVector);
    high = load_bytes(g + (p + 4) * kVector);
  }
};
constexpr int kUnpackedBlock = 640;

__m512i broadcast32(const std::byte* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}
__m512 broadcast_float(const std::byte* p) {
  float v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_ps(v);
}

void prefetch(const std::byte* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T1);
  }
}

template <class Decoder, int kPanels, int kRows>
void tile(const TileArgs& a) {
  __m512 acc[kPanels][kRows];
  for (int n = 0; n < kPanels; ++n) {
    for (int i = 0; i < kRows; ++i) acc[n][i] = _mm512_setzero_ps();
  }
  const std::byte* ahead = a.ahead;
  const std::byte* block = a.acts + a.begin * a.size * kActBlockBytes;
  for (int64_t b = a.begin; b < a.end; ++b, block += a.size * kActBlockBytes) {
    prefetch(ahead, a.ahead_step);
    ahead += a.ahead_step;
    const std::byte* q = block + a.row * kActBlock;
    const std::byte* d = block + a.size * 32 + a.row * 4;
    const std::byte* c = d + a.size * 4;
    const std::byte* s = c + a.size * 4;
    const std::byte* t = s + a.size * 4;
    const std::byte* group[kPanels];
    Head head[kPanels];
    for (int n = 0; n < kPanels; ++n) {
      group[n] = Decoder::group(a.panel + n * a.panel_stride, b);
      head[n] = Decoder::head(a.panel + n * a.panel_stride, b);
    }
    constexpr bool kTwo = Decoder::kScaling == Scaling::kTwo;
    __m512i sum[kPanels][kRows], second[kTwo ? kPanels : 1][kTwo ? kRows : 1];
    for (int i = 0; i < kRows; ++i) {
      __m512i first = _mm512_setzero_si512(), rest = first;
      if constexpr (Decoder::kScaling == Scaling::kOne) {
        first = _mm512_srai_epi32(broadcast32(s + i * 4), Decoder::kShift);
      }
      if constexpr (kTwo) {
        first = _mm512_srai_epi32(broadcast32(t + i * 4), Decoder::kShift);
        rest = _mm512_sub_epi32(_mm512_srai_epi32(broadcast32(s + i * 4), Decoder::kShift), first);
      }
      for (int n = 0; n < kPanels; ++n) {
        sum[n][i] = first;
        if constexpr (kTwo) second[n][i] = rest;
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      __m512i low[kPanels], high[kPanels];
      for (int n = 0; n < kPanels; ++n) Decoder::pair(group[n], p, low[n], high[n]);
      for (int i = 0; i < kRows; ++i) {
        const __m512i x = broadcast32(q + i * kActBlock + p * 4);
        const __m512i y = broadcast32(q + i * kActBlock + p * 4 + 16);
        for (int n = 0; n < kPanels; ++n) {
          sum[n][i] = _mm512_dpbusd_epi32(sum[n][i], low[n], x);
          __m512i& rest = kTwo ? second[kTwo ? n : 0][kTwo ? i : 0] : sum[n][i];
          rest = _mm512_dpbusd_epi32(rest, high[n], y);
        }
      }
    }
    for (int i = 0; i < kRows; ++i) {
      const __m512 scale = broadcast_float(d + i * 4);
      for (int n = 0; n < kPanels; ++n) {
        const __m512 whole = _mm512_cvtepi32_ps(sum[n][i]);
        if constexpr (kTwo) {
          const __m512 rest = _mm512_mul_ps(head[n].m, _mm512_cvtepi32_ps(second[n][i]));
          acc[n][i] = _mm512_fmadd_ps(_mm512_fmadd_ps(head[n].d, whole, rest), scale, acc[n][i]);
        } else {
          acc[n][i] = _mm512_fmadd_ps(head[n].d, _mm512_mul_ps(whole, scale), acc[n][i]);
        }
        if constexpr (Decoder::kScaling == Scaling::kWithMin) {
          acc[n][i] = _mm512_fmadd_ps(head[n].m, broadcast_float(c + i * 4), acc[n][i]);
        }
      }
    }
  }
  for (int n = 0; n < kPanels; ++n) {
    for (int i = 0; i < kRows; ++i) _mm512_storeu_ps(a.out + (i * kPanels + n) * 16, acc[n][i]);
  }
}

// Plain types: one "column" is one vector of weights and one dword of each activation row.
template <DType kType, int kPanels, int kRows>
void plain_tile(const TileArgs& a) {
  __m512 acc[kPanels][kRows];
  for (int n = 0; n < kPanels; ++n) {
    for (int i = 0; i < kRows; ++i) acc[n][i] = _mm512_setzero_ps();
  }
  constexpr int64_t kBytes = kType == DType::kF16 ? 32 : 64;
  const std::byte* x = a.acts + (a.begin * a.size + a.row) * 4;
  for (int64_t k = a.begin; k < a.end; ++k, x += a.size * 4) {
    __m512 w[kPanels];
    for (int n = 0; n < kPanels; ++n) {
      const std::byte* at = a.panel + n * a.panel_stride + k * kBytes;
      _mm_prefetch(reinterpret_cast<const char*>(at + 4096), _MM_HINT_T0);
      w[n] = kType == DType::kF16 ? load_halves(at) : load_floats(at);
    }
    for (int i = 0; i < kRows; ++i) {
      const __m512 v = broadcast_float(x + i * 4);
      for (int n = 0; n < kPanels; ++n) {
        if constexpr (kType == DType::kBF16) {
          acc[n][i] = _mm512_dpbf16_ps(acc[n][i], (__m512bh)w[n], (__m512bh)v);
        } else {
          acc[n][i] = _mm512_fmadd_ps(w[n], v, acc[n][i]);
        }
      }
    }
  }
  for (int n = 0; n < kPanels; ++n) {
    for (int i = 0; i < kRows; ++i) _mm512_storeu_ps(a.out + (i * kPanels + n) * 16, acc[n][i]);
  }
}

// The tiles of one kind of weights: for each of kGroupSizes, with one panel and with two. A tile of
// two panels holds at most 6 rows in registers, so larger groups take two or three passes.
struct Tiles {
  TileFunction one[kMaxGroupRows + 1];
  TileFunction two[kMaxGroupRows + 1];
};

template <template <int, int> class Make>
constexpr Tiles make_tiles() {
  Tiles t{};
  t.one[1] = Make<1, 1>::run, t.one[2] = Make<1, 2>::run, t.one[3] = Make<1, 3>::run;
  t.one[4] = Make<1, 4>::run, t.one[6] = Make<1, 6>::run, t.one[8] = Make<1, 8>::run;
  t.one[10] = Make<1, 10>::run, t.one[12] = Make<1, 12>::run;
  t.two[1] = Make<2, 1>::run, t.two[2] = Make<2, 2>::run, t.two[3] = Make<2, 3>::run;
  t.two[4] = Make<2, 4>::run, t.two[5] = Make<2, 5>::run, t.two[6] = Make<2, 6>::run;
  return t;
}

template <class Decoder>
struct Quantised {
  template <int kPanels, int kRows>
  struct Make {
    static void run(const TileArgs& a) { tile<Decoder, kPanels, kRows>(a); }
  };
  static constexpr Tiles kTiles = make_tiles<Make>();
};
template <DType kType>
struct Plain {
  template <int kPanels, int kRows>
  struct Make {
    static void run(const TileArgs& a) { plain_tile<kType, kPanels, kRows>(a); }
  };
  static constexpr Tiles kTiles = make_tiles<Make>();
};

// How many rows of a group of R the two-panel tile takes at a time.
constexpr int kRowsAtOnce[kMaxGroupRows + 1] = {0, 1, 2, 3, 4, 0, 6, 0, 4, 0, 5, 0, 6};

const Tiles& packed_tiles(DType type) {
  switch (type) {
    case DType::kF32: return Plain<DType::kF32>::kTiles;
    case DType::kF16: return Plain<DType::kF16>::kTiles;
    case DType::kBF16: return Plain<DType::kBF16>::kTiles;
    case DType::kQ8_0: return Quantised<DecodeQ8_0>::kTiles;
    case DType::kQ4_0: return Quantised<DecodeQ4_0>::kTiles;
    case DType::kQ4_1: return Quantised<DecodeQ4_1>::kTiles;
    case DType::kQ5_0: return Quantised<DecodeQ5_0>::kTiles;
    case DType::kQ5_1: return Quantised<DecodeQ5_1>::kTiles;
    case DType::kQ4_K: return Quantised<DecodeQ4_K>::kTiles;
    case DType::kQ5_K: return Quantised<DecodeQ5_K>::kTiles;
    case DType::kQ6_K: return Quantised<DecodeQ6_K>::kTiles;
  }
  __builtin_unreachable();
}

// Unpacks blocks [begin, end) of a panel.
template <class Decoder>
void unpack(const std::byte* panel, int64_t begin, int64_t end, std::byte* to) {
  for (int64_t b = begin; b < end; ++b, to += kUnpackedBlock) {
    const Head head = Decoder::head(panel, b);
    _mm512_store_ps(to, head.d);
    _mm512_store_ps(to + 64, head.m);
    const std::byte* group = Decoder::group(panel, b);
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      __m512i low, high;
      Decoder::pair(group, p, low, high);
      _mm512_store_si512(to + 128 + p * kVector, low);
      _mm512_store_si512(to + 128 + (p + 4) * kVector, high);
    }
  }
}

struct UnpackedKind {
  void (*unpack)(const std::byte* panel, int64_t begin, int64_t end, std::byte* to);
  const Tiles* tiles;
};
template <class Decoder>
constexpr UnpackedKind unpacked_kind() {
  return {unpack<Decoder>,
          &Quantised<DecodeUnpacked<Decoder::kScaling, Decoder::kShift>>::kTiles};
}

// For the types that are dear to decode; null for the others.
UnpackedKind unpacked(DType type) {
  switch (type) {
    case DType::kQ5_0: return unpacked_kind<DecodeQ5_0>();
    case DType::kQ5_1: return unpacked_kind<DecodeQ5_1>();
    case DType::kQ4_K: return unpacked_kind<DecodeQ4_K>();
    case DType::kQ5_K: return unpacked_kind<DecodeQ5_K>();
    case DType::kQ6_K: return unpacked_kind<DecodeQ6_K>();
    default: return {nullptr, nullptr};
  }
}

// One or two panels (weights at `weights`) times one group.
void multiply_group(const PackedMatrix& w, const Tiles& tiles, const std::byte* weights,
                    int64_t stride, int64_t p, int64_t panels, const Activations& acts, int64_t g,
                    const std::byte* ahead, int64_t ahead_step, const Output& o) {
  alignas(64) float buffer[kMaxTile];
  const int64_t size = acts.group_size(g);
  const int64_t at_once = panels == 2 ? kRowsAtOnce[size] : size;
  const TileFunction run = panels == 2 ? tiles.two[at_once] : tiles.one[at_once];
  for (int64_t row = 0; row < size; row += at_once) {
    const TileArgs a{.panel = weights,
                     .panel_stride = stride,
                     .begin = 0,
                     .end = k_steps(w),
                     .acts = acts.group(g),
                     .size = size,
                     .row = row,
                     .out = buffer,
                     .ahead = ahead,
                     .ahead_step = row == 0 ? ahead_step : 0};
    sum_shards(run, a, w.k_shards, at_once * panels * kPanelRows);
    const int64_t valid = acts.rows_in_group(g) - row;
    if (valid > 0) {
      store_tile(buffer, panels, p, g * acts.group_rows() + row, valid < at_once ? valid : at_once,
                 o);
    }
  }
}

// A batch of panels (below) takes at most kGemmBatchBytes of L2; a pair of long panels may take
// more.
constexpr int64_t kScratchBytes = 768 << 10;

// The calling thread's scratch, made at its first use. (As a plain thread-local array it would
// count against the stack of every thread in the program.)
std::byte* unpacked_scratch() {
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  static thread_local std::unique_ptr<std::byte[], Free> scratch(
      static_cast<std::byte*>(::operator new[](kScratchBytes, std::align_val_t{64})));
  return scratch.get();
}

// How a product is carried out; a matter of speed alone.
struct Plan {
  bool unpack;
  int64_t at_once;  // panels a tile
};

// Unpacking pays where decoding is dear and there are groups enough to share it (measured:
// docs/kernels.md).
Plan choose_plan(const PackedMatrix& w, const Activations& acts) {
  const int64_t groups = acts.group_count();
  if (groups == 1) {
    // One row is bound by memory, and one stream a thread is read faster than two.
    const int64_t size = acts.group_size(0);
    return {false, size > 1 && size <= 6 ? 2 : 1};
  }
  const int64_t enough = w.dtype == DType::kQ4_K ? 8 : 2;
  const bool fits = w.cols / kActBlock * kUnpackedBlock <= kScratchBytes;
  return {unpacked(w.dtype).tiles != nullptr && groups >= enough && fits, 2};
}

// One group of activations: every panel is read once, from memory. Prefetches a few KiB ahead.
void stream(const PackedMatrix& w, int64_t begin, int64_t end, const Activations& acts,
            int64_t at_once, const Output& o) {
  const Tiles& tiles = packed_tiles(w.dtype);
  const int64_t step = (w.panel_bytes / k_steps(w) + 63) / 64 * 64;
  for (int64_t p = begin; p < end; p += at_once) {
    const std::byte* panel = w.panel(p);
    multiply_group(w, tiles, panel, w.panel_bytes, p, end - p < at_once ? end - p : at_once, acts,
                   0, panel + 4096, step, o);
  }
}

// Several groups: a batch of panels stays in L2 while the groups pass by, each of which meets the
// whole batch while it is in L1. Meanwhile the next batch comes from memory.
void multiply_batches(const PackedMatrix& w, int64_t begin, int64_t end, const Activations& acts,
                      const Plan& plan, const Output& o) {
  const int64_t steps = k_steps(w), groups = acts.group_count();
  const UnpackedKind kind = plan.unpack ? unpacked(w.dtype) : UnpackedKind{};
  const Tiles& tiles = plan.unpack ? *kind.tiles : packed_tiles(w.dtype);
  std::byte* const scratch = plan.unpack ? unpacked_scratch() : nullptr;
  const int64_t stride = plan.unpack ? steps * kUnpackedBlock : w.panel_bytes;
  const int64_t fit = kGemmBatchBytes / stride / 2 * 2;
  const int64_t batch = fit >= 2 ? fit : 2 * stride <= kScratchBytes ? 2 : 1;
  for (int64_t p = begin; p < end; p += batch) {
    const int64_t count = end - p < batch ? end - p : batch;
    for (int64_t n = 0; plan.unpack && n < count; ++n) {
      kind.unpack(w.panel(p + n), 0, steps, scratch + n * stride);
    }
    const std::byte* const weights = plan.unpack ? scratch : w.panel(p);
    const int64_t rounds = groups * ((count + plan.at_once - 1) / plan.at_once);
    // What lies behind `end` is usually the caller's next range.
    const int64_t next = p + count < w.panel_count() ? count * w.panel_bytes : 0;
    const int64_t step = (next / (rounds * steps) + 63) / 64 * 64;
    const std::byte* ahead = w.panel(p + count);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t n = 0; n < count; n += plan.at_once, ahead += steps * step) {
        multiply_group(w, tiles, weights + n * stride, stride, p + n,
                       count - n < plan.at_once ? count - n : plan.at_once, acts, g, ahead, step,
                       o);
      }
    }
  }
}

}  // namespace

void gemm(const PackedMatrix& w, int64_t begin, int64_t end, const Activations& acts, float* out,
          int64_t ldo) {
  const Plan plan = choose_plan(w, acts);
  const Output o{out, ldo, w.rows};
  if (acts.group_count() == 1) {
    stream(w, begin, end, acts, plan.at_once, o);
  } else {
    multiply_batches(w, begin, end, acts, plan, o);
  }
}

}  // namespace towline::engine::avx512

#endif
