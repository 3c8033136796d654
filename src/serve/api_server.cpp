// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/api_server.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <random>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/log.hpp"
#include "base/rng.hpp"
#include "serve/answer_json.hpp"
#include "serve/api_context.hpp"
#include "serve/api_error.hpp"
#include "serve/routes.hpp"
#include "serve/session.hpp"

#ifndef TOWLINE_VERSION
#define TOWLINE_VERSION "0.1.0"
#endif

namespace towline::serve {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;

ApiError plain_error(int status, std::string type, std::string code, std::string message) {
  ApiError error;
  error.status = status;
  error.type = std::move(type);
  error.code = std::move(code);
  error.message = std::move(message);
  return error;
}

HttpResponse json_response(const Json& body) {
  HttpResponse response;
  response.body = body.dump();
  return response;
}

HttpResponse text_response(std::string body, std::string content_type) {
  HttpResponse response;
  response.content_type = std::move(content_type);
  response.body = std::move(body);
  return response;
}

// Takes the same time wherever the first difference is.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0u : 1u;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^
                  static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  }
  return difference == 0;
}

// An id that a client may choose: short and printable, or it could forge log lines and headers.
bool acceptable_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

bool is_json_type(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  std::string lower(type);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  while (lower.ends_with(' ')) lower.pop_back();
  return lower == "application/json" || lower.ends_with("+json");
}

HttpResponse bad_request(int status, const std::string& why) {
  ApiError error = plain_error(status, status >= 500 ? "server_error" : "invalid_request_error",
                               "bad_http_request", why);
  if (status == 503) error.retry_after = 1;
  return error_response(error);
}

}  // namespace

struct ApiServer::State {
  State(Loop& l, GenerationHub& hub, const TextModel& text, ApiServerOptions o)
      : loop(l), options(std::move(o)), metrics(options.model_name),
        context{l, hub, text, metrics, {}, options.model_name, {}, 0, 0, 1},
        id_key(std::random_device{}() | uint64_t{std::random_device{}()} << 32) {
    context.limits.vocab_size = text.vocab_size();
    context.limits.strict_fields = options.strict_fields;
    context.max_live = options.max_sequences + options.max_queue;
    context.window = std::max(1, options.max_sequences);
    context.created = unix_now();
    context.fingerprint = format("towline-{}", TOWLINE_VERSION);
  }

  void handle(Exchange exchange);
  void answer(const Exchange& exchange, const RouteMatch& match, const std::string& request_id);
  void with_body(const Exchange& exchange, const Route& route,
                 std::shared_ptr<SessionReport> report);
  void change_adapters(const Exchange& exchange, bool load);
  void call_nodes(const Exchange& exchange, const std::string& method);
  void tokenize(const Exchange& exchange, const ApiRequest& request);
  void detokenize(const Exchange& exchange, const ApiRequest& request);
  void preflight(const Exchange& exchange);
  void remember(const std::string& id, std::shared_ptr<SessionReport> report);
  void explain(const Exchange& exchange, const std::string& asked);
  HttpResponse cluster_response() const;
  ApiCheck authorize(const HttpRequest& request) const;
  ApiCheck check_model(std::string_view name) const;
  bool is_adapter(std::string_view name) const;
  Json model_json() const;
  Json adapter_json(std::string_view name) const;
  Json models_json() const;
  std::string make_id(std::string_view prefix);
  void log_request(const Exchange& exchange, std::string_view route, const std::string& request_id,
                   Instant arrival, SessionReport& report);
  void finish_drain();

  Loop& loop;
  const ApiServerOptions options;
  ServeMetrics metrics;
  ApiContext context;
  std::unique_ptr<HttpServer> http;
  const uint64_t id_key;
  uint64_t id_count = 0;
  int64_t requests_open = 0;
  std::map<std::string, std::shared_ptr<SessionReport>> recent;  // by the answer's id
  std::deque<std::string> recent_order;
  std::map<std::string, std::string> answer_of;  // the answer's id, by the x-request-id
  bool draining = false, drain_delay_over = false;
};

std::string ApiServer::State::make_id(std::string_view prefix) {
  const uint64_t n = ++id_count;
  return format("{}{:016x}{:08x}", prefix, random_at(id_key, n),
                static_cast<uint32_t>(random_at(id_key + 1, n)));
}

void ApiServer::State::handle(Exchange exchange) {
  const HttpRequest& request = exchange->request();
  const std::string_view given = request.header("x-request-id");
  const std::string request_id = acceptable_id(given) ? std::string(given) : make_id("req-");
  const RouteMatch match = find_route(request.method, request.path);
  exchange->add_header("x-request-id", request_id);
  if (!options.cors_origin.empty()) {
    exchange->add_header("access-control-allow-origin", options.cors_origin);
    exchange->add_header("access-control-expose-headers", "x-request-id, retry-after");
  }
  ++requests_open;
  answer(exchange, match, request_id);
}

void ApiServer::State::answer(const Exchange& exchange, const RouteMatch& match,
                              const std::string& request_id) {
  const HttpRequest& request = exchange->request();
  const Instant arrival = loop.now();
  const std::string route(match.route ? match.route->path : "unknown");
  const auto report = std::make_shared<SessionReport>();
  report->request_id = request_id;
  exchange->on_done([this, route, request_id, arrival, report,
                     weak = std::weak_ptr<HttpExchange>(exchange)] {
    --requests_open;
    if (const Exchange done = weak.lock()) log_request(done, route, request_id, arrival, *report);
    finish_drain();
  });
  if (request.method == "OPTIONS" && !options.cors_origin.empty()) return preflight(exchange);
  const bool probe = match.route && match.route->probe;
  if (!probe) {
    if (auto error = authorize(request)) return exchange->respond(error_response(*error));
  }
  if (match.route == nullptr) {
    return exchange->respond(error_response(plain_error(
        404, "not_found_error", "not_found",
        format("there is no {} {}; /openapi.json lists the routes", request.method,
               request.path.substr(0, 256)))));
  }
  if (match.wrong_method) {
    HttpResponse response = error_response(plain_error(
        405, "invalid_request_error", "method_not_allowed",
        format("{} takes {}, not {}", match.route->path, match.route->method, request.method)));
    response.headers.emplace_back("allow", std::string(match.route->method));
    return exchange->respond(std::move(response));
  }
  if (match.route->id == RouteId::kModel && is_adapter(match.rest)) {
    return exchange->respond(json_response(adapter_json(match.rest)));
  }
  switch (match.route->id) {
    case RouteId::kHealth: return exchange->respond(text_response("", "text/plain"));
    case RouteId::kLive:
      return exchange->respond(json_response(Json::object({{"status", "live"}})));
    case RouteId::kReady: {
      const bool ready = context.hub.generator().ready();
      const bool asleep = context.hub.generator().asleep();
      HttpResponse response = json_response(Json::object(
          {{"status", draining ? "draining"
                      : ready  ? "ready"
                      : asleep ? "asleep"
                               : "waiting for nodes"}}));
      if (draining || !ready) {
        response.status = 503;
        response.headers.emplace_back("retry-after", "5");
      }
      return exchange->respond(std::move(response));
    }
    case RouteId::kModels:
      return exchange->respond(json_response(models_json()));
    case RouteId::kModel:
      if (auto error = check_model(match.rest)) return exchange->respond(error_response(*error));
      return exchange->respond(json_response(model_json()));
    case RouteId::kRequest: return explain(exchange, std::string(match.rest));
    case RouteId::kCluster: return exchange->respond(cluster_response());
    case RouteId::kDrainNode: {
      const std::string node(match.rest);
      if (const auto drained = context.hub.generator().drain_node(node); !drained) {
        return exchange->respond(error_response(from_error(drained.error())));
      }
      return exchange->respond(json_response(Json::object({{"node", node}, {"draining", true}})));
    }
    case RouteId::kCallNodes: return call_nodes(exchange, std::string(match.rest));
    case RouteId::kVersion:
      return exchange->respond(json_response(Json::object({{"version", TOWLINE_VERSION}})));
    case RouteId::kMetrics:
      return exchange->respond(
          text_response(metrics.text(context.hub.generator().stats(), http->stats(), draining),
                        "text/plain; version=0.0.4; charset=utf-8"));
    case RouteId::kOpenApi:
      return exchange->respond(json_response(openapi_document(TOWLINE_VERSION)));
    case RouteId::kLoadAdapter: return change_adapters(exchange, true);
    case RouteId::kUnloadAdapter: return change_adapters(exchange, false);
    case RouteId::kChat:
    case RouteId::kCompletions:
    case RouteId::kEmbeddings:
    case RouteId::kTokenize:
    case RouteId::kDetokenize: return with_body(exchange, *match.route, report);
  }
}

void ApiServer::State::with_body(const Exchange& exchange, const Route& route,
                                 std::shared_ptr<SessionReport> report) {
  const HttpRequest& http_request = exchange->request();
  const auto refuse = [&](const ApiError& error) { exchange->respond(error_response(error)); };
  if (draining) {
    ApiError error = plain_error(503, "service_unavailable_error", "draining",
                                 "the server is shutting down; ask another one or try again later");
    error.retry_after = 5;
    return refuse(error);
  }
  if (!is_json_type(http_request.header("content-type"))) {
    return refuse(plain_error(
        415, "invalid_request_error", "unsupported_media_type",
        format("the body must be sent with 'content-type: application/json', not '{}'",
               http_request.header("content-type").substr(0, 100))));
  }
  const Result<Json> body = parse_json(http_request.body, "request body");
  if (!body) {
    ApiError error = from_error(body.error());
    error.code = "invalid_json";
    return refuse(error);
  }
  ApiRequest request;
  if (auto error = parse_api_request(*route.body, *body, context.limits, request)) {
    return refuse(*error);
  }
  if (!request.model.empty()) {
    if (auto error = check_model(request.model)) return refuse(*error);
  }
  switch (*route.body) {
    case ApiKind::kChat:
    case ApiKind::kCompletion: {
      std::string id = make_id(*route.body == ApiKind::kChat ? "chatcmpl-" : "cmpl-");
      remember(id, report);
      return start_completion(context, exchange, std::move(request), std::move(id),
                              std::move(report));
    }
    case ApiKind::kEmbedding:
      remember(make_id("embd-"), report);
      return start_embedding(context, exchange, std::move(request), std::move(report));
    case ApiKind::kTokenize: return tokenize(exchange, request);
    case ApiKind::kDetokenize: return detokenize(exchange, request);
  }
}

void ApiServer::State::remember(const std::string& id, std::shared_ptr<SessionReport> report) {
  constexpr size_t kRemembered = 512;
  answer_of[report->request_id] = id;  // of several with one x-request-id the last
  recent[id] = std::move(report);
  recent_order.push_back(id);
  if (recent_order.size() <= kRemembered) return;
  const auto oldest = recent.extract(recent_order.front());
  const auto alias = answer_of.find(oldest.mapped()->request_id);
  if (alias != answer_of.end() && alias->second == oldest.key()) answer_of.erase(alias);
  recent_order.pop_front();
}

void ApiServer::State::explain(const Exchange& exchange, const std::string& asked) {
  const auto alias = answer_of.find(asked);
  // An answer's own id is not a client's to take.
  const bool aliased = alias != answer_of.end() && !recent.contains(asked);
  const std::string id = aliased ? alias->second : asked;
  const auto at = recent.find(id);
  if (at == recent.end()) {
    return exchange->respond(error_response(plain_error(
        404, "not_found_error", "request_not_found",
        format("no recent answer has the id '{}'; the last few hundred are kept",
               id.substr(0, 128)))));
  }
  Json sequences = Json::array();
  for (const RequestId sequence : at->second->sequences) {
    Json way = context.hub.generator().explain(sequence);
    if (!way.is_null()) sequences.push(std::move(way));  // one process has no ways
  }
  const int status = at->second->status;
  const std::string& why = at->second->error;
  exchange->respond(
      json_response(Json::object({{"id", id},
                                  {"request_id", at->second->request_id},
                                  {"status", status == 0 ? Json() : Json(int64_t{status})},
                                  {"error", why.empty() ? Json() : Json(why)},
                                  {"prompt_tokens", at->second->prompt_tokens},
                                  {"completion_tokens", at->second->completion_tokens},
                                  {"cached_tokens", at->second->cached_tokens},
                                  {"sequences", std::move(sequences)}})));
}

HttpResponse ApiServer::State::cluster_response() const {
  const Result<Json> status = context.hub.generator().status();
  if (!status) return error_response(from_error(status.error()));
  if (status->is_null()) {
    return error_response(plain_error(404, "not_found_error", "no_cluster",
                                      "this server is one process, not a cluster"));
  }
  return json_response(*status);
}

void ApiServer::State::tokenize(const Exchange& exchange, const ApiRequest& request) {
  // Any length that fits a context many times over may be counted.
  constexpr int32_t kMost = 1 << 28;
  std::vector<int32_t> tokens;
  if (request.prompts.empty()) {
    if (auto error = encode_chat(context, request, kMost, tokens)) {
      return exchange->respond(error_response(*error));
    }
  } else if (const auto* text = std::get_if<std::string>(&request.prompts[0])) {
    // Tokenizing more would hold up the loop.
    constexpr size_t kMostBytes = 1 << 20;
    if (text->size() > kMostBytes) {
      return exchange->respond(error_response(invalid_field(
          "prompt", format("prompt has {} bytes; at most {} can be tokenized at once", text->size(),
                           kMostBytes))));
    }
    Result<std::vector<int32_t>> encoded =
        context.text.encode(*text, request.add_special_tokens, true);
    if (!encoded) return exchange->respond(error_response(from_error(encoded.error())));
    tokens = std::move(*encoded);
  } else {
    tokens = std::get<std::vector<int32_t>>(request.prompts[0]);
  }
  Json ids = Json::array(), strings;
  for (const int32_t token : tokens) {
    ids.push(token);
    if (request.return_token_strs) strings.push(std::string(context.text.piece(token)));
  }
  exchange->respond(json_response(
      Json::object({{"count", tokens.size()},
                    {"max_model_len", context.hub.generator().max_context()},
                    {"tokens", std::move(ids)},
                    {"token_strs", std::move(strings)}})));
}

void ApiServer::State::detokenize(const Exchange& exchange, const ApiRequest& request) {
  const auto& tokens = std::get<std::vector<int32_t>>(request.prompts[0]);
  exchange->respond(json_response(Json::object({{"prompt", context.text.decode(tokens)}})));
}

// Names and paths as in vLLM's API, so that its clients work.
void ApiServer::State::change_adapters(const Exchange& exchange, bool load) {
  const auto refuse = [&](const ApiError& error) { exchange->respond(error_response(error)); };
  if (!options.lora_updates) {
    return refuse(plain_error(403, "permission_error", "forbidden",
                              "this server does not take adapters; start it with --lora-updates"));
  }
  const Result<Json> body = parse_json(exchange->request().body, "request body");
  if (!body) return refuse(from_error(body.error()));
  const std::string name = (*body)["lora_name"].as_string();
  const std::string path = (*body)["lora_path"].as_string();
  if (name.empty() || name.size() > 256 || (load && path.empty())) {
    return refuse(invalid_field(name.empty() || name.size() > 256 ? "lora_name" : "lora_path",
                                "lora_name (up to 256 bytes) and, to load, lora_path are needed"));
  }
  if (name == options.model_name) {
    return refuse(invalid_field("lora_name", "that is the model's own name"));
  }
  Generator& generator = context.hub.generator();
  if (!load) {
    const Result<void> unloaded = generator.unload_adapter(name);
    if (!unloaded) return refuse(from_error(unloaded.error()));
    return exchange->respond(text_response("adapter unloaded\n", "text/plain"));
  }
  const Result<void> begun =
      generator.load_adapter(name, path, [&to = loop, exchange](Result<void> loaded) {
        const auto result = std::make_shared<Result<void>>(std::move(loaded));
        to.post([exchange, result] {
          exchange->respond(*result ? text_response("adapter loaded\n", "text/plain")
                                    : error_response(from_error(result->error())));
        });
      });
  if (!begun) refuse(from_error(begun.error()));
}

void ApiServer::State::call_nodes(const Exchange& exchange, const std::string& method) {
  const std::string& text = exchange->request().body;
  const Result<Json> args = parse_json(text.empty() ? "{}" : text, "request body");
  if (!args) return exchange->respond(error_response(from_error(args.error())));
  const Result<void> begun =
      context.hub.generator().call(method, *args, [&to = loop, exchange](Result<Json> answer) {
        const auto result = std::make_shared<Result<Json>>(std::move(answer));
        to.post([exchange, result] {
          exchange->respond(*result ? json_response(std::move(**result))
                                    : error_response(from_error(result->error())));
        });
      });
  if (!begun) exchange->respond(error_response(from_error(begun.error())));
}

void ApiServer::State::preflight(const Exchange& exchange) {
  HttpResponse response;
  response.status = 204;
  response.content_type.clear();
  response.headers = {{"access-control-allow-methods", "GET, POST, OPTIONS"},
                      {"access-control-allow-headers", "*, authorization"},
                      {"access-control-max-age", "86400"}};
  exchange->respond(std::move(response));
}

ApiCheck ApiServer::State::authorize(const HttpRequest& request) const {
  if (options.api_keys.empty()) return std::nullopt;
  std::string_view key = request.header("authorization");
  if (key.size() > 7 && (key.starts_with("Bearer ") || key.starts_with("bearer "))) {
    key.remove_prefix(7);
  } else {
    key = request.header("x-api-key");
  }
  bool known = false;
  for (const std::string& valid : options.api_keys) known |= same_secret(key, valid);
  if (known && !key.empty()) return std::nullopt;
  return plain_error(401, "authentication_error", "invalid_api_key",
                     key.empty() ? "an API key is required: 'authorization: Bearer KEY' or "
                                   "'x-api-key: KEY'"
                                 : "the API key is not one of this server's");
}

ApiCheck ApiServer::State::check_model(std::string_view name) const {
  if (name == options.model_name || is_adapter(name)) return std::nullopt;
  ApiError error = plain_error(404, "not_found_error", "model_not_found",
                               format("the model '{}' is not served here; this server has '{}'",
                                      name.substr(0, 256), options.model_name));
  error.param = "model";
  return error;
}

bool ApiServer::State::is_adapter(std::string_view name) const {
  const std::vector<std::string> names = context.hub.generator().adapters();
  return std::ranges::find(names, name) != names.end();
}

Json ApiServer::State::model_json() const {
  return Json::object({{"id", options.model_name},
                       {"object", "model"},
                       {"created", context.created},
                       {"owned_by", "towline"},
                       {"max_model_len", context.hub.generator().max_context()}});
}

Json ApiServer::State::adapter_json(std::string_view name) const {
  return model_json().set("id", name).set("parent", options.model_name);
}

Json ApiServer::State::models_json() const {
  Json list = Json::array({model_json()});
  for (const std::string& name : context.hub.generator().adapters()) list.push(adapter_json(name));
  return Json::object({{"object", "list"}, {"data", std::move(list)}});
}

void ApiServer::State::log_request(const Exchange& exchange, std::string_view route,
                                   const std::string& request_id, Instant arrival,
                                   SessionReport& report) {
  const HttpRequest& request = exchange->request();
  const bool complete = exchange->status() != 0 && !exchange->gone();
  // 499: the client left, as proxies log it.
  const int status = complete ? exchange->status() : 499;
  report.status = status;
  const RouteMatch match = find_route(request.method, request.path);
  // A label must not be the client's to invent.
  const bool known = match.route && !match.wrong_method;
  metrics.http_answer(std::string(route), known ? request.method : "other", status);
  // Probes and scrapes come every few seconds for ever.
  const bool routine = match.route && (match.route->probe || match.route->id == RouteId::kMetrics);
  const LogLevel level = routine ? LogLevel::kDebug : LogLevel::kInfo;
  log_line(level, "serve", "request",
           {{"request_id", request_id},
            {"method", request.method.substr(0, 16)},
            {"path", request.path.substr(0, 256)},
            {"status", status},
            {"ms", (loop.now() - arrival).value / 1'000'000},
            {"prompt_tokens", report.prompt_tokens},
            {"cached_tokens", report.cached_tokens},
            {"completion_tokens", report.completion_tokens},
            {"peer", request.peer}});
}

// When draining and nothing is left: stop.
void ApiServer::State::finish_drain() {
  if (!draining || !drain_delay_over || requests_open > 0) return;
  // A moment for the last bytes to leave.
  loop.after(milliseconds(50), [this] { loop.stop(); });
}

ApiServer::ApiServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ApiServer::~ApiServer() { state_->context.hub.on_step({}); }

Result<std::unique_ptr<ApiServer>> ApiServer::start(Loop& loop, GenerationHub& hub,
                                                    const TextModel& text,
                                                    ApiServerOptions options) {
  HttpServerOptions http = options.http;
  auto state = std::make_unique<State>(loop, hub, text, std::move(options));
  State* raw = state.get();
  hub.on_step([raw, &hub] {
    raw->metrics.step(static_cast<double>(hub.generator().stats().last_step_tokens));
  });
  ASSIGN_OR_RETURN(state->http,
                   HttpServer::start(loop, std::move(http),
                                     [raw](Exchange exchange) { raw->handle(std::move(exchange)); },
                                     bad_request));
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(state)));
}

std::string ApiServer::url() const { return state_->http->url(); }
int ApiServer::port() const { return state_->http->port(); }
const HttpServerStats& ApiServer::http_stats() const { return state_->http->stats(); }

void ApiServer::drain() {
  State& s = *state_;
  if (s.draining) return stop_now();
  s.draining = true;
  log_info("serve", "draining", {{"requests", s.requests_open},
                                 {"deadline_s", s.options.drain_deadline.value / 1'000'000'000}});
  s.loop.after(s.options.drain_delay, [&s] {
    s.drain_delay_over = true;
    s.http->drain();
    s.finish_drain();
  });
  s.loop.after(s.options.drain_deadline, [this] {
    log_warn("serve", "drain deadline passed", {{"requests", state_->requests_open}});
    stop_now();
  });
}

void ApiServer::stop_now() {
  State& s = *state_;
  s.context.hub.end_all(
      Error(Code::kUnavailable, "the server was stopped before this was finished"));
  // A moment for the last bytes to leave.
  s.loop.after(milliseconds(50), [&s] {
    s.http->close();
    s.loop.stop();
  });
}

Result<std::vector<std::string>> read_key_file(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, 1 << 20));
  std::vector<std::string> keys;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (!line.empty() && line.front() != '#') keys.emplace_back(line);
    at = end + 1;
  }
  if (keys.empty()) {
    return errorf(Code::kInvalidArgument, "'{}' holds no API key; write one a line", path);
  }
  return keys;
}

}  // namespace towline::serve
