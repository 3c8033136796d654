// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/request_check.hpp"

#include "base/fmt.hpp"
#include "engine/sampler.hpp"

namespace towline::serve {

Result<void> check_request(const GenerationRequest& request, const spec::ModelDesc& model,
                           int32_t context) {
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) return Error(Code::kInvalidArgument, "the prompt is empty");
  const bool wants_output = request.max_tokens > 0 && !request.embed;
  if (length > context || (wants_output && length == context)) {
    return errorf(Code::kInvalidArgument,
                  "the prompt has {} tokens; this model's context holds {}{}; shorten the prompt",
                  length, context, wants_output ? " with at least one of output" : "");
  }
  if (request.max_tokens < 0) {
    return errorf(Code::kInvalidArgument, "max_tokens is {}; it must not be negative",
                  request.max_tokens);
  }
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= model.vocab) {
      return errorf(Code::kInvalidArgument, "the prompt holds token {}; the model has 0 to {}",
                    token, model.vocab - 1);
    }
  }
  return engine::check_sampling(request.sampling, model.vocab);
}

}  // namespace towline::serve
