// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/serve_metrics.hpp"

#include <algorithm>
#include <ctime>

namespace towline::serve {
namespace {

using Bounds = std::vector<double>;

const Bounds kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1,
                            2.5,  5,    7.5, 10,  20,  40,  80,  160, 640, 2560};
const Bounds kInterToken = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5,
                            .75, 1,    2.5, 5,    7.5, 10, 20, 40, 80};
const Bounds kRequest = {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240,
                         480, 960, 1920, 7680};
const Bounds kTokens = {1,   2,   5,    10,   20,   50,    100,   200,   500,  1000,
                        2000, 5000, 10000, 20000, 50000, 100000, 200000};
const Bounds kStepTokens = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Bounds kChoices = {1, 2, 5, 10, 20};

// vLLM calls them so in finished_reason.
const char* reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "abort";
    case FinishReason::kNone:
    case FinishReason::kError: break;
  }
  return "error";
}

obs::Labels with(obs::Labels labels, const char* key, std::string value) {
  labels.emplace_back(key, std::move(value));
  return labels;
}

}  // namespace

ServeMetrics::ServeMetrics(const std::string& model_name)
    : labels_({{"model_name", model_name}, {"engine", "0"}}),
      ttft_(metrics_.histogram("vllm:time_to_first_token_seconds",
                               "Time from arrival to the first token.", kFirstToken, labels_)),
      inter_token_(metrics_.histogram("vllm:inter_token_latency_seconds",
                                      "Time between tokens of a sequence.", kInterToken, labels_)),
      e2e_(metrics_.histogram("vllm:e2e_request_latency_seconds",
                              "Time from arrival to the last token.", kRequest, labels_)),
      queue_(metrics_.histogram("vllm:request_queue_time_seconds",
                                "Time waiting to be scheduled.", kRequest, labels_)),
      prefill_(metrics_.histogram("vllm:request_prefill_time_seconds",
                                  "Time from being scheduled to the first token.", kRequest,
                                  labels_)),
      decode_(metrics_.histogram("vllm:request_decode_time_seconds",
                                 "Time from the first token to the last.", kRequest, labels_)),
      inference_(metrics_.histogram("vllm:request_inference_time_seconds",
                                    "Time from being scheduled to the last token.", kRequest,
                                    labels_)),
      prompt_tokens_(metrics_.histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                                        kTokens, labels_)),
      generation_tokens_(metrics_.histogram("vllm:request_generation_tokens",
                                            "Output tokens of a request.", kTokens, labels_)),
      iteration_tokens_(metrics_.histogram("vllm:iteration_tokens_total",
                                           "Tokens of an engine step.", kStepTokens, labels_)),
      max_tokens_(metrics_.histogram("vllm:request_params_max_tokens",
                                     "max_tokens of a request.", kTokens, labels_)),
      n_(metrics_.histogram("vllm:request_params_n", "n of a request.", kChoices, labels_)),
      rejections_(metrics_.counter("vllm:admission_rejections_total",
                                   "Requests refused because the queue was full.", labels_)),
      cancelled_(metrics_.counter("towline_requests_cancelled_total",
                                  "Requests whose client left before the answer was complete.")) {
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength,
                                    FinishReason::kCancelled, FinishReason::kError}) {
    metrics_.counter("vllm:request_success_total", "Finished sequences by reason.",
                     with(labels_, "finished_reason", reason_name(reason)));
  }
}

void ServeMetrics::choice_finished(FinishReason reason) {
  metrics_
      .counter("vllm:request_success_total", "Finished sequences by reason.",
               with(labels_, "finished_reason", reason_name(reason)))
      .add();
}

void ServeMetrics::request_finished(const RequestRecord& r) {
  const auto observe = [](obs::Histogram& h, double seconds) {
    if (seconds >= 0) h.observe(seconds);
  };
  observe(e2e_, r.total_seconds);
  observe(queue_, r.queue_seconds);
  observe(prefill_, r.prefill_seconds);
  observe(decode_, r.decode_seconds);
  if (r.total_seconds >= 0) {
    observe(inference_, std::max(0.0, r.total_seconds - std::max(0.0, r.queue_seconds)));
  }
  prompt_tokens_.observe(r.prompt_tokens);
  generation_tokens_.observe(r.completion_tokens);
  max_tokens_.observe(r.max_tokens);
  n_.observe(r.n);
}

void ServeMetrics::http_answer(const std::string& route, const std::string& method, int status) {
  metrics_
      .counter("towline_http_requests_total", "Requests answered.",
               {{"route", route}, {"method", method}, {"status", std::to_string(status)}})
      .add();
}

std::string ServeMetrics::text(const GeneratorStats& g, const HttpServerStats& http,
                               bool draining) {
  const auto gauge = [&](const char* name, const char* help, double value,
                         const obs::Labels& labels) {
    metrics_.gauge(name, help, labels).set(value);
  };
  const auto total = [&](const char* name, const char* help, double value,
                         const obs::Labels& labels) {
    metrics_.counter(name, help, labels).raise_to(value);
  };
  const double usage = g.kv_blocks_total > 0 ? static_cast<double>(g.kv_blocks_used) /
                                                   static_cast<double>(g.kv_blocks_total)
                                             : 0;
  gauge("vllm:num_requests_running", "Sequences in the running batch.", g.running, labels_);
  gauge("vllm:num_requests_waiting", "Sequences waiting to be scheduled.", g.waiting, labels_);
  gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", usage, labels_);
  gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.", usage, labels_);
  const auto as_double = [](int64_t n) { return static_cast<double>(n); };
  total("vllm:prompt_tokens_total", "Prompt tokens evaluated or found in the cache.",
        as_double(g.prompt_tokens), labels_);
  total("vllm:generation_tokens_total", "Tokens generated.", as_double(g.generation_tokens),
        labels_);
  total("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
        as_double(g.prefix_queries), labels_);
  total("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
        as_double(g.prefix_hits), labels_);
  total("vllm:num_preemptions_total", "Sequences preempted.", as_double(g.preemptions), labels_);

  // What gateways ask about: the cache's size, and that there are no LoRA adapters.
  gauge("vllm:cache_config_info", "Size of the KV cache; the value is 1.", 1,
        with(labels_, "num_gpu_blocks", std::to_string(g.kv_blocks_total)));
  obs::Labels lora = with(labels_, "max_lora", "0");
  lora = with(with(lora, "running_lora_adapters", ""), "waiting_lora_adapters", "");
  gauge("vllm:lora_requests_info", "LoRA adapters in use; the value is the time.",
        static_cast<double>(std::time(nullptr)), lora);

  gauge("towline_kv_blocks", "KV blocks in the pool.", as_double(g.kv_blocks_total), {});
  gauge("towline_kv_blocks_used", "KV blocks in use.", as_double(g.kv_blocks_used), {});
  total("towline_engine_steps_total", "Engine steps run.", as_double(g.steps), {});
  gauge("towline_draining", "1 while the server finishes its last requests.", draining ? 1 : 0, {});
  gauge("towline_http_connections", "Open connections.", as_double(http.connections), {});
  total("towline_http_connections_accepted_total", "Connections accepted.",
        as_double(http.accepted), {});
  total("towline_http_connections_refused_total", "Connections over the limit.",
        as_double(http.refused), {});
  total("towline_http_bad_requests_total", "Requests that were not HTTP or broke a limit.",
        as_double(http.bad_requests), {});
  total("towline_http_timeouts_total", "Connections closed for silence.",
        as_double(http.timed_out), {});
  total("towline_http_slow_readers_cut_total", "Streams cut because the client read too slowly.",
        as_double(http.slow_readers_cut), {});
  return metrics_.text();
}

}  // namespace towline::serve
