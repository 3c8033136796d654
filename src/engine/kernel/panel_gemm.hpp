// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the matrix products of avx2 and avx512 have in common: how tiles over pieces of k add up and
// how their results are stored. Included by one translation unit an instruction set; the functions
// are local to it, because the compiler may use that set's instructions in them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/kernel/activations.hpp"
#include "engine/kernel/packed.hpp"

namespace towline::engine {
namespace {  // NOLINT: see above

// A tile multiplies one or more panels with some rows of a group of activations.
struct TileArgs {
  const std::byte* panel;    // panel n is at panel + n * panel_stride
  int64_t panel_stride;
  int64_t begin, end;        // of k, in steps (below)
  const std::byte* acts;     // the group
  int64_t size;              // R of the group
  int64_t row;               // first row of the tile in the group
  float* out;                // [rows][panels * 16]
  // Memory to prefetch meanwhile: `ahead_step` bytes (a multiple of 64) a step of k.
  const std::byte* ahead;
  int64_t ahead_step;
};
using TileFunction = void (*)(const TileArgs&);

// The steps that a tile counts k in: blocks of 32, pairs (BF16) or single columns.
int64_t k_steps(const PackedMatrix& w) {
  if (act_kind(w.dtype) == ActKind::kInt8) return w.cols / kActBlock;
  return w.dtype == DType::kBF16 ? (w.cols + 1) / 2 : w.cols;
}

constexpr int kMaxPanels = 2;  // of a tile
constexpr int kMaxTile = kMaxGroupRows * kPanelRows * kMaxPanels;
constexpr int kMaxLevels = 31;  // k_shards is a positive int32_t

// Runs `run` over the k shards and adds their tiles in a balanced tree: a binary counter of partial
// sums, where level l holds the sum of 2^l shards. The result, `floats` numbers, is in a.out.
void sum_shards(TileFunction run, TileArgs a, int32_t shards, int64_t floats) {
  if (shards == 1) {
    run(a);
    return;
  }
  float partial[kMaxLevels][kMaxTile];
  float* const result = a.out;
  const int64_t width = a.end / shards;
  for (int32_t s = 0; s < shards; ++s) {
    a.begin = s * width;
    a.end = a.begin + width;
    run(a);
    int level = 0;
    for (; (s >> level & 1) != 0; ++level) {
      for (int64_t i = 0; i < floats; ++i) result[i] = partial[level][i] + result[i];
    }
    if (s + 1 == shards) return;
    for (int64_t i = 0; i < floats; ++i) partial[level][i] = result[i];
    a.ahead += a.ahead_step * width;
  }
}

struct Output {
  float* out;
  int64_t ldo;
  int64_t rows;  // of the weights
};

// Stores `count` rows of a tile: weight rows from panel p on, activation rows from `first` on.
void store_tile(const float* from, int64_t panels, int64_t p, int64_t first, int64_t count,
                const Output& o) {
  const int64_t row = p * kPanelRows;
  const int64_t width = panels * kPanelRows < o.rows - row ? panels * kPanelRows : o.rows - row;
  for (int64_t i = 0; i < count; ++i) {
    __builtin_memcpy(o.out + (first + i) * o.ldo + row, from + i * panels * kPanelRows,
                     static_cast<size_t>(width) * sizeof(float));
  }
}

}  // namespace
}  // namespace towline::engine
