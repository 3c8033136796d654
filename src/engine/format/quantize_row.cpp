// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// float32 -> blocks. The 32-element types round exactly as the ecosystem's tools do, so files come
// out byte for byte the same. The K types choose each group's scale and minimum by weighted least
// squares over a small grid of candidate scales.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.hpp"
#include "engine/format/blocks.hpp"
#include "engine/format/dtype.hpp"

namespace towline::engine {
namespace {

// Truncates towards zero, at most `top`; NaN (from a non-finite input) becomes 0.
uint8_t level(float scaled, int top) {
  if (!(scaled > 0)) return 0;
  return static_cast<uint8_t>(std::min(scaled, static_cast<float>(top)));
}

// To the nearest integer, ties to even, within [low, high] (both below 2^22 in size); NaN gives 0.
// Adding 1.5 * 2^23 leaves no fraction bits, and the addition rounds: several times quicker than
// the library call where the instruction set has no rounding.
constexpr float kRoundingShift = 12582912.0f;
float nearest_float(float value, float low, float high) {
  if (std::isnan(value)) return 0;
  return (std::min(std::max(value, low), high) + kRoundingShift) - kRoundingShift;
}
int nearest(float value, int low, int high) {
  return static_cast<int>(
      nearest_float(value, static_cast<float>(low), static_cast<float>(high)));
}

float inverse(float d) { return d != 0 ? 1.0f / d : 0.0f; }

// The element of largest magnitude, with its sign (the first, if several).
float signed_peak(const float* x, int n) {
  float peak = 0, magnitude = 0;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > magnitude) {
      magnitude = std::fabs(x[i]);
      peak = x[i];
    }
  }
  return peak;
}

void quantize(const float* x, BlockQ8_0& b) {
  const float d = std::fabs(signed_peak(x, 32)) / 127.0f;
  const float id = inverse(d);
  b.d = float_to_half(d);
  for (int i = 0; i < 32; ++i) {
    const float r = std::round(x[i] * id);  // halves away from zero
    b.q[i] = static_cast<int8_t>(std::isnan(r) ? 0.0f : std::clamp(r, -127.0f, 127.0f));
  }
}

void quantize(const float* x, BlockQ4_0& b) {
  const float d = signed_peak(x, 32) / -8.0f;  // the peak itself becomes level 0: exact
  const float id = inverse(d);
  b.d = float_to_half(d);
  for (int i = 0; i < 16; ++i) {
    const uint8_t low = level(x[i] * id + 8.5f, 15);
    const uint8_t high = level(x[i + 16] * id + 8.5f, 15);
    b.q[i] = static_cast<uint8_t>(low | (high << 4));
  }
}

struct Bounds {
  float low, high;
};
Bounds bounds_of(const float* x, int n) {
  const auto [low, high] = std::minmax_element(x, x + n);
  return {*low, *high};
}

void quantize(const float* x, BlockQ4_1& b) {
  const auto [low, high] = bounds_of(x, 32);
  const float d = (high - low) / 15.0f;
  const float id = inverse(d);
  b.d = float_to_half(d);
  b.m = float_to_half(low);
  for (int i = 0; i < 16; ++i) {
    const uint8_t first = level((x[i] - low) * id + 0.5f, 15);
    const uint8_t second = level((x[i + 16] - low) * id + 0.5f, 15);
    b.q[i] = static_cast<uint8_t>(first | (second << 4));
  }
}

template <class Block>
void pack_q5(Block& b, const std::array<uint8_t, 32>& q) {
  std::memset(b.high, 0, sizeof b.high);
  for (int i = 0; i < 16; ++i) {
    b.q[i] = static_cast<uint8_t>((q[i] & 15) | ((q[i + 16] & 15) << 4));
  }
  for (int i = 0; i < 32; ++i) {
    b.high[i / 8] = static_cast<uint8_t>(b.high[i / 8] | ((q[i] >> 4) << (i % 8)));
  }
}

void quantize(const float* x, BlockQ5_0& b) {
  const float d = signed_peak(x, 32) / -16.0f;
  const float id = inverse(d);
  b.d = float_to_half(d);
  std::array<uint8_t, 32> q;
  for (int i = 0; i < 32; ++i) q[i] = level(x[i] * id + 16.5f, 31);
  pack_q5(b, q);
}

void quantize(const float* x, BlockQ5_1& b) {
  const auto [low, high] = bounds_of(x, 32);
  const float d = (high - low) / 31.0f;
  const float id = inverse(d);
  b.d = float_to_half(d);
  b.m = float_to_half(low);
  std::array<uint8_t, 32> q;
  for (int i = 0; i < 32; ++i) q[i] = level((x[i] - low) * id + 0.5f, 31);
  pack_q5(b, q);
}

// One group of a Q4_K or Q5_K block as scale * q - min, with min >= 0 and q in 0..top.
struct GroupFit {
  float scale = 0, min = 0;
};

// Four floats at a time: GCC's and clang's portable vectors. The searches below are where the time
// of a quantisation goes.
using Lanes = float __attribute__((vector_size(16)));

Lanes splat(float v) { return Lanes{v, v, v, v}; }
float sum(Lanes v) { return (v[0] + v[1]) + (v[2] + v[3]); }
Lanes load_lanes(const float* from) {
  Lanes v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
// nearest_float of each lane, but NaN gives `low`.
Lanes nearest_lanes(Lanes v, float low, float high) {
  v = v > low ? v : splat(low);
  v = v < high ? v : splat(high);
  return (v + kRoundingShift) - kRoundingShift;
}

// A group's values with their weights, and the sums that no candidate changes.
struct WeightedGroup {
  std::array<Lanes, 8> x, w;
  float sw = 0, sx = 0, sxx = 0;
};

// The (scale, min) that minimises sum w (scale q - min - x)^2 for the levels q that `inverse_scale`
// gives: a two-variable least-squares problem. Returns the weighted square error.
float fit_levels(const WeightedGroup& g, float low, float inverse_scale, float top, GroupFit& fit) {
  Lanes lanes_q{}, lanes_qq{}, lanes_qx{};
  for (size_t i = 0; i < g.x.size(); ++i) {
    const Lanes q = nearest_lanes(inverse_scale * (g.x[i] - low), 0, top);
    const Lanes wq = g.w[i] * q;
    lanes_q += wq;
    lanes_qq += wq * q;
    lanes_qx += wq * g.x[i];
  }
  const float sq = sum(lanes_q), sqq = sum(lanes_qq), sqx = sum(lanes_qx);
  const float determinant = g.sw * sqq - sq * sq;
  fit.scale = (g.sw * sqx - g.sx * sq) / determinant;
  fit.min = (sq * sqx - sqq * g.sx) / determinant;
  // The format has no negative minimum, and a group of equal values has no determinant.
  if (!(determinant > 0) || !(fit.min >= 0)) fit = {sqx / sqq, 0};
  // The square multiplied out.
  const float a = fit.scale, m = fit.min;
  return a * a * sqq + m * m * g.sw + g.sxx - 2 * a * m * sq - 2 * a * sqx + 2 * m * g.sx;
}

GroupFit fit_group(const float* x, int top) {
  float low = 0, high = x[0], square = 0;  // zero is always in range: min >= 0
  for (int i = 0; i < 32; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    square += x[i] * x[i];
  }
  GroupFit best{0, -low};
  if (!(high > low) || !std::isfinite(square)) return best;
  WeightedGroup g;
  // Large weights matter more: they meet large activations as often as small ones do.
  const float typical = std::sqrt(square / 32);
  for (size_t i = 0; i < g.x.size(); ++i) {
    g.x[i] = load_lanes(x + 4 * i);
    g.w[i] = typical + (g.x[i] < 0.0f ? -g.x[i] : g.x[i]);
    const Lanes wx = g.w[i] * g.x[i];
    g.sw += sum(g.w[i]);
    g.sx += sum(wx);
    g.sxx += sum(wx * g.x[i]);
  }
  float least = INFINITY;
  constexpr int kCandidates = 21;
  for (int c = 0; c < kCandidates; ++c) {
    const float levels = static_cast<float>(top) + 0.1f * static_cast<float>(c - kCandidates / 2);
    GroupFit fit;
    const float error = fit_levels(g, low, levels / (high - low), static_cast<float>(top), fit);
    if (error < least && fit.scale > 0) {
      least = error;
      best = fit;
    }
  }
  return best;
}

// The scales and minima of a Q4_K/Q5_K block, and the level of every element under them.
template <class Block>
void quantize_groups(const float* x, int top, Block& b, std::array<uint8_t, 256>& q) {
  std::array<GroupFit, 8> fits;
  float scale_peak = 0, min_peak = 0;
  for (int g = 0; g < 8; ++g) {
    fits[g] = fit_group(x + g * 32, top);
    scale_peak = std::max(scale_peak, fits[g].scale);
    min_peak = std::max(min_peak, fits[g].min);
  }
  b.d = float_to_half(scale_peak / 63.0f);
  b.min = float_to_half(min_peak / 63.0f);
  const float d = half_to_float(b.d), m = half_to_float(b.min);
  std::memset(b.scales, 0, sizeof b.scales);
  for (int g = 0; g < 8; ++g) {
    const int scale = nearest(fits[g].scale * inverse(d), 0, 63);
    const int min = nearest(fits[g].min * inverse(m), 0, 63);
    pack_scale_min(b.scales, g, scale, min);
    const float is = inverse(d * static_cast<float>(scale)), lift = m * static_cast<float>(min);
    for (int i = 0; i < 32; ++i) {
      q[g * 32 + i] = static_cast<uint8_t>(nearest((x[g * 32 + i] + lift) * is, 0, top));
    }
  }
}

void quantize(const float* x, BlockQ4_K& b) {
  std::array<uint8_t, 256> q;
  quantize_groups(x, 15, b, q);
  for (int i = 0; i < 128; ++i) {
    const int pair = i / 32 * 64 + i % 32;
    b.q[i] = static_cast<uint8_t>(q[pair] | (q[pair + 32] << 4));
  }
}

void quantize(const float* x, BlockQ5_K& b) {
  std::array<uint8_t, 256> q;
  quantize_groups(x, 31, b, q);
  std::memset(b.high, 0, sizeof b.high);
  for (int i = 0; i < 128; ++i) {
    const int pair = i / 32 * 64 + i % 32;
    b.q[i] = static_cast<uint8_t>((q[pair] & 15) | ((q[pair + 32] & 15) << 4));
  }
  for (int i = 0; i < 256; ++i) {
    b.high[i % 32] = static_cast<uint8_t>(b.high[i % 32] | ((q[i] >> 4) << (i / 32)));
  }
}

// The scale of a 16-element group of Q6_K: x ~ scale * q, q in -32..31, weights x^2. For given
// levels the best scale is sum(w x q) / sum(w q^2), and it explains sum(w x q)^2 / sum(w q^2).
float fit_symmetric(const float* x) {
  const float peak = signed_peak(x, 16);
  if (peak == 0 || !std::isfinite(peak)) return 0;
  std::array<Lanes, 4> values, weights;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = load_lanes(x + 4 * i);
    const Lanes r = values[i] / peak;  // tiny weights must not vanish when squared
    weights[i] = r * r;
  }
  float best_scale = 0, best_gain = 0;
  for (int c = -9; c <= 9; ++c) {
    const float inverse_scale = -(32.0f + 0.1f * static_cast<float>(c)) / peak;
    Lanes lanes_xq{}, lanes_qq{};
    for (size_t i = 0; i < values.size(); ++i) {
      const Lanes q = nearest_lanes(inverse_scale * values[i], -32, 31);
      lanes_xq += weights[i] * values[i] * q;
      lanes_qq += weights[i] * q * q;
    }
    const float wxq = sum(lanes_xq), wqq = sum(lanes_qq);
    const float gain = wxq * (wxq / peak) / wqq * peak;
    if (wqq > 0 && gain > best_gain) {
      best_gain = gain;
      best_scale = wxq / wqq;
    }
  }
  return best_scale;
}

void quantize(const float* x, BlockQ6_K& b) {
  std::array<float, 16> scales;
  for (int g = 0; g < 16; ++g) scales[g] = fit_symmetric(x + g * 16);
  b.d = float_to_half(signed_peak(scales.data(), 16) / -128.0f);
  const float d = half_to_float(b.d);
  std::memset(b.low, 0, sizeof b.low);
  std::memset(b.high, 0, sizeof b.high);
  for (int g = 0; g < 16; ++g) {
    const int scale = nearest(scales[g] * inverse(d), -128, 127);
    b.scales[g] = static_cast<int8_t>(scale);
    const float is = inverse(d * static_cast<float>(scale));
    for (int i = g * 16; i < g * 16 + 16; ++i) {
      const int q = nearest(x[i] * is, -32, 31) + 32;
      const int half = i / 128, quarter = i / 32 % 4, place = i % 32;
      uint8_t& low = b.low[half * 64 + quarter % 2 * 32 + place];
      uint8_t& high = b.high[half * 32 + place];
      low = static_cast<uint8_t>(low | ((q & 15) << (quarter / 2 * 4)));
      high = static_cast<uint8_t>(high | ((q >> 4) << (quarter * 2)));
    }
  }
}

template <class Block>
void quantize_blocks(std::span<const float> values, std::byte* row) {
  for (size_t i = 0; i < values.size(); i += Block::kElements, row += sizeof(Block)) {
    Block block;
    quantize(values.data() + i, block);
    std::memcpy(row, &block, sizeof block);
  }
}

}  // namespace

void quantize_row(DType type, std::span<const float> values, std::byte* row) {
  DCHECK(values.size() % static_cast<size_t>(dtype_info(type).block) == 0, values.size());
  switch (type) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(row, values.data(), values.size_bytes());
      return;
    case DType::kF16:
    case DType::kBF16:
      for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t v =
            type == DType::kF16 ? float_to_half(values[i]) : float_to_bf16(values[i]);
        std::memcpy(row + 2 * i, &v, sizeof v);
      }
      return;
    case DType::kQ8_0: return quantize_blocks<BlockQ8_0>(values, row);
    case DType::kQ4_0: return quantize_blocks<BlockQ4_0>(values, row);
    case DType::kQ4_1: return quantize_blocks<BlockQ4_1>(values, row);
    case DType::kQ5_0: return quantize_blocks<BlockQ5_0>(values, row);
    case DType::kQ5_1: return quantize_blocks<BlockQ5_1>(values, row);
    case DType::kQ4_K: return quantize_blocks<BlockQ4_K>(values, row);
    case DType::kQ5_K: return quantize_blocks<BlockQ5_K>(values, row);
    case DType::kQ6_K: return quantize_blocks<BlockQ6_K>(values, row);
  }
}

}  // namespace towline::engine
