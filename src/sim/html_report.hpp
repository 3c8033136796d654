// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A run as one HTML file that needs no other and no network: figures, distributions, the plan with
// what flowed through it, time series and heat maps of every node,
// with marks where something broke.
#pragma once

#include <string>
#include <string_view>

#include "sim/stage_engine.hpp"

namespace towline::sim {

std::string html_report(const HelixInput& input, const StageOptions& options,
                        const StageReport& report);

std::string_view disturbance_name(DisturbanceKind kind);

}  // namespace towline::sim
