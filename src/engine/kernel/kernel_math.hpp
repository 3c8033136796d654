// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Constants that all kernel tables share: they define the bits (docs/kernels.md).
#pragma once

#include <cstdint>

namespace towline::engine {

// exp(x) = 2^n * e^r with n = round(x / ln 2) and r = x - n ln 2 in [-0.347, 0.347], ln 2 in two
// parts (the first has 9 trailing zero bits, so that n * kLn2High is exact). e^r is the Taylor
// polynomial of degree 7 in Horner's form: its error at the ends, r^8 / 8! = 5e-9, is below the
// rounding of float.
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
inline constexpr float kExpTaylor[8] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                        1.0f / 6,    0.5f,       1.0f,       1.0f};
inline constexpr float kExpLowest = -87.0f;  // below: 0. Above 88: as at 88 (1.65e38).
inline constexpr float kExpHighest = 88.0f;

// A block of activations below this size is all zero: 127 / amax would overflow.
inline constexpr uint32_t kActTinyBits = 0x0d800000u;  // 2^-100
inline constexpr uint32_t kInfBits = 0x7f800000u;

inline constexpr int kLanes = 16;
inline constexpr int kChunkTokens = 64;   // of attention: one softmax update a chunk
inline constexpr int kChunkBlocks = 4;

}  // namespace towline::engine
