// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/chat_session.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/fmt.hpp"
#include "serve/choice.hpp"

namespace towline::serve {
namespace {

// Room kept for an answer when no limit is named: old turns go before the answer has less.
constexpr int32_t kReserve = 128;

}  // namespace

EventSink ChatSession::sink() {
  return [this](std::vector<GenerationEvent>&& events) {
    const std::lock_guard lock(mutex_);
    std::move(events.begin(), events.end(), std::back_inserter(events_));
    arrived_.notify_one();
  };
}

// The conversation as tokens, forgetting the oldest turns until `reserve` tokens are left.
Result<std::vector<int32_t>> ChatSession::make_prompt(int32_t reserve) {
  const int32_t context = generator_->max_context();
  while (true) {
    ASSIGN_OR_RETURN(const std::string text, text_.render_chat(messages(), true, Json()));
    ASSIGN_OR_RETURN(std::vector<int32_t> prompt, text_.encode(text, false, true));
    if (prompt.empty()) {
      return Error(Code::kInvalidArgument, "the chat template gave an empty text");
    }
    const auto length = static_cast<int64_t>(prompt.size());
    if (length + reserve <= context) return prompt;
    if (history_.turns.size() < 3) {
      if (length < context) return prompt;
      return errorf(Code::kInvalidArgument,
                    "the message has {} tokens, more than the context of {} holds", length,
                    context);
    }
    history_.turns.erase(history_.turns.begin(), history_.turns.begin() + 2);
    forgotten_ += 2;
  }
}

std::vector<GenerationEvent> ChatSession::wait_events() {
  std::unique_lock lock(mutex_);
  // A signal handler cannot wake a condition variable, so look up now and then.
  arrived_.wait_for(lock, std::chrono::milliseconds(50), [this] { return !events_.empty(); });
  return std::exchange(events_, {});
}

Result<ChatAnswer> ChatSession::ask(const std::string& user, const ChatOptions& options,
                                    const std::function<void(std::string_view)>& show,
                                    std::atomic<bool>& interrupt) {
  const std::vector<ChatHistory::Turn> before = history_.turns;
  const int32_t forgotten_before = forgotten_;
  const auto fail = [&](Error error) {
    history_.turns = before;
    forgotten_ = forgotten_before;
    return error;
  };
  history_.turns.push_back({"user", user});
  Result<std::vector<int32_t>> prompt =
      make_prompt(options.max_tokens > 0 ? options.max_tokens : kReserve);
  if (!prompt) return fail(std::move(prompt).error());

  ChatAnswer answer;
  answer.prompt_tokens = static_cast<int32_t>(prompt->size());
  answer.forgotten = forgotten_;
  GenerationRequest request;
  request.id = RequestId(next_id_++);
  request.sampling = options.sampling;
  const int32_t left = generator_->max_context() - answer.prompt_tokens;
  request.max_tokens = options.max_tokens > 0 ? std::min(options.max_tokens, left) : left;
  request.stop_tokens.assign(text_.end_tokens().begin(), text_.end_tokens().end());
  request.prompt = std::move(*prompt);
  const RequestId id = request.id;
  if (auto taken = generator_->submit(std::move(request)); !taken) {
    return fail(std::move(taken).error());
  }

  Choice choice(text_.stream(true), options.stop, false);
  bool cancelled = false;
  std::optional<Error> broken;
  for (bool over = false; !over;) {
    if ((interrupt.load() || choice.ended()) && !cancelled) {
      cancelled = true;
      generator_->cancel(id);
    }
    for (GenerationEvent& event : wait_events()) {
      if (event.id != id) continue;
      answer.cached_tokens = std::max(answer.cached_tokens, event.cached_tokens);
      for (const GeneratedToken& token : event.tokens) choice.push(token);
      if (event.finish == FinishReason::kNone) continue;
      over = true;
      if (event.finish == FinishReason::kError) {
        broken = event.error.value_or(Error(Code::kInternal, "the engine failed"));
      }
      choice.end(event.finish);
    }
    const std::string text = choice.take().text;
    answer.text += text;
    if (!text.empty()) show(text);
  }
  if (broken) return fail(*std::move(broken));
  answer.finish = choice.finish();
  answer.output_tokens = choice.completion_tokens();
  history_.turns.push_back({"assistant", answer.text});
  return answer;
}

}  // namespace towline::serve
