// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a panel, for the files that write or read them (pack.cpp and the kernel tables).
//
// A panel is a sequence of units, one a block of the weight type (32 columns, or 256 for K types;
// for F32, F16, BF16 one or two columns). Every group of 32 columns ends up as 8 vectors of 64
// bytes: byte 4 r + i of vector j is column 4 j + i of row r.
//   Q8_0  d half[16]; vector j, as int8, xor 0x80 (so that it reads as value + 128)   544 bytes
//   Q4_0  d half[16]; 4 vectors: low nibbles are vectors 0..3, high nibbles 4..7      288
//   Q4_1  d half[16], m half[16]; 4 vectors of nibbles                                320
//   Q5_0  d half[16]; fifth bits: bit j of the byte for vector j; 4 vectors           352
//   Q5_1  d half[16], m half[16]; fifth bits; 4 vectors                               384
//   Q4_K  d half[16], min half[16]; scale u8[8][16], group min u8[8][16];
//         8 x 4 vectors of nibbles                                                   2368
//   Q5_K  the same head; 8 x (fifth bits, 4 vectors)                                 2880
//   Q6_K  d half[16]; scale i8[16][16]; 8 x (2 vectors of high bits: bits 2 (j % 4) of
//         vector j / 4; 4 vectors of nibbles)                                        3360
//   F32   float[16] a column; F16: half[16] a column; BF16: bf16[16][2] a pair of columns
//         (an odd last column is paired with zero)
#pragma once

#include <cstdint>

#include "engine/format/dtype.hpp"

namespace towline::engine {

inline constexpr int kVector = 64;

struct PanelUnit {
  int32_t cols;   // columns a unit
  int32_t bytes;  // bytes a unit, of 16 rows
  int32_t head;   // bytes before the first group
  int32_t group;  // bytes of a group of 32 columns (K types have 8 groups a unit)
};

constexpr PanelUnit panel_unit(DType type) {
  switch (type) {
    case DType::kF32: return {1, 64, 0, 0};
    case DType::kF16: return {1, 32, 0, 0};
    case DType::kBF16: return {2, 64, 0, 0};
    case DType::kQ8_0: return {32, 544, 32, 512};
    case DType::kQ4_0: return {32, 288, 32, 256};
    case DType::kQ4_1: return {32, 320, 64, 256};
    case DType::kQ5_0: return {32, 352, 32, 320};
    case DType::kQ5_1: return {32, 384, 64, 320};
    case DType::kQ4_K: return {256, 2368, 320, 256};
    case DType::kQ5_K: return {256, 2880, 320, 320};
    case DType::kQ6_K: return {256, 3360, 288, 384};
  }
  return {1, 0, 0, 0};
}

}  // namespace towline::engine
