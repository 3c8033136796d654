// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/dtype.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "base/for_seeds.hpp"
#include "engine/format/blocks.hpp"

namespace towline::engine {
namespace {

constexpr std::array kAll = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                             DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                             DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

TEST(DType, NamesNumbersAndSizesAreThoseOfTheFormat) {
  EXPECT_EQ(kAll.size(), static_cast<size_t>(kDTypeCount));
  for (const DType type : kAll) {
    EXPECT_EQ(dtype_from_name(dtype_info(type).name), type);
    EXPECT_EQ(dtype_from_gguf(dtype_info(type).gguf_type), type);
  }
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::kQ4_K);
  EXPECT_EQ(dtype_from_name("q4_k_m"), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
  EXPECT_EQ(dtype_from_gguf(10), std::nullopt);  // q2_k
  EXPECT_EQ(row_bytes(DType::kQ4_0, 2048), 2048 / 32 * 18);
  EXPECT_EQ(row_bytes(DType::kQ6_K, 512), 420);
  EXPECT_EQ(row_bytes(DType::kBF16, 3), 6);
}

TEST(Half, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = half_to_float(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(f))));
    } else {
      ASSERT_EQ(float_to_half(f), h);
    }
  }
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1.0p-24f);
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_EQ(half_to_float(0xfc00), -INFINITY);
}

// The oracle: of the two neighbouring halves the nearer one, of two equally near the even one.
TEST(Half, RoundsToNearestEven) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const double low = half_to_float(static_cast<uint16_t>(h));
    const double high = half_to_float(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((low + high) / 2);  // exact: one more bit
    EXPECT_EQ(float_to_half(middle), h % 2 == 0 ? h : h + 1);
    ASSERT_EQ(float_to_half(std::nextafterf(middle, 0)), h);
    ASSERT_EQ(float_to_half(std::nextafterf(middle, INFINITY)), h + 1);
  }
  EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_half(1e-30f), 0);
}

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.00390625f), 0x3f80);                        // half way, to even
  EXPECT_EQ(float_to_bf16(1.01171875f), 0x3f82);                        // half way, to even
  EXPECT_EQ(float_to_bf16(std::nextafterf(1.00390625f, 2.0f)), 0x3f81);
  EXPECT_EQ(float_to_bf16(3.4e38f), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(NAN))));
  EXPECT_EQ(bf16_to_float(0xc000), -2.0f);
}

template <class Block>
std::array<float, Block::kElements> expand(DType type, const Block& block) {
  std::array<float, Block::kElements> y;
  dequantize_row(type, reinterpret_cast<const std::byte*>(&block), y);
  return y;
}

TEST(Dequantize, Q4_0ByHand) {
  BlockQ4_0 b{float_to_half(0.5f), {}};
  for (int i = 0; i < 16; ++i) b.q[i] = static_cast<uint8_t>(i | ((15 - i) << 4));
  const auto y = expand(DType::kQ4_0, b);
  EXPECT_EQ(y[0], -4.0f);
  EXPECT_EQ(y[15], 3.5f);
  EXPECT_EQ(y[16], 3.5f);
  EXPECT_EQ(y[31], -4.0f);
}

TEST(Dequantize, Q5_1ByHand) {
  BlockQ5_1 b{float_to_half(2.0f), float_to_half(-1.0f), {0x01, 0, 0, 0x80}, {}};
  b.q[0] = 0x03;   // element 0: 3 + 16; element 16: 0
  b.q[15] = 0x50;  // element 31: 5 + 16
  const auto y = expand(DType::kQ5_1, b);
  EXPECT_EQ(y[0], 2.0f * 19 - 1);
  EXPECT_EQ(y[1], -1.0f);
  EXPECT_EQ(y[16], -1.0f);
  EXPECT_EQ(y[31], 2.0f * 21 - 1);
}

TEST(Dequantize, Q4_KScalesByHand) {
  // Group 1: scale 0b010101 = 21, min 7; group 6: scale 0b110010 = 50, min 0b100001 = 33.
  BlockQ4_K b{float_to_half(1.0f), float_to_half(0.5f), {}, {}};
  b.scales[1] = 21;
  b.scales[5] = 7;
  b.scales[10] = 0x12;            // low nibbles: scale 2, min 1
  b.scales[2] = 0b11 << 6;        // scale's top bits
  b.scales[6] = 0b10 << 6;        // min's top bits
  b.q[4] = 0x90;                  // element 4 of group 1 = 9
  b.q[96 + 31] = 0x0b;            // element 31 of group 6 = 11
  const auto y = expand(DType::kQ4_K, b);
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[32 + 4], 21.0f * 9 - 3.5f);
  EXPECT_EQ(y[32 + 5], -3.5f);
  EXPECT_EQ(y[6 * 32 + 31], 50.0f * 11 - 16.5f);
}

TEST(Dequantize, Q6_KByHand) {
  BlockQ6_K b{};
  b.d = float_to_half(0.25f);
  b.scales[15] = -3;
  b.low[64 + 32 + 31] = 0xf0;  // element 255: high nibble of the second half's second run
  b.high[32 + 31] = 0b11000000;
  const auto y = expand(DType::kQ6_K, b);
  EXPECT_EQ(y[255], 0.25f * -3 * 31);
  EXPECT_EQ(y[254], 0.25f * -3 * -32);
  EXPECT_EQ(y[0], 0.0f);
}

TEST(Quantize, Q4_0AndQ8_0ByHand) {
  std::array<float, 32> x{};
  x[3] = -2.0f;  // the peak: d = -2 / -8 = 0.25
  x[4] = 1.0f;
  x[20] = 3.0f * 0.25f / 2;  // 1.5 levels: 8.5 + 1.5 = 10
  BlockQ4_0 b;
  quantize_row(DType::kQ4_0, x, reinterpret_cast<std::byte*>(&b));
  EXPECT_EQ(half_to_float(b.d), 0.25f);
  EXPECT_EQ(b.q[3] & 15, 0);
  EXPECT_EQ(b.q[4], 12 | (10 << 4));
  BlockQ8_0 c;
  quantize_row(DType::kQ8_0, x, reinterpret_cast<std::byte*>(&c));
  EXPECT_EQ(c.d, float_to_half(2.0f / 127));
  EXPECT_EQ(c.q[3], -127);
  EXPECT_EQ(c.q[4], 64);  // 63.5, away from zero
}

double bits_a_value(DType type) {
  return 8.0 * dtype_info(type).block_bytes / dtype_info(type).block;
}

// Root-mean-square error over the root-mean-square value.
double relative_error(DType type, const std::vector<float>& x) {
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(type, static_cast<int64_t>(x.size()))));
  std::vector<float> y(x.size());
  quantize_row(type, x, row.data());
  dequantize_row(type, row.data(), y);
  double miss = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    miss += (y[i] - x[i]) * double{y[i] - x[i]};
    size += double{x[i]} * x[i];
  }
  return std::sqrt(miss / size);
}

std::vector<float> normal_values(Rng& rng, size_t n, double sigma) {
  std::vector<float> x(n);
  for (float& v : x) {
    const double radius = std::sqrt(-2 * std::log(1 - rng.unit()));
    v = static_cast<float>(sigma * radius * std::cos(6.283185307179586 * rng.unit()));
  }
  return x;
}

// Bounds measured with a wide margin below the next coarser type: a wrong nibble order, a lost
// high bit or a poor scale search breaks them at once.
TEST(Quantize, RoundTripErrorIsThatOfTheType) {
  const std::array<std::pair<DType, double>, 11> bounds = {{{DType::kF32, 0},
                                                            {DType::kF16, 4e-4},
                                                            {DType::kBF16, 3e-3},
                                                            {DType::kQ8_0, 0.0065},
                                                            {DType::kQ4_0, 0.095},
                                                            {DType::kQ4_1, 0.085},
                                                            {DType::kQ5_0, 0.048},
                                                            {DType::kQ5_1, 0.042},
                                                            {DType::kQ4_K, 0.075},
                                                            {DType::kQ5_K, 0.039},
                                                            {DType::kQ6_K, 0.021}}};
  for_seeds(8, [&](Rng& rng) {
    const std::vector<float> x = normal_values(rng, 4096, 0.02 + rng.unit());
    for (const auto& [type, bound] : bounds) {
      EXPECT_LE(relative_error(type, x), bound) << dtype_info(type).name;
    }
  });
  EXPECT_EQ(bits_a_value(DType::kQ4_K), 4.5);
}

// What was quantised once must not drift when it is quantised again.
TEST(Quantize, IsNearlyIdempotent) {
  for_seeds(4, [](Rng& rng) {
    const std::vector<float> x = normal_values(rng, 2048, 0.05);
    for (const DType type : kAll) {
      const auto bytes = static_cast<size_t>(row_bytes(type, 2048));
      std::vector<std::byte> row(bytes);
      std::vector<float> once(x.size());
      quantize_row(type, x, row.data());
      dequantize_row(type, row.data(), once);
      EXPECT_LE(relative_error(type, once), 0.012) << dtype_info(type).name;
    }
  });
}

TEST(Quantize, ZerosConstantsAndNonFiniteValuesAreHarmless) {
  for (const DType type : kAll) {
    std::vector<float> x(256, 0.0f), y(256);
    std::vector<std::byte> row(static_cast<size_t>(row_bytes(type, 256)));
    quantize_row(type, x, row.data());
    dequantize_row(type, row.data(), y);
    EXPECT_EQ(y, x) << dtype_info(type).name;
    for (const float c : {1.0f, -1.0f, 0.25f}) {
      x.assign(256, c);
      EXPECT_LE(relative_error(type, x), 0.07) << dtype_info(type).name << " of " << c;
    }
    x[7] = NAN;
    x[100] = INFINITY;
    quantize_row(type, x, row.data());  // any result will do
    dequantize_row(type, row.data(), y);
  }
}

}  // namespace
}  // namespace towline::engine
