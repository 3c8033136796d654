// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/load_client.hpp"

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <set>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/rng.hpp"
#include "serve/event_reader.hpp"

namespace towline::serve {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

auto await_into(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

// True if the payload brings text: "text":"x" or "content":"x", not empty and not null.
bool brings_text(std::string_view payload) {
  for (const std::string_view key : {"\"text\":", "\"content\":"}) {
    size_t at = payload.find(key);
    if (at == std::string_view::npos) continue;
    at += key.size();
    while (at < payload.size() && payload[at] == ' ') ++at;
    if (at + 1 < payload.size() && payload[at] == '"' && payload[at + 1] != '"') return true;
  }
  return false;
}

constexpr size_t kLongestEvent = 16 << 20;
constexpr size_t kQuotedBytes = 300;  // of an error answer, in our sentence

}  // namespace

Result<LoadTarget> LoadTarget::parse(std::string_view url) {
  const auto bad = [&](std::string_view why) {
    return errorf(Code::kInvalidArgument, "'{}' {}; write http://host:port or http://host:port/v1",
                  url, why);
  };
  if (url.starts_with("https://")) return bad("is TLS, which the load client does not speak");
  if (!url.starts_with("http://")) return bad("does not begin with http://");
  std::string_view rest = url.substr(7);
  LoadTarget target;
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    std::string_view path = rest.substr(slash);
    while (path.ends_with('/')) path.remove_suffix(1);
    if (!path.empty()) target.path = path;
    rest = rest.substr(0, slash);
  }
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : std::string_view::npos;
  const size_t colon = rest.find(':', bracket == std::string_view::npos ? 0 : bracket);
  target.host = rest.substr(0, colon);
  if (bracket != std::string_view::npos) target.host = rest.substr(1, bracket - 1);
  if (colon != std::string_view::npos) target.port = rest.substr(colon + 1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (target.host.empty()) return bad("names no host");
  if (target.port.empty() || target.port.size() > 5 ||
      !std::all_of(target.port.begin(), target.port.end(), is_digit)) {
    return bad("has no proper port");
  }
  return target;
}

struct LoadClient::State : std::enable_shared_from_this<State> {
  State(Loop& l, LoadOptions o, Source in, Sink out)
      : loop(l), options(std::move(o)), source(std::move(in)), sink(std::move(out)),
        timer(l.context()), resolver(l.context()) {}

  Loop& loop;
  const LoadOptions options;
  Source source;
  Sink sink;
  std::function<void()> done;
  asio::steady_timer timer;
  tcp::resolver resolver;
  tcp::resolver::results_type addresses;
  std::set<beast::tcp_stream*> running;
  std::string failed_lookup;   // why the host's name led nowhere
  Instant begun;
  int64_t sent = 0, in_flight = 0, most = 0;
  bool exhausted = false, stopped = false;

  double now() const { return to_seconds(loop.now() - begun); }

  // The next request, if there is one and we go on.
  std::optional<spec::TraceRequest> next() {
    if (stopped || exhausted) return std::nullopt;
    auto item = source();
    if (!item) exhausted = true;
    return item;
  }
  LoadResult begin_result(const spec::TraceRequest& item) {
    LoadResult result;
    result.index = sent++;
    result.wanted_input = item.input;
    result.wanted_output = item.output;
    most = std::max(most, ++in_flight);
    return result;
  }
  void end_result(LoadResult&& result) {
    --in_flight;
    sink(std::move(result));
  }
  void finish_if_done() {
    if (in_flight > 0 || !(exhausted || stopped) || !done) return;
    std::exchange(done, nullptr)();
  }

  std::string body_of(const LoadResult& r) const;
  asio::awaitable<void> run_open();
  asio::awaitable<void> run_client();
  asio::awaitable<void> perform(LoadResult& result);
  asio::awaitable<std::string> exchange(LoadResult& result, beast::tcp_stream& stream);
  asio::awaitable<std::string> read_events(LoadResult& result, beast::tcp_stream& stream);
  asio::awaitable<void> look_up();
};

std::string LoadClient::State::body_of(const LoadResult& r) const {
  const auto seed =
      static_cast<int64_t>((options.seed + static_cast<uint64_t>(r.index)) % INT32_MAX);
  Json body = Json::object({{"stream", true},
                            {"stream_options", Json::object({{"include_usage", true}})},
                            {"max_tokens", int64_t{r.wanted_output}},
                            {"temperature", options.temperature},
                            {"seed", seed}});
  if (!options.model.empty()) body.set("model", options.model);
  if (options.ignore_eos) body.set("ignore_eos", true);
  Rng rng(options.seed * 1'000'003 + static_cast<uint64_t>(r.index));
  if (options.chat) {
    std::string words;
    for (int32_t i = 0; i < r.wanted_input; ++i) {
      words += format("{}{}", i > 0 ? " " : "", static_cast<char>('a' + rng.below(26)));
    }
    Json message = Json::object({{"role", "user"}, {"content", words}});
    Json messages = Json::array();
    messages.push(std::move(message));
    body.set("messages", std::move(messages));
  } else {
    Json prompt = Json::array();
    const auto choices = static_cast<uint64_t>(std::max(1, options.vocabulary - 3));
    for (int32_t i = 0; i < r.wanted_input; ++i) {
      prompt.push(static_cast<int64_t>(3 + rng.below(choices)));
    }
    body.set("prompt", std::move(prompt));
  }
  return body.dump();
}

asio::awaitable<void> LoadClient::State::look_up() {
  error_code ec;
  addresses = co_await resolver.async_resolve(options.target.host, options.target.port,
                                              await_into(ec));
  if (ec) {
    failed_lookup = format("the host '{}' is not known: {}", options.target.host, ec.message());
  }
}

// Sends each request at its time and goes on without waiting for the answer.
asio::awaitable<void> LoadClient::State::run_open() {
  const auto self = shared_from_this();
  while (auto item = next()) {
    const double due = static_cast<double>(item->arrival_ns) * 1e-9;
    if (const double ahead = due - now(); ahead > 0) {
      timer.expires_after(std::chrono::nanoseconds(static_cast<int64_t>(ahead * 1e9)));
      error_code ec;
      co_await timer.async_wait(await_into(ec));
      if (stopped) break;
    }
    LoadResult result = begin_result(*item);
    result.due = due;
    asio::co_spawn(
        loop.context(),
        [](std::shared_ptr<State> state, LoadResult r) -> asio::awaitable<void> {
          co_await state->perform(r);
          state->end_result(std::move(r));
          state->finish_if_done();
        }(self, std::move(result)),
        asio::detached);
  }
  finish_if_done();
}

asio::awaitable<void> LoadClient::State::run_client() {
  const auto self = shared_from_this();
  while (auto item = next()) {
    LoadResult result = begin_result(*item);
    result.due = now();
    co_await perform(result);
    end_result(std::move(result));
  }
  finish_if_done();
}

asio::awaitable<void> LoadClient::State::perform(LoadResult& result) {
  result.sent = now();
  if (!failed_lookup.empty()) {
    result.error = failed_lookup;
    co_return;
  }
  beast::tcp_stream stream(loop.context());
  running.insert(&stream);
  stream.expires_after(std::chrono::nanoseconds(options.timeout.value));
  result.error = co_await exchange(result, stream);
  if (stopped && !result.error.empty()) result.error = "stopped";
  running.erase(&stream);
}

// One request and its answer; the sentence of what went wrong, or nothing.
asio::awaitable<std::string> LoadClient::State::exchange(LoadResult& result,
                                                         beast::tcp_stream& stream) {
  error_code ec;
  co_await stream.async_connect(addresses, await_into(ec));
  if (ec) co_return "cannot connect: " + ec.message();
  http::request<http::string_body> request(
      http::verb::post,
      options.target.path + (options.chat ? "/chat/completions" : "/completions"), 11);
  request.set(http::field::host, options.target.host);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::connection, "close");
  if (!options.api_key.empty()) {
    request.set(http::field::authorization, "Bearer " + options.api_key);
  }
  request.body() = body_of(result);
  request.prepare_payload();
  co_await http::async_write(stream, request, await_into(ec));
  if (ec) co_return "cannot send: " + ec.message();
  co_return co_await read_events(result, stream);
}

asio::awaitable<std::string> LoadClient::State::read_events(LoadResult& result,
                                                            beast::tcp_stream& stream) {
  error_code ec;
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(boost::none);
  co_await http::async_read_header(stream, buffer, parser, await_into(ec));
  if (ec) co_return "no answer: " + ec.message();
  result.status = static_cast<int>(parser.get().result_int());
  EventReader events;
  std::string refusal, in_stream_error;
  bool complete = false;
  int32_t pieces = 0;
  const auto take = [&](std::string_view payload) {
    if (payload == "[DONE]") {
      complete = true;
    } else if (brings_text(payload)) {
      const double at = now();
      if (result.first < 0) {
        result.first = at;
      } else {
        result.gaps.push_back(static_cast<float>(at - result.last));
      }
      result.last = at;
      ++pieces;
    }
    const bool counts = payload.find("\"usage\":{") != std::string_view::npos;
    if (!counts && payload.find("\"error\":{") == std::string_view::npos) return;
    const auto json = parse_json(payload, "event");
    if (!json) return;
    if ((*json)["error"].is_object()) in_stream_error = (*json)["error"]["message"].as_string();
    if (counts) {
      result.input = static_cast<int32_t>((*json)["usage"]["prompt_tokens"].as_int());
      result.output = static_cast<int32_t>((*json)["usage"]["completion_tokens"].as_int());
    }
  };
  while (!parser.is_done()) {
    co_await http::async_read_some(stream, buffer, parser, await_into(ec));
    std::string& body = parser.get().body();
    if (result.status == 200) {
      events.feed(body, take);
    } else if (refusal.size() < kQuotedBytes) {
      refusal += body.substr(0, kQuotedBytes - refusal.size());
    }
    body.clear();
    if (ec) break;
    if (events.held() > kLongestEvent) co_return "an event of more than 16 MiB";
  }
  if (result.output == 0) result.output = pieces;
  if (result.status != 200) co_return format("HTTP {}: {}", result.status, refusal);
  if (!in_stream_error.empty()) co_return in_stream_error;
  if (!complete) co_return "the stream ended before [DONE]" + (ec ? ": " + ec.message() : "");
  if (result.first < 0) result.first = result.last = now();  // answered without any text
  co_return "";
}

LoadClient::LoadClient(Loop& loop, LoadOptions options, Source source, Sink sink)
    : state_(std::make_shared<State>(loop, std::move(options), std::move(source),
                                     std::move(sink))) {}

LoadClient::~LoadClient() = default;

void LoadClient::start(std::function<void()> done) {
  state_->done = std::move(done);
  asio::co_spawn(
      state_->loop.context(),
      [](std::shared_ptr<State> state) -> asio::awaitable<void> {
        co_await state->look_up();
        state->begun = state->loop.now();
        if (state->options.clients == 0) {
          co_await state->run_open();
          co_return;
        }
        for (int32_t i = 0; i < state->options.clients; ++i) {
          asio::co_spawn(state->loop.context(), state->run_client(), asio::detached);
        }
      }(state_),
      asio::detached);
}

void LoadClient::stop() {
  state_->stopped = true;
  state_->timer.cancel();
  for (beast::tcp_stream* stream : state_->running) stream->cancel();
}

int64_t LoadClient::sent() const { return state_->sent; }
int64_t LoadClient::in_flight() const { return state_->in_flight; }
int64_t LoadClient::most_in_flight() const { return state_->most; }

namespace {

asio::awaitable<Result<std::string>> get_models(Loop& loop, const LoadOptions& options) {
  const LoadTarget& target = options.target;
  const auto fault = [&](std::string_view why) -> Error {
    return errorf(Code::kUnavailable, "http://{}:{}{}/models: {}; is the server running?",
                  target.host, target.port, target.path, why);
  };
  error_code ec;
  tcp::resolver resolver(loop.context());
  const auto addresses =
      co_await resolver.async_resolve(target.host, target.port, await_into(ec));
  if (ec) co_return fault(ec.message());
  beast::tcp_stream stream(loop.context());
  stream.expires_after(std::chrono::seconds(10));
  co_await stream.async_connect(addresses, await_into(ec));
  if (ec) co_return fault(ec.message());
  http::request<http::string_body> request(http::verb::get, target.path + "/models", 11);
  request.set(http::field::host, target.host);
  if (!options.api_key.empty()) {
    request.set(http::field::authorization, "Bearer " + options.api_key);
  }
  co_await http::async_write(stream, request, await_into(ec));
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(1 << 20);
  if (!ec) co_await http::async_read(stream, buffer, parser, await_into(ec));
  if (ec) co_return fault(ec.message());
  if (parser.get().result_int() != 200) {
    co_return fault(format("HTTP {}: {}", parser.get().result_int(),
                           parser.get().body().substr(0, kQuotedBytes)));
  }
  const auto json = parse_json(parser.get().body(), "models");
  if (!json || !(*json)["data"].is_array() || (*json)["data"].size() == 0) {
    co_return fault("the answer lists no model");
  }
  co_return (*json)["data"][0]["id"].as_string();
}

}  // namespace

Result<std::string> LoadClient::first_model(Loop& loop, const LoadOptions& options) {
  Result<std::string> model = Error(Code::kInternal, "not asked");
  asio::co_spawn(
      loop.context(),
      [&]() -> asio::awaitable<void> {
        model = co_await get_models(loop, options);
        loop.stop();
      },
      asio::detached);
  loop.run();
  return model;
}

}  // namespace towline::serve
