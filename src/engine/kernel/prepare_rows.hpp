// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// KernelTable::prepare, written once: the walk over groups and rows, and what a block of int8
// activations is. `Isa`, a type of the including file's own (so that no two files share a function
// that was compiled for different processors), has
//
//   uint32_t largest(const float* x)              the greatest of the bits of |x[0..31]|: the order
//   of
//                                                 floats, with NaN above all
//   int32_t quantise(const float* x, float inverse, int8_t* q, int32_t* first)
//                                                 q = round_even(x * inverse) of 32 numbers;
//                                                 returns their sum, *first is that of the first 16
//   void place_bf16(const float* x, int64_t cols, int64_t r, int64_t size, std::byte* group)
//                                                 row r of a bf16 group
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "engine/kernel/activations.hpp"
#include "engine/kernel/kernel_math.hpp"

namespace towline::engine {

template <class Isa>
struct PrepareRows {
  static void run(Activations& acts, int64_t begin, int64_t end, const float* x, int64_t ldx) {
    const int64_t cols = acts.cols();
    for (int64_t g = begin; g < end; ++g) {
      std::byte* group = acts.group(g);
      const int64_t size = acts.group_size(g), rows = acts.rows_in_group(g);
      if (size > rows) std::memset(group, 0, static_cast<size_t>(acts.group_bytes()));
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = x + (g * acts.group_rows() + r) * ldx;
        switch (acts.kind()) {
          case ActKind::kF32:
            for (int64_t k = 0; k < cols; ++k) std::memcpy(group + (k * size + r) * 4, row + k, 4);
            break;
          case ActKind::kBF16: Isa::place_bf16(row, cols, r, size, group); break;
          case ActKind::kInt8:
            for (int64_t b = 0; b < cols / kActBlock; ++b) {
              quantise_block(row + b * kActBlock, group + b * size * kActBlockBytes, r, size);
            }
            break;
        }
      }
    }
  }

 private:
  // Row r of the `size` rows of a block.
  static void quantise_block(const float* x, std::byte* block, int64_t r, int64_t size) {
    auto* const q = reinterpret_cast<int8_t*>(block + r * kActBlock);
    float d = 0.0f;
    int32_t sum = 0, first = 0;
    const uint32_t largest = Isa::largest(x);
    if (largest >= kActTinyBits && largest < kInfBits) {
      float amax;
      std::memcpy(&amax, &largest, 4);
      d = amax / 127.0f;
      sum = Isa::quantise(x, 127.0f / amax, q, &first);
    } else {
      std::memset(q, 0, kActBlock);
      if (largest >= kInfBits) d = std::numeric_limits<float>::quiet_NaN();  // it stays visible
    }
    const float c = d * static_cast<float>(sum);
    const int32_t s = -128 * sum, t = -128 * first;
    std::byte* const tail = block + size * kActBlock + r * 4;
    std::memcpy(tail, &d, 4);
    std::memcpy(tail + size * 4, &c, 4);
    std::memcpy(tail + size * 8, &s, 4);
    std::memcpy(tail + size * 12, &t, 4);
  }
};

}  // namespace towline::engine
