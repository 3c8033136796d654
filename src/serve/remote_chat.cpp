// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/remote_chat.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <optional>
#include <utility>

#include "base/fmt.hpp"
#include "base/loop.hpp"
#include "serve/asio_names.hpp"
#include "serve/event_reader.hpp"
#include "serve/http_stream.hpp"
#include "serve/load_client.hpp"

namespace towline::serve {

namespace {

constexpr size_t kLongestEvent = 1 << 20;
constexpr size_t kLongestAnswer = 64 << 20;
constexpr size_t kLongestRefusal = 64 << 10;
constexpr size_t kQuotedBytes = 300;  // of an error answer that is not JSON, in our sentence

// One request and its streamed answer.
struct Exchange {
  asio::io_context& context;
  const ServerUrl& target;
  const std::string& api_key;
  const std::string body;
  const std::function<void(std::string_view)>& show;
  HttpStream stream{context, target};
  ChatAnswer answer{};
  bool done = false, interrupted = false;
  std::optional<Error> error{};

  Error fault(std::string_view why) const {
    return errorf(Code::kUnavailable, "{}: {}", target.origin(), why);
  }

  asio::awaitable<void> run() {
    const Result<HostAddresses> addresses = co_await look_up(context, target);
    Result<void> sent = addresses ? Result<void>() : Result<void>(addresses.error());
    if (sent) sent = co_await stream.open(*addresses);
    if (sent) {
      sent = co_await stream.send("POST", target.path + "/chat/completions", body, api_key);
    }
    if (!sent) {
      error = fault(sent.error().message());
      co_return;
    }
    co_await read();
  }

  asio::awaitable<void> read() {
    HttpStream::Parser parser;
    parser.body_limit(boost::none);
    Result<void> read = co_await stream.read_head(parser);
    const bool good = parser.get().result_int() == 200;
    EventReader events;
    std::string refusal;
    while (read && !parser.is_done()) {
      read = co_await stream.read_some(parser);
      std::string& bytes = parser.get().body();
      if (good) {
        events.feed(bytes, [this](std::string_view payload) { take(payload); });
      } else {
        refusal += bytes;
      }
      bytes.clear();
      if (error) co_return;
      if (events.held() > kLongestEvent || refusal.size() > kLongestRefusal) {
        error = fault("an answer that is no stream of events");
        co_return;
      }
    }
    if (!good && read) {
      const auto json = parse_json(refusal, "answer");
      const std::string why = json ? (*json)["error"]["message"].as_string() : std::string();
      error = fault(why.empty() ? format("HTTP {}: {}", parser.get().result_int(),
                                         refusal.substr(0, kQuotedBytes))
                                : why);
    } else if (!done) {
      error =
          fault(format("the answer ended too early{}", read ? "" : ": " + read.error().message()));
    }
  }

  void take(std::string_view payload) {
    if (error || done) return;
    if (payload == "[DONE]") {
      done = true;
      return;
    }
    const auto json = parse_json(payload, "event");
    if (!json) {
      error = fault(json.error().message());
      return;
    }
    if ((*json)["error"].is_object()) error = fault((*json)["error"]["message"].as_string());
    const Json& choice = (*json)["choices"][size_t{0}];
    const std::string& text = choice["delta"]["content"].as_string();
    answer.text += text;
    if (answer.text.size() > kLongestAnswer) error = fault("an answer of more than 64 MiB");
    if (!text.empty()) show(text);
    const std::string& finish = choice["finish_reason"].as_string();
    if (!finish.empty()) {
      answer.finish = finish == "length" ? FinishReason::kLength : FinishReason::kStop;
    }
    if (const Json& usage = (*json)["usage"]; usage.is_object()) {
      answer.prompt_tokens = static_cast<int32_t>(usage["prompt_tokens"].as_int());
      answer.output_tokens = static_cast<int32_t>(usage["completion_tokens"].as_int());
      answer.cached_tokens =
          static_cast<int32_t>(usage["prompt_tokens_details"]["cached_tokens"].as_int());
    }
  }
};

// A signal handler cannot wake the loop, so look up now and then.
void watch(Loop& loop, Exchange& exchange, std::atomic<bool>& interrupt) {
  if (interrupt.load()) {
    exchange.interrupted = true;
    return exchange.stream.cancel();
  }
  loop.after(milliseconds(50), [&] { watch(loop, exchange, interrupt); });
}

}  // namespace

Result<RemoteChat> RemoteChat::connect(ServerUrl target, std::string api_key, std::string model) {
  if (model.empty()) {
    ASSIGN_OR_RETURN(model, LoadClient::first_model(target, api_key));
  }
  return RemoteChat(std::move(target), std::move(api_key), std::move(model));
}

std::string RemoteChat::body_of(const ChatOptions& options) const {
  const engine::SamplingParams& s = options.sampling;
  Json body = Json::object({{"model", model_},
                            {"messages", history_.messages()},
                            {"stream", true},
                            {"stream_options", Json::object({{"include_usage", true}})},
                            {"temperature", static_cast<double>(s.temperature)},
                            {"top_p", static_cast<double>(s.top_p)},
                            {"seed", static_cast<int64_t>(s.seed & 0x7fffffff)}});
  // Not OpenAI's own, but understood by every server of open models.
  if (s.top_k > 0) body.set("top_k", int64_t{s.top_k});
  if (s.min_p > 0) body.set("min_p", static_cast<double>(s.min_p));
  if (options.max_tokens > 0) body.set("max_tokens", int64_t{options.max_tokens});
  if (!options.stop.empty()) {
    Json stop = Json::array();
    for (const std::string& text : options.stop) stop.push(text);
    body.set("stop", std::move(stop));
  }
  return body.dump();
}

Result<ChatAnswer> RemoteChat::ask(const std::string& user, const ChatOptions& options,
                                   const std::function<void(std::string_view)>& show,
                                   std::atomic<bool>& interrupt) {
  history_.turns.push_back({"user", user});
  Loop loop;
  Exchange exchange{loop.context(), target_, api_key_, body_of(options), show};
  asio::co_spawn(
      loop.context(),
      [&]() -> asio::awaitable<void> {
        co_await exchange.run();
        loop.stop();
      },
      asio::detached);
  watch(loop, exchange, interrupt);
  loop.run();
  if (exchange.interrupted) {
    exchange.error.reset();
    exchange.answer.finish = FinishReason::kCancelled;
  }
  if (exchange.error) {
    history_.turns.pop_back();
    return *std::move(exchange.error);
  }
  history_.turns.push_back({"assistant", exchange.answer.text});
  return std::move(exchange.answer);
}

}  // namespace towline::serve
