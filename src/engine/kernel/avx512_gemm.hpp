// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The two halves of the avx512 table that have a file of their own.
#pragma once

#include "engine/kernel/kernel_table.hpp"

namespace towline::engine::avx512 {

void prepare(Activations& acts, int64_t group_begin, int64_t group_end, const float* x,
             int64_t ldx);
void gemm(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const Activations& acts,
          float* out, int64_t ldo);

}  // namespace towline::engine::avx512
