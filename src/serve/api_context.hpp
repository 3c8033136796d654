// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ApiContext: what every request handler shares. Owned by ApiServer; loop thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/loop.hpp"
#include "serve/api_request.hpp"
#include "serve/generation_hub.hpp"
#include "serve/serve_metrics.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

struct ApiContext {
  Loop& loop;
  GenerationHub& hub;
  const TextModel& text;
  ServeMetrics& metrics;
  ApiLimits limits;
  std::string model_name;   // as clients name it
  std::string fingerprint;  // system_fingerprint: same build and model, same answers for a seed
  int64_t created = 0;      // Unix seconds
  int32_t max_live = 0;     // sequences in the generator; beyond: 429
  int32_t window = 1;       // sequences that one request may have in the generator at once
};

}  // namespace towline::serve
