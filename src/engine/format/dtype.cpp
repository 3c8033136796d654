// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Names, sizes, the half-precision conversions and dequantisation. Quantisation is in
// quantize_row.cpp.
#include "engine/format/dtype.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

#include "base/check.hpp"
#include "engine/format/blocks.hpp"

namespace towline::engine {
namespace {

constexpr std::array<DTypeInfo, kDTypeCount> kInfo = {{
    {"f32", 1, 4, 0},
    {"f16", 1, 2, 1},
    {"bf16", 1, 2, 30},
    {"q8_0", 32, sizeof(BlockQ8_0), 8},
    {"q4_0", 32, sizeof(BlockQ4_0), 2},
    {"q4_1", 32, sizeof(BlockQ4_1), 3},
    {"q5_0", 32, sizeof(BlockQ5_0), 6},
    {"q5_1", 32, sizeof(BlockQ5_1), 7},
    {"q4_k", 256, sizeof(BlockQ4_K), 12},
    {"q5_k", 256, sizeof(BlockQ5_K), 13},
    {"q6_k", 256, sizeof(BlockQ6_K), 14},
}};

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void dequantize(const BlockQ8_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(b.q[i]);
}

void dequantize(const BlockQ4_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((b.q[i] & 15) - 8);
    y[i + 16] = d * static_cast<float>((b.q[i] >> 4) - 8);
  }
}

void dequantize(const BlockQ4_1& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(b.q[i] & 15) + m;
    y[i + 16] = d * static_cast<float>(b.q[i] >> 4) + m;
  }
}

// The fifth bits of a Q5 block: bit i belongs to element i.
int fifth_bit(const uint8_t (&high)[4], int i) { return ((high[i / 8] >> (i % 8)) & 1) << 4; }

void dequantize(const BlockQ5_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(((b.q[i] & 15) | fifth_bit(b.high, i)) - 16);
    y[i + 16] = d * static_cast<float>(((b.q[i] >> 4) | fifth_bit(b.high, i + 16)) - 16);
  }
}

void dequantize(const BlockQ5_1& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((b.q[i] & 15) | fifth_bit(b.high, i)) + m;
    y[i + 16] = d * static_cast<float>((b.q[i] >> 4) | fifth_bit(b.high, i + 16)) + m;
  }
}

void dequantize(const BlockQ4_K& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.min);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = unpack_scale_min(b.scales, group);
    const float scale = d * static_cast<float>(s.scale), min = m * static_cast<float>(s.min);
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int q = (b.q[group / 2 * 32 + i] >> shift) & 15;
      y[group * 32 + i] = scale * static_cast<float>(q) - min;
    }
  }
}

void dequantize(const BlockQ5_K& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.min);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = unpack_scale_min(b.scales, group);
    const float scale = d * static_cast<float>(s.scale), min = m * static_cast<float>(s.min);
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int low = (b.q[group / 2 * 32 + i] >> shift) & 15;
      const int q = low | (((b.high[i] >> group) & 1) << 4);
      y[group * 32 + i] = scale * static_cast<float>(q) - min;
    }
  }
}

void dequantize(const BlockQ6_K& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const float scale = d * static_cast<float>(b.scales[i / 16]);
    y[i] = scale * static_cast<float>(q6_k_value(b, i));
  }
}

template <class Block>
void dequantize_blocks(const std::byte* row, std::span<float> values) {
  constexpr size_t kElements = Block::kElements;
  for (size_t i = 0; i < values.size(); i += kElements, row += sizeof(Block)) {
    dequantize(load<Block>(row), values.data() + i);
  }
}

}  // namespace

const DTypeInfo& dtype_info(DType type) { return kInfo[static_cast<size_t>(type)]; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string_view known = kInfo[static_cast<size_t>(i)].name;
    const bool same = std::equal(name.begin(), name.end(), known.begin(), known.end(),
                                 [](char a, char b) {
                                   return std::tolower(static_cast<unsigned char>(a)) == b;
                                 });
    if (same) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_gguf(uint32_t gguf_type) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (kInfo[static_cast<size_t>(i)].gguf_type == gguf_type) return static_cast<DType>(i);
  }
  return std::nullopt;
}

void dequantize_row(DType type, const std::byte* row, std::span<float> values) {
  DCHECK(values.size() % static_cast<size_t>(dtype_info(type).block) == 0, values.size());
  switch (type) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(values.data(), row, values.size_bytes());
      return;
    case DType::kF16:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = half_to_float(load<uint16_t>(row + 2 * i));
      }
      return;
    case DType::kBF16:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = bf16_to_float(load<uint16_t>(row + 2 * i));
      }
      return;
    case DType::kQ8_0: return dequantize_blocks<BlockQ8_0>(row, values);
    case DType::kQ4_0: return dequantize_blocks<BlockQ4_0>(row, values);
    case DType::kQ4_1: return dequantize_blocks<BlockQ4_1>(row, values);
    case DType::kQ5_0: return dequantize_blocks<BlockQ5_0>(row, values);
    case DType::kQ5_1: return dequantize_blocks<BlockQ5_1>(row, values);
    case DType::kQ4_K: return dequantize_blocks<BlockQ4_K>(row, values);
    case DType::kQ5_K: return dequantize_blocks<BlockQ5_K>(row, values);
    case DType::kQ6_K: return dequantize_blocks<BlockQ6_K>(row, values);
  }
}

float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t fraction = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) {
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  }
  const float magnitude = static_cast<float>(fraction) * 0x1.0p-24f;  // zero and subnormals: exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to inf
  if (magnitude < 0x38800000u) {
    // Below the smallest normal half. Adding 0.5f leaves multiples of 2^-24 in the fraction, and
    // the addition itself rounds to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  const uint32_t rounded = magnitude + 0xfffu + odd - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

}  // namespace towline::engine
