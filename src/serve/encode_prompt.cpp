// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/fmt.hpp"
#include "serve/session.hpp"

namespace towline::serve {
namespace {

// Texts have 2 to 6 bytes a token. One with more than this for each place of the context is refused
// unread, because tokenizing it would hold up the loop.
constexpr size_t kMaxTokenBytes = 64;

ApiError too_long(std::string_view param, std::string length, int32_t context, int32_t most) {
  ApiError error = invalid_field(
      param, most < context
                 ? format("{} has {} tokens; with max_tokens {} that is more than this model's "
                          "context of {} tokens", param, length, context - most, context)
                 : format("{} has {} tokens, more than this model's context of {} tokens", param,
                          length, context));
  error.code = "context_length_exceeded";
  return error;
}

ApiCheck check_length(const ApiContext& context, std::string_view param, int32_t most,
                      const std::vector<int32_t>& tokens) {
  if (tokens.empty()) return invalid_field(param, format("{} is empty", param));
  if (tokens.size() <= static_cast<size_t>(std::max(most, 0))) return std::nullopt;
  return too_long(param, std::to_string(tokens.size()), context.hub.generator().max_context(),
                  most);
}

ApiCheck encode_text(const ApiContext& context, const std::string& text, bool add_special,
                     bool parse_special, std::string_view param, int32_t most,
                     std::vector<int32_t>& out) {
  const int32_t longest = context.hub.generator().max_context();
  if (text.size() / kMaxTokenBytes > static_cast<size_t>(longest)) {
    return too_long(param, format("more than {}", text.size() / kMaxTokenBytes), longest, most);
  }
  Result<std::vector<int32_t>> tokens = context.text.encode(text, add_special, parse_special);
  if (!tokens) {
    ApiError error = from_error(tokens.error());
    error.param = param;
    return error;
  }
  out = std::move(*tokens);
  return check_length(context, param, most, out);
}

}  // namespace

ApiCheck encode_prompt(const ApiContext& context, const PromptInput& prompt, bool add_special,
                       std::string_view param, int32_t most, std::vector<int32_t>& out) {
  if (const auto* tokens = std::get_if<std::vector<int32_t>>(&prompt)) {
    out = *tokens;
    return check_length(context, param, most, out);
  }
  return encode_text(context, std::get<std::string>(prompt), add_special, false, param, most, out);
}

ApiCheck encode_chat(const ApiContext& context, const ApiRequest& request, int32_t most,
                     std::vector<int32_t>& out) {
  const Result<std::string> text = context.text.render_chat(
      request.messages, request.add_generation_prompt, request.template_kwargs);
  if (!text) return invalid_field("messages", text.error().to_string());
  // Templates write BOS themselves where they want it; the tokenizer must not add another.
  return encode_text(context, *text, false, true, "messages", most, out);
}

ApiCheck check_room(ApiContext& context) {
  if (context.hub.live() < context.max_live) return std::nullopt;
  context.metrics.refused_full();
  ApiError error;
  error.status = 429;
  error.type = "rate_limit_error";
  error.code = "queue_full";
  error.message = format("the server is full ({} sequences running or waiting); try again later",
                         context.hub.live());
  error.retry_after = 1;
  return error;
}

}  // namespace towline::serve
