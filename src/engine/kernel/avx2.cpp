// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/kernel_table.hpp"

namespace towline::engine {
const KernelTable* avx2_table() { return nullptr; }
}  // namespace towline::engine
