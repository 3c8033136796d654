// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "base/base64.hpp"
#include "base/fmt.hpp"
#include "serve/answer_json.hpp"
#include "serve/session.hpp"

namespace towline::serve {
namespace {

// The floats' bytes, little-endian, as base64: what OpenAI's client asks for by default.
std::string base64_floats(const std::vector<float>& values) {
  static_assert(std::endian::native == std::endian::little);
  return base64_encode(
      {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
}

class EmbeddingSession : public std::enable_shared_from_this<EmbeddingSession> {
 public:
  EmbeddingSession(ApiContext& context, std::shared_ptr<HttpExchange> exchange, ApiRequest request,
                   std::shared_ptr<SessionReport> report)
      : context_(context), exchange_(std::move(exchange)), request_(std::move(request)),
        report_(std::move(report)) {}

  ApiCheck start() {
    const int32_t width = context_.hub.generator().model().hidden;
    if (request_.dimensions != 0 && request_.dimensions != width) {
      return unsupported_field("dimensions", format("dimensions must be {}, this model's width, or "
                                                    "be left out", width));
    }
    inputs_.resize(request_.prompts.size());
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const std::string param = inputs_.size() == 1 ? "input" : format("input[{}]", i);
      if (auto error = encode_prompt(context_, request_.prompts[i], true, param,
                                     context_.hub.generator().max_context(), inputs_[i].tokens)) {
        return error;
      }
      report_->prompt_tokens += static_cast<int32_t>(inputs_[i].tokens.size());
    }
    if (auto error = submit_more()) {
      cancel_all();
      return error;
    }
    exchange_->on_disconnect([self = shared_from_this()] {
      self->cancel_all();
      self->context_.metrics.cancelled();
    });
    return std::nullopt;
  }

 private:
  struct Input {
    std::vector<int32_t> tokens;
    RequestId id;
    bool submitted = false, ended = false;
    std::vector<float> embedding;  // [hidden]
  };

  ApiCheck submit_more() {
    while (next_ < inputs_.size() && in_flight_ < context_.window) {
      const size_t index = next_;
      GenerationRequest g;
      g.prompt = inputs_[index].tokens;
      g.max_tokens = 0;
      g.embed = true;
      if (request_.model != context_.model_name) g.adapter = request_.model;
      const Result<RequestId> id = context_.hub.submit(
          std::move(g), [self = shared_from_this(), index](GenerationEvent&& e) {
            self->on_event(index, std::move(e));
          });
      if (!id) {
        if (id.error().code() == Code::kExhausted && in_flight_ > 0) return std::nullopt;
        return from_error(id.error());
      }
      inputs_[index].id = *id;
      report_->sequences.push_back(*id);
      inputs_[index].submitted = true;
      ++in_flight_;
      ++next_;
    }
    return std::nullopt;
  }

  void on_event(size_t index, GenerationEvent&& event) {
    if (done_) return;
    Input& input = inputs_[index];
    if (event.error) return fail(from_error(*event.error));
    if (!event.embedding.empty()) input.embedding = std::move(event.embedding);
    if (event.finish == FinishReason::kNone) return;
    input.ended = true;
    if (input.embedding.empty()) {
      return fail(from_error(Error(Code::kUnsupported, "this model gives no embeddings")));
    }
    --in_flight_;
    if (++ended_ == inputs_.size()) return finish();
    if (auto error = submit_more()) fail(*error);
  }

  void finish() {
    done_ = true;
    Json data = Json::array();
    for (size_t i = 0; i < inputs_.size(); ++i) {
      Json embedding;
      if (request_.base64) {
        embedding = base64_floats(inputs_[i].embedding);
      } else {
        for (const float v : inputs_[i].embedding) embedding.push(static_cast<double>(v));
      }
      data.push(Json::object(
          {{"object", "embedding"}, {"index", i}, {"embedding", std::move(embedding)}}));
    }
    HttpResponse response;
    response.body =
        Json::object({{"object", "list"},
                      {"data", std::move(data)},
                      {"model", context_.model_name},
                      {"usage", Json::object({{"prompt_tokens", report_->prompt_tokens},
                                              {"total_tokens", report_->prompt_tokens}})}})
            .dump();
    exchange_->respond(std::move(response));
  }

  void fail(const ApiError& error) {
    cancel_all();
    report_->error = error.message;
    exchange_->respond(error_response(error));
  }

  void cancel_all() {
    done_ = true;
    for (const Input& input : inputs_) {
      if (input.submitted && !input.ended) context_.hub.cancel(input.id);
    }
  }

  ApiContext& context_;
  const std::shared_ptr<HttpExchange> exchange_;
  const ApiRequest request_;
  const std::shared_ptr<SessionReport> report_;
  std::vector<Input> inputs_;
  size_t next_ = 0, ended_ = 0;
  int32_t in_flight_ = 0;
  bool done_ = false;
};

}  // namespace

void start_embedding(ApiContext& context, std::shared_ptr<HttpExchange> exchange,
                     ApiRequest request, std::shared_ptr<SessionReport> report) {
  const auto refuse = [&exchange, report](const ApiError& error) {
    report->error = error.message;
    exchange->respond(error_response(error));
  };
  if (auto error = check_room(context)) return refuse(*error);
  const auto session = std::make_shared<EmbeddingSession>(context, exchange, std::move(request),
                                                          std::move(report));
  if (auto error = session->start()) refuse(*error);
}

}  // namespace towline::serve
