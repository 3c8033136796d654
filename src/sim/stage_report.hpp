// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a run of StageEngine leaves behind: summary, one CSV row a request, Chrome trace.
// The page for people is sim/html_report.hpp.
#pragma once

#include <string>

#include "base/json.hpp"
#include "sim/stage_engine.hpp"

namespace towline::sim {

Json stage_summary(const HelixInput& input, const StageReport& report);
std::string stage_text(const HelixInput& input, const StageReport& report);

// id,outcome,reason,input,output,arrival,queueing,ttft,tpot,e2e,restarts   (times in seconds)
std::string request_csv_header();
std::string request_csv_row(const RequestRecord& record);

// For chrome://tracing and Perfetto: a row a node, a box a batch.
std::string chrome_trace(const HelixInput& input, const StageReport& report);

}  // namespace towline::sim
