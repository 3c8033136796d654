// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// AnswerJson: the JSON of completion and chat answers, whole and as chunks of a stream, in the
// shapes that OpenAI's clients parse. docs/api.md shows them. Pure but for unix_now().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "serve/choice.hpp"
#include "serve/http.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

struct Usage {
  int32_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
};
Json usage_json(const Usage& usage);

struct ChoiceParts {
  const ChoiceDelta* delta = nullptr;
  FinishReason finish = FinishReason::kNone;
  int32_t logprobs = -1;                         // -1: null
  const std::vector<int32_t>* token_ids = nullptr;         // null: not asked for
  const std::vector<int32_t>* prompt_token_ids = nullptr;
};

struct ChunkParts {
  size_t index = 0;
  const ChoiceDelta* delta = nullptr;
  FinishReason finish = FinishReason::kNone;
  int32_t logprobs = -1;
  bool first = false;       // of this choice: a chat delta then carries the role
  bool usage_null = false;  // "usage": null, when a usage chunk will follow
  const std::vector<int32_t>* token_ids = nullptr;
};

class AnswerJson {
 public:
  AnswerJson(std::string model, std::string fingerprint, std::string id, int64_t created,
             bool chat, const TextModel& text)
      : model_(std::move(model)), fingerprint_(std::move(fingerprint)), id_(std::move(id)),
        created_(created), chat_(chat), text_(text) {}

  // Each is a complete server-sent event.
  std::string chunk(const ChunkParts& parts) const;
  std::string usage_chunk(const Usage& usage) const;

  std::string whole(std::span<const ChoiceParts> choices, const Usage& usage) const;

 private:
  Json head(std::string_view object) const;
  Json chat_logprobs(const ChoiceDelta& delta) const;
  Json completion_logprobs(const ChoiceDelta& delta, int32_t alternatives) const;
  Json token_logprob(int32_t token, float logprob) const;
  Json logprobs(const ChoiceDelta& delta, int32_t alternatives) const;
  std::string token_text(int32_t token) const { return std::string(text_.piece(token)); }

  const std::string model_, fingerprint_, id_;
  const int64_t created_;
  const bool chat_;
  const TextModel& text_;
};

HttpResponse event_stream_head();
int64_t unix_now();

}  // namespace towline::serve
