// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Driver mode's wire: the inputs of one run, prepared by rank 0 for the others. Everything that the
// computation needs and nothing that could be remembered: tokens, positions, block tables, row
// shapes. This is the scheme that step deltas replace (worker/driver_group.hpp); it is kept for
// comparison.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "worker/executor.hpp"

namespace towline::worker {

// Appends the run to `out` (cleared first).
void write_prepared(std::span<const RunItem> items, std::vector<uint8_t>& out);
// The other side: rows and items point into `slots`, one slot state a row, used again each step.
Result<void> read_prepared(std::span<const uint8_t> bytes, std::vector<policy::SlotState>& slots,
                           std::vector<Row>& rows, std::vector<RunItem>& items);

}  // namespace towline::worker
