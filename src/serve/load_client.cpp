// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/load_client.hpp"

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <set>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/printable.hpp"
#include "base/rng.hpp"
#include "serve/asio_names.hpp"
#include "serve/event_reader.hpp"
#include "serve/fetch.hpp"
#include "serve/http_stream.hpp"

namespace towline::serve {

namespace {

// Where the value of the first member of this name begins (the name in its quotes); npos: there is
// none.
// Quotes within strings are escaped, so that no text is taken for a name.
size_t value_of(std::string_view payload, std::string_view name) {
  const auto skip_blanks = [&](size_t at) {
    while (at < payload.size() && (payload[at] == ' ' || payload[at] == '\t')) ++at;
    return at;
  };
  size_t at = 0;
  while ((at = payload.find(name, at)) != std::string_view::npos) {
    at = skip_blanks(at + name.size());
    if (at >= payload.size() || payload[at] != ':') continue;  // a value that is called so
    at = skip_blanks(at + 1);
    return at < payload.size() ? at : std::string_view::npos;
  }
  return std::string_view::npos;
}

bool value_begins(std::string_view payload, std::string_view name, char with) {
  const size_t at = value_of(payload, name);
  return at != std::string_view::npos && payload[at] == with;
}

// True if the payload brings text of the answer, or of the thoughts before it: not empty and not null.
bool brings_text(std::string_view payload) {
  for (const std::string_view name :
       {"\"text\"", "\"content\"", "\"reasoning_content\"", "\"reasoning\""}) {
    const size_t at = value_of(payload, name);
    if (at != std::string_view::npos && payload.substr(at, 1) == "\"" &&
        payload.substr(at, 2) != "\"\"") {
      return true;
    }
  }
  return false;
}

constexpr size_t kLongestEvent = 16 << 20;
constexpr Duration kModelPatience = seconds(60);  // with the list of models
constexpr size_t kQuotedBytes = 300;  // of what a server said, in our sentence
constexpr int32_t kMostPieces = 1 << 20;  // of one answer: each leaves a gap that is kept
constexpr int64_t kMostTokens = 1'000'000'000;  // a server that counts more counts something else

std::string quoted(std::string_view text) { return printable(text.substr(0, kQuotedBytes)); }

// What has come of one answer.
struct Answer {
  bool complete = false;  // [DONE] came
  int64_t events = 0;
  int32_t pieces = 0;  // of text
  int32_t input = -1, output = -1;  // the server's counts; -1: none came
  std::string fault;  // what the server said went wrong, or what is wrong with what it says

  // Takes the payload of an event, which came at `now`.
  void take(std::string_view payload, double now, LoadResult& result);

 private:
  void take_piece(double now, LoadResult& result);
  void take_counts(const Json& usage);
};

void Answer::take(std::string_view payload, double now, LoadResult& result) {
  ++events;
  if (payload.empty()) return;
  if (payload == "[DONE]") {
    complete = true;
    return;
  }
  const bool text = brings_text(payload);
  if (text) take_piece(now, result);
  const bool counts = value_begins(payload, "\"usage\"", '{');
  const bool error =
      value_begins(payload, "\"error\"", '{') || value_begins(payload, "\"error\"", '"');
  if (text && !counts && !error) return;  // nearly all: the client shall cost little
  const auto json = parse_json(payload, "event");
  if (!json || !json->is_object()) {
    if (fault.empty()) fault = format("an event that is no JSON object: '{}'", quoted(payload));
    return;
  }
  if (const Json& said = (*json)["error"]; !said.is_null() && fault.empty()) {
    fault = quoted(said.is_object() ? said["message"].as_string() : said.as_string());
    if (fault.empty()) fault = format("an error: {}", quoted(payload));
  }
  take_counts((*json)["usage"]);
}

void Answer::take_piece(double now, LoadResult& result) {
  if (++pieces > kMostPieces) {
    if (fault.empty()) fault = format("an answer of more than {} pieces of text", kMostPieces);
    return;
  }
  if (result.first < 0) {
    result.first = now;
  } else {
    result.gaps.push_back(static_cast<float>(now - result.last));
  }
  result.last = now;
}

void Answer::take_counts(const Json& usage) {
  const auto take = [&usage](std::string_view name, int32_t& into) {
    const Json& count = usage[name];
    const int64_t tokens = count.as_int(-1);
    if (count.is_int() && tokens >= 0 && tokens <= kMostTokens) into = static_cast<int32_t>(tokens);
  };
  take("prompt_tokens", input);
  take("completion_tokens", output);
}

}  // namespace

struct LoadClient::State : std::enable_shared_from_this<State> {
  State(Loop& l, LoadOptions o, Source in, Sink out)
      : loop(l), options(std::move(o)), source(std::move(in)), sink(std::move(out)),
        timer(l.context()) {}

  Loop& loop;
  const LoadOptions options;
  Source source;
  Sink sink;
  std::function<void()> done;
  asio::steady_timer timer;
  Result<HostAddresses> addresses = Error(Code::kInternal, "not looked up");
  std::set<HttpStream*> running;
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
  asio::awaitable<std::string> exchange(LoadResult& result, HttpStream& stream);
  asio::awaitable<std::string> read_events(LoadResult& result, HttpStream& stream);
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
  if (!addresses) {
    result.error = addresses.error().message();
    co_return;
  }
  HttpStream stream(loop.context(), options.target);
  running.insert(&stream);
  stream.expires_after(options.timeout);
  result.error = co_await exchange(result, stream);
  if (stopped && !result.error.empty()) {
    result.error = "stopped";
    result.cut = true;
  }
  running.erase(&stream);
}

// One request and its answer; the sentence of what went wrong, or nothing.
asio::awaitable<std::string> LoadClient::State::exchange(LoadResult& result, HttpStream& stream) {
  Result<void> asked = co_await stream.open(*addresses);
  if (asked) {
    const std::string where = options.chat ? "/chat/completions" : "/completions";
    asked =
        co_await stream.send("POST", options.target.path + where, body_of(result), options.api_key);
  }
  if (!asked) co_return asked.error().message();
  co_return co_await read_events(result, stream);
}

asio::awaitable<std::string> LoadClient::State::read_events(LoadResult& result,
                                                            HttpStream& stream) {
  HttpStream::Parser parser;
  parser.body_limit(boost::none);
  Result<void> read = co_await stream.read_head(parser);
  if (!read) co_return read.error().message();
  result.status = static_cast<int>(parser.get().result_int());
  EventReader events;
  std::string refusal;
  Answer answer;
  const auto take = [&](std::string_view payload) { answer.take(payload, now(), result); };
  while (!parser.is_done() && answer.fault.empty()) {
    read = co_await stream.read_some(parser);
    std::string& body = parser.get().body();
    if (result.status == 200) {
      events.feed(body, take);
    } else if (refusal.size() < kQuotedBytes) {
      refusal += body.substr(0, kQuotedBytes - refusal.size());
    }
    body.clear();
    if (!read) break;
    if (events.held() > kLongestEvent) co_return "an event of more than 16 MiB";
  }
  result.output = answer.output > 0 ? answer.output : answer.pieces;
  if (result.status != 200) co_return format("HTTP {}: {}", result.status, quoted(refusal));
  if (!answer.fault.empty()) co_return answer.fault;
  if (!answer.complete) {
    if (!read) co_return "the stream ended before [DONE]: " + read.error().message();
    if (answer.events > 0) co_return "the stream ended before [DONE]";
    co_return format("answered, but not with a stream of events (its Content-Type is '{}')",
                     quoted(parser.get()["Content-Type"]));
  }
  result.input = answer.input >= 0 ? answer.input : result.wanted_input;
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
        state->addresses = co_await look_up(state->loop.context(), state->options.target);
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
  for (HttpStream* stream : state_->running) stream->cancel();
}

int64_t LoadClient::sent() const { return state_->sent; }
int64_t LoadClient::in_flight() const { return state_->in_flight; }
int64_t LoadClient::most_in_flight() const { return state_->most; }

Result<std::string> LoadClient::first_model(const ServerUrl& server, const std::string& api_key) {
  const std::string asked = format("{}{}/models", server.origin(), server.path);
  const auto reply = fetch(server, {.target = server.path + "/models", .body = {}, .api_key = api_key,
                                    .patience = kModelPatience});
  if (!reply) {
    return errorf(reply.error().code(), "{}: {}; is the server running?", asked,
                  reply.error().message());
  }
  if (reply->status != 200) {
    return errorf(reply->status == 401 ? Code::kPermissionDenied : Code::kUnavailable,
                  "{}: HTTP {}: {}{}", asked, reply->status, quoted(reply->body),
                  reply->status == 401 ? "" : "; say yourself which model is meant");
  }
  const auto json = parse_json(reply->body, "models");
  const std::string model = json ? (*json)["data"][0]["id"].as_string() : "";
  if (model.empty()) {
    return errorf(Code::kUnavailable,
                  "{}: the answer names no model: '{}'; say yourself which is meant", asked,
                  quoted(reply->body));
  }
  return model;
}

}  // namespace towline::serve
