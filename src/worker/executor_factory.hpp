// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The kinds of executor: {"kind": "stage" | "emulated" | "null", ...}; the other members are the
// options of worker/stage_executor.hpp, emulated_executor.hpp and null_executor.hpp.
#pragma once

#include "worker/executor.hpp"

namespace towline::worker {

// Of a description with "layers" [first, end), a rank of one of several stages gets its stage's: of
// about equal bytes of weights, where there are any (divide_layers()), else as many in each.
Result<std::unique_ptr<Executor>> make_executor(const Json& description, const RankPlace& place);
// Floats of shared memory that a group of `ranks` needs for its collectives; 0: none.
Result<int64_t> shared_floats(const Json& description, int32_t ranks);

}  // namespace towline::worker
