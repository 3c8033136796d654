// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ServeMetrics: what /metrics reports. Our own series are towline_*; the vllm:* series repeat the
// ones that dashboards and gateways written for vLLM read, with its exact names, labels
// (model_name, engine) and buckets. docs/api.md has the table.
#pragma once

#include <string>

#include "obs/metrics.hpp"
#include "serve/generator.hpp"
#include "serve/http_server.hpp"

namespace towline::serve {

// One finished API request. Durations are negative where they do not apply.
struct RequestRecord {
  int32_t prompt_tokens = 0;      // all prompts, each once
  int32_t completion_tokens = 0;  // all choices
  int32_t max_tokens = 0;
  int32_t n = 1;
  double queue_seconds = -1, prefill_seconds = -1, decode_seconds = -1, total_seconds = -1;
};

class ServeMetrics {
 public:
  explicit ServeMetrics(const std::string& model_name);

  void first_token(double seconds) { ttft_.observe(seconds); }
  void between_tokens(double seconds) { inter_token_.observe(seconds); }
  void step(double tokens) { iteration_tokens_.observe(tokens); }
  void choice_finished(FinishReason reason);
  void request_finished(const RequestRecord& record);
  void refused_full() { rejections_.add(); }
  void cancelled() { cancelled_.add(); }
  void http_answer(const std::string& route, const std::string& method, int status);

  // The exposition, with gauges and totals brought up to date first.
  std::string text(const GeneratorStats& generator, const HttpServerStats& http, bool draining);

 private:
  obs::Metrics metrics_;
  const obs::Labels labels_;
  obs::Histogram ttft_, inter_token_, e2e_, queue_, prefill_, decode_, inference_;
  obs::Histogram prompt_tokens_, generation_tokens_, iteration_tokens_, max_tokens_, n_;
  obs::Counter rejections_, cancelled_;
};

}  // namespace towline::serve
