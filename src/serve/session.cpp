// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/session.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "serve/answer_json.hpp"
#include "serve/choice.hpp"

namespace towline::serve {
namespace {

constexpr int32_t kDefaultCompletionTokens = 16;

// A seed for requests that name none: the id is random.
uint64_t seed_from(const std::string& id) {
  uint64_t seed = 0;
  for (const char c : id) seed = mix64(seed ^ static_cast<unsigned char>(c));
  return seed;
}

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(ApiContext& context, std::shared_ptr<HttpExchange> exchange, ApiRequest request,
          std::string id, std::shared_ptr<SessionReport> report)
      : context_(context),
        exchange_(std::move(exchange)),
        request_(std::move(request)),
        answer_(request_.model.empty() ? context.model_name : request_.model, context.fingerprint,
                std::move(id), unix_now(), request_.kind == ApiKind::kChat, context.text),
        report_(std::move(report)),
        arrival_(context.loop.now()) {}

  ApiCheck start(const std::string& id);

 private:
  struct Sequence {
    std::unique_ptr<Choice> choice;
    RequestId id;
    bool submitted = false, echoed = false, begun = false;
    size_t prompt = 0;
    Instant last_token{};
    ChoiceDelta whole;                 // not streaming: everything so far
    std::vector<int32_t> token_ids;    // with return_token_ids, not yet sent
  };

  ApiCheck make_prompts();
  void make_sequences(const std::string& id);
  ApiCheck submit_more();
  GenerationRequest generation_request(const Sequence& sequence, size_t index) const;
  void on_event(size_t index, GenerationEvent&& event);
  void on_tokens(Sequence& sequence, size_t index, GenerationEvent& event);
  void echo_prompt(Sequence& sequence, std::vector<GeneratedToken> tokens);
  void show(size_t index);
  void sequence_ended(size_t index);
  void finish();
  void fail(const ApiError& error);
  void abort();
  void cancel_all();
  void release() { self_.reset(); }
  Usage usage() const;

  ApiContext& context_;
  const std::shared_ptr<HttpExchange> exchange_;
  const ApiRequest request_;
  const AnswerJson answer_;
  const std::shared_ptr<SessionReport> report_;
  const Instant arrival_;
  std::shared_ptr<Session> self_;  // until the answer is complete

  std::vector<std::vector<int32_t>> prompts_;  // tokens
  int32_t max_tokens_ = 0;
  uint64_t seed_ = 0;
  std::vector<Sequence> sequences_;            // prompt by prompt, n each
  size_t next_ = 0;                            // first not yet submitted
  int32_t in_flight_ = 0;
  size_t ended_ = 0;
  Instant first_token_{};
  double queue_seconds_ = -1;
  bool done_ = false;
};

ApiCheck Session::start(const std::string& id) {
  if (auto error = make_prompts()) return error;
  make_sequences(id);
  if (auto error = submit_more()) {
    cancel_all();
    done_ = true;
    return error;
  }
  self_ = shared_from_this();
  exchange_->on_disconnect([self = self_] { self->abort(); });
  if (request_.stream) exchange_->begin_stream(event_stream_head());
  return std::nullopt;
}

ApiCheck Session::make_prompts() {
  const int32_t context = context_.hub.generator().max_context();
  const bool chat = request_.kind == ApiKind::kChat;
  max_tokens_ = request_.max_tokens;
  if (max_tokens_ < 0 && !chat) max_tokens_ = kDefaultCompletionTokens;
  if (max_tokens_ == 0 && !request_.echo) {
    return invalid_field("max_tokens", "max_tokens must be at least 1");
  }
  // A limit that the client named must fit behind the prompt; the default takes what is left.
  const bool named = request_.max_tokens >= 0;
  const int32_t most = named ? context - max_tokens_ : context - 1;
  if (chat) {
    if (auto error = encode_chat(context_, request_, most, prompts_.emplace_back())) return error;
  }
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    const std::string param = request_.prompts.size() == 1 ? "prompt" : format("prompt[{}]", i);
    if (auto error = encode_prompt(context_, request_.prompts[i], request_.add_special_tokens,
                                   param, most, prompts_.emplace_back())) {
      return error;
    }
  }
  size_t longest = 0;
  for (const auto& prompt : prompts_) {
    longest = std::max(longest, prompt.size());
    report_->prompt_tokens += static_cast<int32_t>(prompt.size());
  }
  const int32_t left = context - static_cast<int32_t>(longest);
  max_tokens_ = max_tokens_ < 0 ? left : std::min(max_tokens_, left);
  return std::nullopt;
}

void Session::make_sequences(const std::string& id) {
  seed_ = request_.seed ? static_cast<uint64_t>(*request_.seed) : seed_from(id);
  const bool keep_tokens = request_.logprobs >= 0;
  sequences_.resize(prompts_.size() * static_cast<size_t>(request_.n));
  for (size_t i = 0; i < sequences_.size(); ++i) {
    sequences_[i].prompt = i / static_cast<size_t>(request_.n);
    sequences_[i].choice =
        std::make_unique<Choice>(context_.text.stream(true), request_.stop, keep_tokens);
  }
}

GenerationRequest Session::generation_request(const Sequence& sequence, size_t index) const {
  GenerationRequest g;
  g.choice = static_cast<int32_t>(index % static_cast<size_t>(request_.n));
  g.prompt = prompts_[sequence.prompt];
  g.sampling = request_.sampling;
  g.sampling.seed = seed_;
  g.sampling.logprobs = request_.logprobs;
  g.max_tokens = max_tokens_;
  g.stop_tokens = request_.stop_token_ids;
  if (!request_.ignore_eos) {
    const auto ends = context_.text.end_tokens();
    g.stop_tokens.insert(g.stop_tokens.end(), ends.begin(), ends.end());
  }
  g.prompt_logprobs = request_.echo && request_.logprobs >= 0;
  g.priority = request_.priority;
  if (request_.model != context_.model_name) g.adapter = request_.model;
  return g;
}

// Fills the window. A full generator is an error only for a request that has nothing in it yet.
ApiCheck Session::submit_more() {
  while (next_ < sequences_.size() && in_flight_ < context_.window) {
    const size_t index = next_;
    const Result<RequestId> id = context_.hub.submit(
        generation_request(sequences_[index], index),
        [self = shared_from_this(), index](GenerationEvent&& e) {
          self->on_event(index, std::move(e));
        });
    if (!id) {
      if (id.error().code() == Code::kExhausted && in_flight_ > 0) return std::nullopt;
      if (id.error().code() == Code::kExhausted) context_.metrics.refused_full();
      return from_error(id.error());
    }
    sequences_[index].id = *id;
    report_->sequences.push_back(*id);
    sequences_[index].submitted = true;
    ++in_flight_;
    ++next_;
  }
  return std::nullopt;
}

void Session::on_event(size_t index, GenerationEvent&& event) {
  if (done_) return;
  Sequence& sequence = sequences_[index];
  if (sequence.choice->ended()) return;
  if (event.finish == FinishReason::kError) {
    return fail(event.error ? from_error(*event.error)
                            : from_error(Error(Code::kInternal, "the engine failed")));
  }
  if (event.finish == FinishReason::kCancelled) {
    return fail(from_error(Error(Code::kUnavailable, "the server stopped this request")));
  }
  report_->cached_tokens = std::max(report_->cached_tokens, event.cached_tokens);
  if (queue_seconds_ < 0) queue_seconds_ = to_seconds(event.queued);
  on_tokens(sequence, index, event);
  if (done_) return;  // the client went away while being written to
  if (sequence.choice->ended()) return sequence_ended(index);
}

void Session::on_tokens(Sequence& sequence, size_t index, GenerationEvent& event) {
  const Instant now = context_.loop.now();
  // With logprobs the prompt's tokens come once the prompt is evaluated.
  const bool evaluated = !event.prompt_tokens.empty() || !event.tokens.empty() ||
                         event.finish != FinishReason::kNone;
  if (request_.echo && !sequence.echoed && evaluated) {
    sequence.echoed = true;
    echo_prompt(sequence, std::move(event.prompt_tokens));
  }
  for (const GeneratedToken& token : event.tokens) {
    if (sequence.choice->ended()) break;
    if (first_token_.ns == 0) {
      first_token_ = now;
      context_.metrics.first_token(to_seconds(now - arrival_));
    } else if (sequence.last_token.ns != 0) {
      context_.metrics.between_tokens(to_seconds(now - sequence.last_token));
    }
    sequence.last_token = now;
    ++report_->completion_tokens;
    if (request_.return_token_ids) sequence.token_ids.push_back(token.token);
    sequence.choice->push(token);
  }
  const bool stopped_early = sequence.choice->ended();
  if (event.finish != FinishReason::kNone) {
    sequence.choice->end(event.finish);
  } else if (stopped_early) {
    context_.hub.cancel(sequence.id);
  }
  show(index);
}

void Session::echo_prompt(Sequence& sequence, std::vector<GeneratedToken> tokens) {
  const PromptInput* given =
      request_.prompts.empty() ? nullptr : &request_.prompts[sequence.prompt];
  const auto* text = given ? std::get_if<std::string>(given) : nullptr;
  sequence.choice->echo(text ? *text : context_.text.decode(prompts_[sequence.prompt]),
                        std::move(tokens), context_.text);
}

// Sends what became certain, or keeps it for the whole answer.
void Session::show(size_t index) {
  Sequence& sequence = sequences_[index];
  ChoiceDelta delta = sequence.choice->take();
  if (!request_.stream) {
    sequence.whole.text += delta.text;
    std::move(delta.tokens.begin(), delta.tokens.end(), std::back_inserter(sequence.whole.tokens));
    return;
  }
  const FinishReason finish = sequence.choice->finish();
  if (delta.text.empty() && delta.tokens.empty() && sequence.token_ids.empty() &&
      finish == FinishReason::kNone) {
    return;
  }
  ChunkParts parts{.index = index, .delta = &delta, .finish = finish,
                   .logprobs = request_.logprobs, .first = !sequence.begun,
                   .usage_null = request_.include_usage};
  sequence.begun = true;
  if (request_.return_token_ids) parts.token_ids = &sequence.token_ids;
  exchange_->write(answer_.chunk(parts));
  sequence.token_ids.clear();
}

void Session::sequence_ended(size_t index) {
  ++ended_;
  --in_flight_;
  context_.metrics.choice_finished(sequences_[index].choice->finish());
  if (ended_ == sequences_.size()) return finish();
  if (auto error = submit_more()) fail(*error);
}

Usage Session::usage() const {
  return {report_->prompt_tokens, report_->completion_tokens, report_->cached_tokens};
}

void Session::finish() {
  done_ = true;
  const Instant now = context_.loop.now();
  RequestRecord record;
  record.prompt_tokens = report_->prompt_tokens;
  record.completion_tokens = report_->completion_tokens;
  record.max_tokens = max_tokens_;
  record.n = request_.n;
  record.total_seconds = to_seconds(now - arrival_);
  record.queue_seconds = queue_seconds_;
  if (first_token_.ns != 0) {
    record.prefill_seconds =
        std::max(0.0, to_seconds(first_token_ - arrival_) - std::max(0.0, queue_seconds_));
    record.decode_seconds = to_seconds(now - first_token_);
  }
  context_.metrics.request_finished(record);
  if (request_.stream) {
    if (request_.include_usage) exchange_->write(answer_.usage_chunk(usage()));
    exchange_->write("data: [DONE]\n\n");
    exchange_->end_stream();
    return release();
  }
  std::vector<ChoiceParts> parts(sequences_.size());
  for (size_t i = 0; i < sequences_.size(); ++i) {
    Sequence& s = sequences_[i];
    parts[i] = {.delta = &s.whole, .finish = s.choice->finish(), .logprobs = request_.logprobs};
    if (request_.return_token_ids) {
      parts[i].token_ids = &s.token_ids;
      parts[i].prompt_token_ids = &prompts_[s.prompt];
    }
  }
  HttpResponse response;
  response.body = answer_.whole(parts, usage());
  exchange_->respond(std::move(response));
  release();
}

// After the head of a stream is sent an error can only be an event of its own.
void Session::fail(const ApiError& error) {
  if (done_) return;
  cancel_all();
  done_ = true;
  report_->error = error.message;
  context_.metrics.choice_finished(FinishReason::kError);
  if (exchange_->started()) {
    exchange_->write("data: " + error_json(error) + "\n\ndata: [DONE]\n\n");
    exchange_->end_stream();
  } else {
    exchange_->respond(error_response(error));
  }
  release();
}

void Session::abort() {
  if (done_) return;
  cancel_all();
  done_ = true;
  context_.metrics.cancelled();
  context_.metrics.choice_finished(FinishReason::kCancelled);
  release();
}

void Session::cancel_all() {
  for (const Sequence& sequence : sequences_) {
    if (sequence.submitted && !sequence.choice->ended()) context_.hub.cancel(sequence.id);
  }
}

}  // namespace

void start_completion(ApiContext& context, std::shared_ptr<HttpExchange> exchange,
                      ApiRequest request, std::string id, std::shared_ptr<SessionReport> report) {
  const auto refuse = [&exchange, report](const ApiError& error) {
    report->error = error.message;
    exchange->respond(error_response(error));
  };
  if (auto error = check_room(context)) return refuse(*error);
  const auto session =
      std::make_shared<Session>(context, exchange, std::move(request), id, std::move(report));
  if (auto error = session->start(id)) refuse(*error);
}

}  // namespace towline::serve
