// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// DType: how the elements of a tensor are stored in a model file, and the reference conversions.
//
// Quantised types store a row as consecutive blocks; a row's length is a multiple of the block.
// The block layouts are those of the GGUF format (docs/formats.md). dequantize_row/quantize_row are
// the slow, obvious definitions that every kernel is tested against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace towline::engine {

enum class DType : uint8_t {
  kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K,
};
inline constexpr int kDTypeCount = 11;

struct DTypeInfo {
  std::string_view name;  // "f32", "q4_0", "q4_k", ...
  int32_t block;          // elements a block
  int32_t block_bytes;
  uint32_t gguf_type;     // the number in GGUF files
};
const DTypeInfo& dtype_info(DType type);
std::optional<DType> dtype_from_name(std::string_view name);  // any letter case
std::optional<DType> dtype_from_gguf(uint32_t gguf_type);

// Bytes of a row of `cols` elements; cols must be a multiple of the block.
inline int64_t row_bytes(DType type, int64_t cols) {
  return cols / dtype_info(type).block * dtype_info(type).block_bytes;
}

// One row <-> float32. `row` holds row_bytes(type, values.size()) bytes.
void dequantize_row(DType type, const std::byte* row, std::span<float> values);
void quantize_row(DType type, std::span<const float> values, std::byte* row);

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);  // round to nearest even
inline float bf16_to_float(uint16_t v);
uint16_t float_to_bf16(float value);  // round to nearest even

}  // namespace towline::engine

#include <bit>
inline float towline::engine::bf16_to_float(uint16_t v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v) << 16);
}
