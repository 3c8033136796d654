// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ChatSession: a conversation with a generator, from one blocking thread: `towline chat`.
//
//   ChatSession chat(text);
//   auto generator = ...(chat.sink());
//   chat.attach(*generator);
//   chat.ask("Hello", options, [](std::string_view piece) { ... }, interrupted);
//
// When the conversation outgrows the context its oldest turns are forgotten, the system message
// never. The generator must be destroyed before the session. Not for concurrent use; only sink()'s
// function runs on the generator's thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "serve/chat_history.hpp"
#include "serve/generator.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

struct ChatOptions {
  engine::SamplingParams sampling;
  int32_t max_tokens = 0;           // 0: what the context leaves
  std::vector<std::string> stop;    // texts that end an answer
};

struct ChatAnswer {
  std::string text;
  int32_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  int32_t forgotten = 0;            // messages dropped to make room, in all so far
  FinishReason finish = FinishReason::kNone;
};

class ChatSession {
 public:
  explicit ChatSession(const TextModel& text) : text_(text) {}
  EventSink sink();
  void attach(Generator& generator) { generator_ = &generator; }

  // Adds `user` and the answer to the conversation. `show` gets the answer's text as it comes.
  // Setting `interrupt` ends the answer early: what there is stays, with kCancelled. After an error
  // the conversation is as before.
  Result<ChatAnswer> ask(const std::string& user, const ChatOptions& options,
                         const std::function<void(std::string_view)>& show,
                         std::atomic<bool>& interrupt);

  void set_system(std::string text) { history_.system = std::move(text); }  // empty: none
  void reset() {
    history_.turns.clear();
    forgotten_ = 0;
  }
  Json messages() const { return history_.messages(); }

 private:
  Result<std::vector<int32_t>> make_prompt(int32_t reserve);
  std::vector<GenerationEvent> wait_events();

  const TextModel& text_;
  Generator* generator_ = nullptr;
  ChatHistory history_;
  int32_t forgotten_ = 0;
  int64_t next_id_ = 1;

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<GenerationEvent> events_;  // guarded by mutex_
};

}  // namespace towline::serve
