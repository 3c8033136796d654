// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The quantised blocks as they lie in a GGUF file (docs/formats.md). Little endian; `d`, `m` and
// `min` are IEEE half floats. Blocks are byte-packed and a file need not align them: copy one out
// with memcpy, or read it byte by byte.
//
// The 32-element types hold element i in the low nibble of q[i] and element i + 16 in its high
// nibble. The 256-element ("K") types hold 8 groups of 32 (Q6_K: 16 groups of 16), each with its
// own small integer scale, under one half-float scale.
#pragma once

#include <cstdint>

namespace towline::engine {

#pragma pack(push, 1)
struct BlockQ8_0 {  // x = d * q
  static constexpr int kElements = 32;
  uint16_t d;
  int8_t q[32];
};
struct BlockQ4_0 {  // x = d * (q - 8)
  static constexpr int kElements = 32;
  uint16_t d;
  uint8_t q[16];
};
struct BlockQ4_1 {  // x = d * q + m
  static constexpr int kElements = 32;
  uint16_t d, m;
  uint8_t q[16];
};
struct BlockQ5_0 {  // x = d * (q - 16); bit i of `high` is the fifth bit of element i
  static constexpr int kElements = 32;
  uint16_t d;
  uint8_t high[4];
  uint8_t q[16];
};
struct BlockQ5_1 {  // x = d * q + m
  static constexpr int kElements = 32;
  uint16_t d, m;
  uint8_t high[4];
  uint8_t q[16];
};
// x = d * scale * q - min * group_min. Groups 2p and 2p+1 are the low and the high nibbles of
// q[32p .. 32p+32).
struct BlockQ4_K {
  static constexpr int kElements = 256;
  uint16_t d, min;
  uint8_t scales[12];  // 8 scales and 8 minima of 6 bits: unpack_scale_min
  uint8_t q[128];
};
struct BlockQ5_K {  // as Q4_K; bit g of high[i] is the fifth bit of element i of group g
  static constexpr int kElements = 256;
  uint16_t d, min;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t q[128];
};
struct BlockQ6_K {  // x = d * scale * (q - 32); q6_k_value gives q - 32
  static constexpr int kElements = 256;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
#pragma pack(pop)
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

struct ScaleMin {
  uint8_t scale, min;  // 0..63
};

// Groups 0..3 have their six bits in bytes 0..3 (scale) and 4..7 (minimum); groups 4..7 have four
// bits in bytes 8..11 (scale low nibble, minimum high nibble) and two in the tops of bytes 0..7.
inline ScaleMin unpack_scale_min(const uint8_t (&s)[12], int group) {
  if (group < 4) {
    return {static_cast<uint8_t>(s[group] & 63), static_cast<uint8_t>(s[group + 4] & 63)};
  }
  return {static_cast<uint8_t>((s[group + 4] & 15) | (s[group - 4] >> 6 << 4)),
          static_cast<uint8_t>((s[group + 4] >> 4) | (s[group] >> 6 << 4))};
}

// The inverse; `s` must be zero before the first group.
inline void pack_scale_min(uint8_t (&s)[12], int group, int scale, int min) {
  if (group < 4) {
    s[group] = static_cast<uint8_t>(s[group] | scale);
    s[group + 4] = static_cast<uint8_t>(s[group + 4] | min);
  } else {
    s[group + 4] = static_cast<uint8_t>((scale & 15) | ((min & 15) << 4));
    s[group - 4] = static_cast<uint8_t>(s[group - 4] | (scale >> 4 << 6));
    s[group] = static_cast<uint8_t>(s[group] | (min >> 4 << 6));
  }
}

// Element i lies in half h = i / 128, quarter t = i / 32 % 4 of it, place l = i % 32: its four low
// bits in low[64h + 32(t % 2) + l] (high nibble for t >= 2), its two high bits in high[32h + l].
inline int q6_k_value(const BlockQ6_K& b, int i) {
  const int half = i / 128, quarter = i / 32 % 4, place = i % 32;
  const int low = (b.low[half * 64 + quarter % 2 * 32 + place] >> (quarter / 2 * 4)) & 15;
  const int high = (b.high[half * 32 + place] >> (quarter * 2)) & 3;
  return (low | (high << 4)) - 32;
}

}  // namespace towline::engine
