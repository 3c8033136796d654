// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/answer_json.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace towline::serve {
namespace {

// JSON has no infinity; clients know this value from other servers.
double finite_logprob(float v) { return std::isfinite(v) ? static_cast<double>(v) : -9999.0; }

Json finish_json(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kNone:
    case FinishReason::kCancelled:
    case FinishReason::kError: break;
  }
  return Json();
}

Json ids_json(const std::vector<int32_t>& ids) {
  Json list = Json::array();
  for (const int32_t id : ids) list.push(id);
  return list;
}

std::string event(const Json& data) { return "data: " + data.dump() + "\n\n"; }

}  // namespace

Json usage_json(const Usage& u) {
  return Json::object(
      {{"prompt_tokens", u.prompt_tokens},
       {"completion_tokens", u.completion_tokens},
       {"total_tokens", u.prompt_tokens + u.completion_tokens},
       {"prompt_tokens_details", Json::object({{"cached_tokens", u.cached_tokens}})}});
}

Json AnswerJson::head(std::string_view object) const {
  return Json::object({{"id", id_},
                       {"object", object},
                       {"created", created_},
                       {"model", model_},
                       {"system_fingerprint", fingerprint_}});
}

Json AnswerJson::token_logprob(int32_t token, float logprob) const {
  const std::string text = token_text(token);
  Json bytes = Json::array();
  for (const char c : text) bytes.push(static_cast<int>(static_cast<unsigned char>(c)));
  return Json::object(
      {{"token", text}, {"logprob", finite_logprob(logprob)}, {"bytes", std::move(bytes)}});
}

Json AnswerJson::chat_logprobs(const ChoiceDelta& delta) const {
  Json content = Json::array();
  for (const ShownToken& shown : delta.tokens) {
    Json entry = token_logprob(shown.token.token, shown.token.logprob);
    Json top = Json::array();
    for (const TokenLogprob& t : shown.token.top) top.push(token_logprob(t.token, t.logprob));
    entry.set("top_logprobs", std::move(top));
    content.push(std::move(entry));
  }
  return Json::object({{"content", std::move(content)}, {"refusal", Json()}});
}

Json AnswerJson::completion_logprobs(const ChoiceDelta& delta, int32_t alternatives) const {
  Json tokens = Json::array(), logprobs = Json::array(), tops = Json::array();
  Json offsets = Json::array();
  for (const ShownToken& shown : delta.tokens) {
    const GeneratedToken& token = shown.token;
    tokens.push(token_text(token.token));
    offsets.push(shown.offset);
    // The first token of an echoed prompt has no context to be predicted from.
    const bool unknown = std::isnan(token.logprob);
    logprobs.push(unknown ? Json() : Json(finite_logprob(token.logprob)));
    Json top = Json::object();
    for (const TokenLogprob& t : token.top) top.set(token_text(t.token), finite_logprob(t.logprob));
    tops.push(unknown ? Json() : std::move(top));
  }
  Json out = Json::object({{"tokens", std::move(tokens)},
                           {"token_logprobs", std::move(logprobs)},
                           {"top_logprobs", alternatives > 0 ? std::move(tops) : Json()},
                           {"text_offset", std::move(offsets)}});
  return out;
}

Json AnswerJson::logprobs(const ChoiceDelta& delta, int32_t alternatives) const {
  if (alternatives < 0) return Json();
  return chat_ ? chat_logprobs(delta) : completion_logprobs(delta, alternatives);
}

std::string AnswerJson::chunk(const ChunkParts& parts) const {
  Json choice = Json::object({{"index", parts.index}});
  if (chat_) {
    Json delta = Json::object();
    if (parts.first) delta.set("role", "assistant");  // the OpenAI client's helper insists on it
    delta.set("content", parts.delta->text);
    choice.set("delta", std::move(delta));
  } else {
    choice.set("text", parts.delta->text);
  }
  choice.set("logprobs", logprobs(*parts.delta, parts.logprobs));
  choice.set("finish_reason", finish_json(parts.finish));
  if (parts.token_ids != nullptr) choice.set("token_ids", ids_json(*parts.token_ids));
  Json data = head(chat_ ? "chat.completion.chunk" : "text_completion");
  data.set("choices", Json::array({std::move(choice)}));
  if (parts.usage_null) data.set("usage", Json());
  return event(data);
}

std::string AnswerJson::usage_chunk(const Usage& usage) const {
  Json data = head(chat_ ? "chat.completion.chunk" : "text_completion");
  data.set("choices", Json::array());
  data.set("usage", usage_json(usage));
  return event(data);
}

std::string AnswerJson::whole(std::span<const ChoiceParts> choices, const Usage& usage) const {
  Json list = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const ChoiceParts& parts = choices[i];
    Json choice = Json::object({{"index", i}});
    if (chat_) {
      choice.set("message", Json::object({{"role", "assistant"},
                                          {"content", parts.delta->text},
                                          {"refusal", Json()}}));
    } else {
      choice.set("text", parts.delta->text);
    }
    choice.set("logprobs", logprobs(*parts.delta, parts.logprobs));
    choice.set("finish_reason", finish_json(parts.finish));
    if (parts.token_ids != nullptr) choice.set("token_ids", ids_json(*parts.token_ids));
    if (parts.prompt_token_ids != nullptr) {
      choice.set("prompt_token_ids", ids_json(*parts.prompt_token_ids));
    }
    list.push(std::move(choice));
  }
  Json data = head(chat_ ? "chat.completion" : "text_completion");
  data.set("choices", std::move(list));
  data.set("usage", usage_json(usage));
  return data.dump();
}

HttpResponse event_stream_head() {
  HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
  return head;
}

int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace towline::serve
