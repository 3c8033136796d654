// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// PackedMatrix: a weight matrix rearranged so that a kernel reads it as one forward stream.
//
// A matrix [rows, cols] (cols contiguous in the file) is cut into panels of 16 rows; the last panel
// is filled up with zero rows. Inside a panel the 16 rows are interleaved so that one 64-byte load
// holds the same few columns of all 16 rows, and a panel's bytes follow each other in the order in
// which k (the column) runs. The number of bytes is that of the file but for the 6-bit scales of
// Q4_K and Q5_K, which get a byte each (+2.8 %, +2.3 %). Values are not re-quantised: unpack_row
// gives exactly what dequantize_row gives. One layout serves every instruction set
// (docs/kernels.md).
//
// A panel depends on its own 16 rows only, so any range of rows can be packed on its own, by any
// thread, in any order: tensor-parallel shards and layer ranges need nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "engine/format/dtype.hpp"

namespace towline::engine {

inline constexpr int kPanelRows = 16;

// Where the weights come from: `rows` rows of a tensor, or a column range of them.
struct PackSource {
  DType dtype = DType::kF32;
  const std::byte* data = nullptr;  // row 0; not aligned in general
  int64_t row_stride = 0;           // bytes from a row to the next, row_bytes(dtype, all columns)
  int64_t rows = 0;
  int64_t col_begin = 0;            // a multiple of the dtype's block
  int64_t cols = 0;                 // columns taken; a multiple of the dtype's block
};

// A view of packed weights; whoever owns the arena owns the bytes.
struct PackedMatrix {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  // The k range is summed in this many equal pieces, and the pieces in a fixed balanced tree, so
  // that a rank holding an aligned piece of the columns computes exactly its branch of the tree
  // (tensor parallelism with the bits of one process). A power of two; cols / k_shards is a
  // multiple of the dtype's block. 1: plain order.
  int32_t k_shards = 1;
  int64_t panel_bytes = 0;          // a multiple of 64
  std::byte* panels = nullptr;      // [panel_count()][panel_bytes], 64-byte aligned

  int64_t panel_count() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t bytes() const { return panel_count() * panel_bytes; }
  const std::byte* panel(int64_t i) const { return panels + i * panel_bytes; }
};

// The shape of a packed matrix, with panels == nullptr: give it bytes() of 64-byte aligned memory,
// then pack. kUnsupported if cols (or a k shard) is not a multiple of the dtype's block.
Result<PackedMatrix> plan_packed(DType dtype, int64_t rows, int64_t cols, int32_t k_shards = 1);

// Packs panels [panel_begin, panel_end) of `source` into `to`. Thread-safe for disjoint ranges.
// Requires source.rows == to.rows, cols and dtype alike.
void pack(const PackSource& source, const PackedMatrix& to, int64_t panel_begin,
          int64_t panel_end);

// Reads row `row` back as float32 (values.size() == cols): embedding lookups and tests.
void unpack_row(const PackedMatrix& matrix, int64_t row, std::span<float> values);

}  // namespace towline::engine
