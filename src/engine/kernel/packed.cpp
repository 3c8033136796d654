// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/packed.hpp"

#include <bit>
#include <cstring>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "engine/format/blocks.hpp"
#include "engine/kernel/panel_layout.hpp"

namespace towline::engine {
namespace {

uint32_t load32(const void* from) {
  uint32_t v;
  std::memcpy(&v, from, 4);
  return v;
}
void store32(std::byte* to, uint32_t v) { std::memcpy(to, &v, 4); }

// Half-float head entry `index` of row r.
void put_half(std::byte* unit, int index, int r, uint16_t half) {
  std::memcpy(unit + index * 32 + r * 2, &half, 2);
}

// 32 nibbles: bytes a[0..15] hold columns 0..15 and b[0..15] columns 16..31, in the nibble `shift`.
void put_nibbles(std::byte* vectors, int r, const uint8_t* a, const uint8_t* b, int shift) {
  for (int p = 0; p < 4; ++p) {
    const uint32_t low = (load32(a + 4 * p) >> shift) & 0x0f0f0f0fu;
    const uint32_t high = (load32(b + 4 * p) >> shift) & 0x0f0f0f0fu;
    store32(vectors + p * kVector + r * 4, low | (high << 4));
  }
}

// Every fourth bit of x, from bit 0, gathered into a byte.
uint32_t every_fourth(uint32_t x) {
  x &= 0x11111111u;
  x = (x | (x >> 3)) & 0x03030303u;
  x = (x | (x >> 6)) & 0x000f000fu;
  return (x | (x >> 12)) & 0xffu;
}

// The 32 fifth bits of a Q5_0/Q5_1 block: bit 4 j + i goes to bit j of byte i.
uint32_t spread_fifth(const uint8_t (&high)[4]) {
  const uint32_t bits = load32(high);
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= every_fourth(bits >> i) << (8 * i);
  return out;
}

void put(const BlockQ8_0& b, std::byte* unit, int r) {
  put_half(unit, 0, r, b.d);
  for (int j = 0; j < 8; ++j) {
    store32(unit + 32 + j * kVector + r * 4, load32(b.q + 4 * j) ^ 0x80808080u);
  }
}

void put(const BlockQ4_0& b, std::byte* unit, int r) {
  put_half(unit, 0, r, b.d);
  for (int p = 0; p < 4; ++p) store32(unit + 32 + p * kVector + r * 4, load32(b.q + 4 * p));
}

void put(const BlockQ4_1& b, std::byte* unit, int r) {
  put_half(unit, 0, r, b.d);
  put_half(unit, 1, r, b.m);
  for (int p = 0; p < 4; ++p) store32(unit + 64 + p * kVector + r * 4, load32(b.q + 4 * p));
}

void put(const BlockQ5_0& b, std::byte* unit, int r) {
  put_half(unit, 0, r, b.d);
  store32(unit + 32 + r * 4, spread_fifth(b.high));
  for (int p = 0; p < 4; ++p) store32(unit + 96 + p * kVector + r * 4, load32(b.q + 4 * p));
}

void put(const BlockQ5_1& b, std::byte* unit, int r) {
  put_half(unit, 0, r, b.d);
  put_half(unit, 1, r, b.m);
  store32(unit + 64 + r * 4, spread_fifth(b.high));
  for (int p = 0; p < 4; ++p) store32(unit + 128 + p * kVector + r * 4, load32(b.q + 4 * p));
}

void put_k_head(std::byte* unit, int r, uint16_t d, uint16_t min, const uint8_t (&scales)[12]) {
  put_half(unit, 0, r, d);
  put_half(unit, 1, r, min);
  for (int g = 0; g < 8; ++g) {
    const ScaleMin s = unpack_scale_min(scales, g);
    unit[64 + g * 16 + r] = std::byte{s.scale};
    unit[192 + g * 16 + r] = std::byte{s.min};
  }
}

void put(const BlockQ4_K& b, std::byte* unit, int r) {
  put_k_head(unit, r, b.d, b.min, b.scales);
  for (int g = 0; g < 8; ++g) {
    const uint8_t* q = b.q + g / 2 * 32;
    put_nibbles(unit + 320 + g * 256, r, q, q + 16, g % 2 * 4);
  }
}

void put(const BlockQ5_K& b, std::byte* unit, int r) {
  put_k_head(unit, r, b.d, b.min, b.scales);
  for (int g = 0; g < 8; ++g) {
    std::byte* group = unit + 320 + g * 320;
    uint32_t fifth = 0;
    for (int j = 0; j < 8; ++j) fifth |= ((load32(b.high + 4 * j) >> g) & 0x01010101u) << j;
    store32(group + r * 4, fifth);
    const uint8_t* q = b.q + g / 2 * 32;
    put_nibbles(group + 64, r, q, q + 16, g % 2 * 4);
  }
}

void put(const BlockQ6_K& b, std::byte* unit, int r) {
  put_half(unit, 0, r, b.d);
  for (int s = 0; s < 16; ++s) unit[32 + s * 16 + r] = static_cast<std::byte>(b.scales[s]);
  for (int g = 0; g < 8; ++g) {
    std::byte* group = unit + 288 + g * 384;
    const int half = g / 4, quarter = g % 4;
    uint32_t high[2] = {0, 0};
    for (int j = 0; j < 8; ++j) {
      const uint32_t bits = (load32(b.high + half * 32 + 4 * j) >> (2 * quarter)) & 0x03030303u;
      high[j / 4] |= bits << (2 * (j % 4));
    }
    store32(group + r * 4, high[0]);
    store32(group + kVector + r * 4, high[1]);
    const uint8_t* low = b.low + half * 64 + quarter % 2 * 32;
    put_nibbles(group + 128, r, low, low + 16, quarter / 2 * 4);
  }
}

// Panels of a quantised type. Rows past the end become zero blocks:
// a zero scale makes zero weights.
template <class Block>
void pack_blocks(const PackSource& from, const PackedMatrix& to, int64_t begin, int64_t end) {
  const PanelUnit unit = panel_unit(to.dtype);
  const int64_t units = to.cols / unit.cols;
  const std::byte* source = from.data + from.col_begin / Block::kElements *
                                            static_cast<int64_t>(sizeof(Block));
  for (int64_t p = begin; p < end; ++p) {
    std::byte* panel = to.panels + p * to.panel_bytes;
    for (int64_t u = 0; u < units; ++u) {
      for (int r = 0; r < kPanelRows; ++r) {
        const int64_t row = p * kPanelRows + r;
        Block block{};
        if (row < from.rows) {
          std::memcpy(&block, source + row * from.row_stride + u * int64_t{sizeof(Block)},
                      sizeof(Block));
        }
        put(block, panel + u * unit.bytes, r);
      }
    }
    std::memset(panel + units * unit.bytes, 0,
                static_cast<size_t>(to.panel_bytes - units * unit.bytes));
  }
}

// Panels of plain numbers of T; `pair` columns of a row lie side by side.
template <class T>
void pack_plain(const PackSource& from, const PackedMatrix& to, int64_t begin, int64_t end,
                int pair) {
  for (int64_t p = begin; p < end; ++p) {
    std::byte* panel = to.panels + p * to.panel_bytes;
    std::memset(panel, 0, static_cast<size_t>(to.panel_bytes));
    for (int r = 0; r < kPanelRows; ++r) {
      const int64_t row = p * kPanelRows + r;
      if (row >= from.rows) break;
      const std::byte* source =
          from.data + row * from.row_stride + from.col_begin * int64_t{sizeof(T)};
      for (int64_t k = 0; k < to.cols; ++k) {
        const int64_t place = (k / pair * kPanelRows + r) * pair + k % pair;
        std::memcpy(panel + place * int64_t{sizeof(T)}, source + k * int64_t{sizeof(T)}, sizeof(T));
      }
    }
  }
}

float half_at(const std::byte* p) {
  uint16_t half;
  std::memcpy(&half, p, 2);
  return half_to_float(half);
}
uint8_t byte_at(const std::byte* p) { return std::to_integer<uint8_t>(*p); }

// Nibble of column k of a group whose nibble vectors start at `vectors`.
int nibble_at(const std::byte* vectors, int r, int k) {
  const int j = k / 4;
  const uint8_t byte = byte_at(vectors + j % 4 * kVector + r * 4 + k % 4);
  return j < 4 ? byte & 15 : byte >> 4;
}
int fifth_at(const std::byte* bits, int r, int k) {
  return (byte_at(bits + r * 4 + k % 4) >> (k / 4) & 1) << 4;
}

float value_at(DType type, const std::byte* panel, int r, int64_t col) {
  const PanelUnit layout = panel_unit(type);
  const std::byte* unit = panel + col / layout.cols * layout.bytes;
  const int k = static_cast<int>(col % 32);
  const int g = static_cast<int>(col % layout.cols / 32);
  const std::byte* group = unit + layout.head + g * layout.group;
  const float d = half_at(unit + r * 2);
  const float m = layout.head >= 64 ? half_at(unit + 32 + r * 2) : 0.0f;  // only some have one
  const std::byte* scale = unit + 64 + g * 16 + r;  // Q4_K, Q5_K; the minimum is 128 further
  switch (type) {
    case DType::kF32: return std::bit_cast<float>(load32(unit + r * 4));
    case DType::kF16: return d;
    case DType::kBF16: {
      uint16_t v;
      std::memcpy(&v, unit + r * 4 + col % 2 * 2, 2);
      return bf16_to_float(v);
    }
    case DType::kQ8_0:
      return d * static_cast<float>(byte_at(group + k / 4 * kVector + r * 4 + k % 4) - 128);
    case DType::kQ4_0: return d * static_cast<float>(nibble_at(group, r, k) - 8);
    case DType::kQ4_1: return d * static_cast<float>(nibble_at(group, r, k)) + m;
    case DType::kQ5_0:
      return d * static_cast<float>((nibble_at(group + 64, r, k) | fifth_at(group, r, k)) - 16);
    case DType::kQ5_1:
      return d * static_cast<float>(nibble_at(group + 64, r, k) | fifth_at(group, r, k)) + m;
    case DType::kQ4_K:
      return d * byte_at(scale) * static_cast<float>(nibble_at(group, r, k)) -
             m * byte_at(scale + 128);
    case DType::kQ5_K:
      return d * byte_at(scale) *
                 static_cast<float>(nibble_at(group + 64, r, k) | fifth_at(group, r, k)) -
             m * byte_at(scale + 128);
    case DType::kQ6_K: {
      const int j = k / 4;
      const int high = byte_at(group + j / 4 * kVector + r * 4 + k % 4) >> (2 * (j % 4)) & 3;
      const int q = (nibble_at(group + 128, r, k) | (high << 4)) - 32;
      const int s = static_cast<int8_t>(byte_at(unit + 32 + (g * 2 + k / 16) * 16 + r));
      return d * static_cast<float>(s) * static_cast<float>(q);
    }
  }
  return 0.0f;
}

}  // namespace

Result<PackedMatrix> plan_packed(DType dtype, int64_t rows, int64_t cols, int32_t k_shards) {
  const int64_t block = dtype_info(dtype).block;
  if (rows < 1 || cols < 1 || cols % block != 0) {
    return errorf(
        Code::kUnsupported,
        "a {} matrix of {} x {} cannot be packed: the columns must be a positive multiple "
        "of {}",
        dtype_info(dtype).name, rows, cols, block);
  }
  if (k_shards < 1 || !std::has_single_bit(static_cast<uint32_t>(k_shards)) ||
      cols % k_shards != 0 || cols / k_shards % (dtype == DType::kBF16 ? 2 : block) != 0) {
    if (k_shards != 1) {
      return errorf(Code::kUnsupported,
                    "{} columns of {} cannot be summed in {} equal pieces: use a power of two that "
                    "leaves whole blocks of {}",
                    cols, dtype_info(dtype).name, k_shards, block);
    }
  }
  const PanelUnit unit = panel_unit(dtype);
  const int64_t units = (cols + unit.cols - 1) / unit.cols;
  PackedMatrix m;
  m.dtype = dtype;
  m.rows = rows;
  m.cols = cols;
  m.k_shards = k_shards;
  m.panel_bytes = (units * unit.bytes + kVector - 1) / kVector * kVector;
  return m;
}

void pack(const PackSource& from, const PackedMatrix& to, int64_t begin, int64_t end) {
  CHECK(from.dtype == to.dtype && from.rows == to.rows && from.cols == to.cols, from.rows, to.rows,
        from.cols, to.cols);
  CHECK(0 <= begin && begin <= end && end <= to.panel_count(), begin, end);
  CHECK(from.col_begin % dtype_info(from.dtype).block == 0, from.col_begin);
  switch (to.dtype) {
    case DType::kF32: return pack_plain<uint32_t>(from, to, begin, end, 1);
    case DType::kF16: return pack_plain<uint16_t>(from, to, begin, end, 1);
    case DType::kBF16: return pack_plain<uint16_t>(from, to, begin, end, 2);
    case DType::kQ8_0: return pack_blocks<BlockQ8_0>(from, to, begin, end);
    case DType::kQ4_0: return pack_blocks<BlockQ4_0>(from, to, begin, end);
    case DType::kQ4_1: return pack_blocks<BlockQ4_1>(from, to, begin, end);
    case DType::kQ5_0: return pack_blocks<BlockQ5_0>(from, to, begin, end);
    case DType::kQ5_1: return pack_blocks<BlockQ5_1>(from, to, begin, end);
    case DType::kQ4_K: return pack_blocks<BlockQ4_K>(from, to, begin, end);
    case DType::kQ5_K: return pack_blocks<BlockQ5_K>(from, to, begin, end);
    case DType::kQ6_K: return pack_blocks<BlockQ6_K>(from, to, begin, end);
  }
}

void unpack_row(const PackedMatrix& matrix, int64_t row, std::span<float> values) {
  CHECK(0 <= row && row < matrix.rows, row, matrix.rows);
  CHECK(static_cast<int64_t>(values.size()) == matrix.cols, values.size(), matrix.cols);
  const std::byte* panel = matrix.panel(row / kPanelRows);
  const int r = static_cast<int>(row % kPanelRows);
  for (int64_t k = 0; k < matrix.cols; ++k) {
    values[static_cast<size_t>(k)] = value_at(matrix.dtype, panel, r, k);
  }
}

}  // namespace towline::engine
