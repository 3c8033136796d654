// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as the JSON body of each kind of request: either a checked ApiRequest, whose values are
// within the limits, or one error that names what is wrong.
#include "base/check.hpp"
#include "serve/api_request.hpp"

using namespace towline;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto kind = static_cast<serve::ApiKind>(data[0] % 5);
  serve::ApiLimits limits;
  limits.vocab_size = 1000;
  limits.strict_fields = (data[0] & 0x80) != 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Result<Json> body = parse_json(text, "request body");
  if (!body) return 0;
  serve::ApiRequest request;
  if (const serve::ApiCheck error = serve::parse_api_request(kind, *body, limits, request)) {
    CHECK(!error->message.empty() && error->status == 400, error->message);
    serve::error_json(*error);
    return 0;
  }
  CHECK(request.n >= 1 && request.n <= limits.max_choices, request.n);
  CHECK(request.max_tokens >= -1 && request.logprobs <= 20, request.max_tokens);
  const auto& s = request.sampling;
  CHECK(s.temperature >= 0 && s.temperature <= 2 && s.top_p > 0 && s.top_p <= 1, s.temperature);
  CHECK(s.top_k >= 0 && s.min_p >= 0 && s.min_p <= 1 && s.repetition_penalty > 0, s.top_k);
  for (const auto& [token, bias] : s.logit_bias) {
    CHECK(token >= 0 && token < limits.vocab_size && bias >= -100 && bias <= 100, token);
  }
  for (const serve::PromptInput& prompt : request.prompts) {
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) {
      for (const int32_t id : *ids) CHECK(id >= 0 && id < limits.vocab_size, id);
    }
  }
  for (const std::string& stop : request.stop) CHECK(!stop.empty());
  return 0;
}
