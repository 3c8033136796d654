// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Session: one request being generated, from its checked body to the last byte of its answer.
//
// Prompts become tokens, each prompt has n choices, each choice is one sequence in the generator.
// At most ApiContext::window of them are in the generator at once; the others follow as these end.
// When the client goes away every sequence is cancelled, which the generator does at its next step.
// Loop thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/api_context.hpp"
#include "serve/http.hpp"

namespace towline::serve {

struct SessionReport {
  std::string request_id;  // the answer's x-request-id
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t completion_tokens = 0;
  std::vector<RequestId> sequences;  // in the generator, in the order submitted
  int status = 0;     // of the answer; 499: the client left; 0: not ended yet
  std::string error;  // why there is none, or why the stream ended early
};

// Answers the exchange now or later. `id` is the answer's id ("chatcmpl-..."). `report` is filled
// while the session runs and outlives it.
void start_completion(ApiContext& context, std::shared_ptr<HttpExchange> exchange,
                      ApiRequest request, std::string id, std::shared_ptr<SessionReport> report);

// The same for /v1/embeddings.
void start_embedding(ApiContext& context, std::shared_ptr<HttpExchange> exchange,
                     ApiRequest request, std::shared_ptr<SessionReport> report);

// The tokens of a prompt or a conversation, checked against the context: 1 to `most`.
ApiCheck encode_prompt(const ApiContext& context, const PromptInput& prompt, bool add_special,
                       std::string_view param, int32_t most, std::vector<int32_t>& out);
ApiCheck encode_chat(const ApiContext& context, const ApiRequest& request, int32_t most,
                     std::vector<int32_t>& out);

// 429 if the generator has no room for another request, else nullopt.
ApiCheck check_room(ApiContext& context);

}  // namespace towline::serve
