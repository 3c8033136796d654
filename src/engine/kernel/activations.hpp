// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Activations: the right-hand side of a matrix product, in the form that the weights ask for.
//
// Weights of type F32 and F16 are multiplied with float32 activations, BF16 with bf16, and all
// quantised types with int8: each run of 32 columns of a row gets a scale d = amax / 127 and
// q = round(x / d) (nearest, ties to even). A row's numbers depend on that row alone. Prepare once,
// use for every matrix that shares the input (q, k, v; gate, up).
//
//   acts.reset(act_kind(w.dtype), rows, cols);
//   team.parallel_for(acts.group_count(), [&](int g) { kernels.prepare(acts, g, g + 1, x, ldx); });
//   team.parallel_for(parts, [&](int p) { kernels.gemm(w, begin(p), end(p), acts, out, ldo); });
//
// Rows are stored in groups so that a kernel walks through a group with one pointer. A group has a
// size for which kernels exist (kGroupSizes); the last one may have fewer rows and is filled up
// with zeros. How many rows make a group is a matter of speed alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/format/dtype.hpp"
#include "engine/kernel/arena.hpp"

namespace towline::engine {

enum class ActKind : uint8_t { kF32, kBF16, kInt8 };
ActKind act_kind(DType weights);

inline constexpr int kActBlock = 32;     // columns that share a scale
inline constexpr int kGroupSizes[] = {1, 2, 3, 4, 6, 8, 10, 12};  // rows of the register tiles
inline constexpr int kMaxGroupRows = 12;

// One block of an int8 group of R rows, as it lies in memory (R = group_size of this group):
//   int8_t  q[R][32];
//   float   d[R];      scale
//   float   c[R];      d * (sum of q), rounded once
//   int32_t s[R];      -128 * (sum of q[0..31])
//   int32_t t[R];      -128 * (sum of q[0..15])
inline constexpr int64_t kActBlockBytes = 32 + 16;  // of one row

class Activations {
 public:
  Activations() = default;
  // Shapes the buffer for [rows, cols]; grows if needed, and keeps what it has otherwise. Dies
  // (CHECK) if the system has no memory: reset once for the largest step at start. cols is a
  // multiple of 32 for kInt8.
  void reset(ActKind kind, int64_t rows, int64_t cols);

  ActKind kind() const { return kind_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t group_rows() const { return group_rows_; }  // rows of all groups but perhaps the last
  int64_t group_count() const { return (rows_ + group_rows_ - 1) / group_rows_; }
  int64_t rows_in_group(int64_t g) const {
    const int64_t left = rows_ - g * group_rows_;
    return left < group_rows_ ? left : group_rows_;
  }
  // The R of the layouts below: rows_in_group rounded up to one of kGroupSizes.
  int64_t group_size(int64_t g) const {
    return g + 1 < group_count() ? group_rows_ : last_group_size_;
  }
  // kF32: float [cols][R]; kBF16: uint16_t [cols / 2][R][2]; kInt8: [cols / 32] blocks as above.
  std::byte* group(int64_t g) { return data_ + g * group_bytes_; }
  int64_t group_bytes() const { return group_bytes_; }
  const std::byte* group(int64_t g) const { return data_ + g * group_bytes_; }

 private:
  ActKind kind_ = ActKind::kF32;
  int64_t rows_ = 0, cols_ = 0;
  int64_t group_rows_ = 1;
  int64_t last_group_size_ = 1;
  int64_t group_bytes_ = 0;
  Arena arena_;
  std::byte* data_ = nullptr;  // in arena_, 64-byte aligned
};

}  // namespace towline::engine
