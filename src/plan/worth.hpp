// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Worth: what a search maximises instead of the static flow. Objectives (plan/objectives.hpp) make
// one for each thread.
#pragma once

#include <functional>
#include <span>

#include "plan/evaluator.hpp"

namespace towline::plan {

// Tokens/s, between 0 and AnnealOptions::worth_per_flow times the flow. `evaluator` has just
// computed the flow of `ranges` [node], and may be used to compute others.
using Worth = std::function<double(FlowEvaluator& evaluator, std::span<const LayerRange> ranges,
                                   double flow)>;
// Called once a thread, from that thread. Empty: the flow itself.
using WorthMaker = std::function<Worth()>;

}  // namespace towline::plan
