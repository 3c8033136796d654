// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The slots of the avx2 and avx512 tables that have a file of their own.
#pragma once

#include "engine/kernel/kernel_table.hpp"

namespace towline::engine {

namespace avx2 {
void prepare(Activations& acts, int64_t group_begin, int64_t group_end, const float* x,
             int64_t ldx);
void gemm(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const Activations& acts,
          float* out, int64_t ldo);
}  // namespace avx2

namespace avx512 {
void prepare(Activations& acts, int64_t group_begin, int64_t group_end, const float* x,
             int64_t ldx);
void gemm(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const Activations& acts,
          float* out, int64_t ldo);
}  // namespace avx512

}  // namespace towline::engine
