// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The results of the Helix mode as JSON, as text, as CSV, and its live view.
#pragma once

#include <string>

#include "base/json.hpp"
#include "sim/helix_engine.hpp"

namespace towline::sim {

// Field names follow the published runs (decode_tps, prompt_lat, ...);
// docs/simulator.md lists them.
Json helix_report_json(const HelixInput& input, const HelixOptions& options,
                       const HelixReport& report);
std::string helix_report_text(const HelixInput& input, const HelixOptions& options,
                              const HelixReport& report);
// order,request_uid,query_uid,phase,tokens,prev_tokens,finish_time,latency; byte for byte what the
// reference's own floats and names of phases print as.
std::string finished_csv(const HelixReport& report);
// Active and finished queries, real and expected KV of every node, the bottleneck.
std::string watch_text(const HelixView& view);

}  // namespace towline::sim
