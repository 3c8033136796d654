// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ApiRequest: the checked form of a request's JSON body, for every route that takes one.
//
// One table of fields (api_request.cpp) drives parsing, checking, /openapi.json and docs/api.md's
// table: name, routes, kind, bounds, help. A member that is null counts as absent. Fields that mean
// nothing here but that clients send (store, metadata, user, ...) are accepted and ignored; fields
// that would change the answer and are not supported are refused by name unless their value asks
// for nothing (tools: [], best_of: 1). Unknown fields are ignored, or refused under strict_fields.
// Pure functions: no clock, no I/O; every value checked here is safe for the code behind.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.hpp"
#include "engine/sampling_params.hpp"
#include "serve/api_error.hpp"

namespace towline::serve {

enum class ApiKind { kChat, kCompletion, kEmbedding, kTokenize, kDetokenize };

struct ApiLimits {
  int32_t vocab_size = 0;        // token ids are in [0, vocab_size)
  int32_t max_choices = 128;     // n
  int32_t max_prompts = 2048;    // prompts or inputs in one request
  int32_t max_stop = 64;         // stop strings, and as many stop tokens
  int32_t max_stop_bytes = 1024; // of one stop string
  int32_t max_logit_bias = 1024;
  bool strict_fields = false;    // refuse unknown fields
};

// Text, or tokens already.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

struct ApiRequest {
  ApiKind kind = ApiKind::kCompletion;
  std::string model;                 // empty: the one served
  std::vector<PromptInput> prompts;  // prompt, input or tokens; chat leaves it empty
  Json messages;                     // [{role, content: string, name?}]; null if not given
  Json template_kwargs;              // object or null
  bool add_generation_prompt = true;
  bool add_special_tokens = true;    // completions and /tokenize
  bool return_token_strs = false;    // /tokenize
  bool base64 = false;               // embeddings
  int32_t dimensions = 0;            // embeddings; 0: as many as there are

  bool stream = false;
  bool include_usage = false;        // a last chunk with usage
  bool echo = false;
  bool ignore_eos = false;
  bool return_token_ids = false;
  int32_t n = 1;
  int32_t max_tokens = -1;           // -1: the route's default
  int32_t logprobs = -1;             // alternatives a token; -1: no logprobs
  int32_t priority = 0;
  std::optional<int64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  engine::SamplingParams sampling;   // without seed and logprobs, which stand above
};

// Checks `body` and fills `out`. On an error `out` is unspecified.
ApiCheck parse_api_request(ApiKind kind, const Json& body, const ApiLimits& limits,
                           ApiRequest& out);

// The JSON schema of the kind's body (OpenAPI 3.1), from the same table.
Json request_schema(ApiKind kind);

}  // namespace towline::serve
