// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RemoteChat: a conversation with a server that has OpenAI's API, from one blocking thread:
// `towline chat --url`. The same calls as ChatSession; the server applies its own template and
// decides what fits its context. Not for concurrent use.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "serve/chat_history.hpp"
#include "serve/chat_session.hpp"
#include "serve/server_url.hpp"

namespace towline::serve {

class RemoteChat {
 public:
  // `model` empty: the first that the server names. Errors name the address.
  static Result<RemoteChat> connect(ServerUrl target, std::string api_key, std::string model);

  const std::string& model() const { return model_; }

  // As ChatSession::ask; setting `interrupt` closes the connection, which cancels the request; what
  // there is of the answer stays. After an error the conversation is as before.
  Result<ChatAnswer> ask(const std::string& user, const ChatOptions& options,
                         const std::function<void(std::string_view)>& show,
                         std::atomic<bool>& interrupt);

  void set_system(std::string text) { history_.system = std::move(text); }
  void reset() { history_.turns.clear(); }
  Json messages() const { return history_.messages(); }

 private:
  RemoteChat(ServerUrl target, std::string api_key, std::string model)
      : target_(std::move(target)), api_key_(std::move(api_key)), model_(std::move(model)) {}
  std::string body_of(const ChatOptions& options) const;

  ServerUrl target_;
  std::string api_key_, model_;
  ChatHistory history_;
};

}  // namespace towline::serve
