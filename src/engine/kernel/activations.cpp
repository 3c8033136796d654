// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/activations.hpp"

#include <cstdint>
#include <utility>

#include "base/check.hpp"

namespace towline::engine {
namespace {
int64_t tile_size(int64_t rows) {
  for (const int size : kGroupSizes) {
    if (size >= rows) return size;
  }
  return kMaxGroupRows;
}

// The size of the groups that `rows` are cut into: the one with the fewest padding rows, and of
// those the largest, for a large tile loads fewest weights a product.
int64_t choose_group(int64_t rows) {
  int64_t best = kMaxGroupRows, best_total = INT64_MAX;
  for (const int64_t size : {12, 10, 8}) {
    const int64_t total = rows / size * size + (rows % size == 0 ? 0 : tile_size(rows % size));
    if (total < best_total) best = size, best_total = total;
  }
  return best;
}
}

ActKind act_kind(DType weights) {
  switch (weights) {
    case DType::kF32:
    case DType::kF16: return ActKind::kF32;
    case DType::kBF16: return ActKind::kBF16;
    default: return ActKind::kInt8;
  }
}

void Activations::reset(ActKind kind, int64_t rows, int64_t cols) {
  CHECK(rows >= 1 && cols >= 1, rows, cols);
  CHECK(kind != ActKind::kInt8 || cols % kActBlock == 0, cols);
  kind_ = kind;
  rows_ = rows;
  cols_ = cols;
  group_rows_ = rows <= kMaxGroupRows ? tile_size(rows) : choose_group(rows);
  last_group_size_ = tile_size(rows - (group_count() - 1) * group_rows_);
  int64_t row_bytes = 0;
  switch (kind) {
    case ActKind::kF32: row_bytes = cols * 4; break;
    case ActKind::kBF16: row_bytes = (cols + 1) / 2 * 4; break;
    case ActKind::kInt8: row_bytes = cols / kActBlock * kActBlockBytes; break;
  }
  group_bytes_ = (group_rows_ * row_bytes + 63) / 64 * 64;
  const int64_t need = group_bytes_ * group_count();
  if (data_ == nullptr || need > arena_.size()) {
    Result<Arena> arena = Arena::create(need);
    CHECK(arena.has_value(), need);
    arena_ = *std::move(arena);
    data_ = arena_.take(need);
  }
}

}  // namespace towline::engine
