// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ApiServer: the front door. Routes, keys, admission, draining, the request log and metrics over an
// HttpServer; docs/api.md is its manual.
//
//   Loop loop;
//   GenerationHub hub(loop);
//   auto generator = ...(hub.sink());
//   hub.attach(generator.get());
//   ASSIGN_OR_RETURN(auto server, ApiServer::start(loop, hub, text, options));
//   loop.on_signal(SIGTERM, [&] { server->drain(); });
//   loop.run();              // returns after drain() or stop_now()
//
// Loop thread, or before the loop runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/loop.hpp"
#include "base/result.hpp"
#include "serve/api_request.hpp"
#include "serve/generation_hub.hpp"
#include "serve/http_server.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

struct ApiServerOptions {
  HttpServerOptions http;
  std::string model_name;             // as clients name it
  bool lora_updates = false;          // clients may load adapters from this machine's disk
  std::vector<std::string> api_keys;  // none: open to all
  std::string cors_origin;            // "*" or one origin; empty: no CORS headers
  int max_sequences = 32;             // that the generator runs at once
  int max_queue = 256;                // sequences waiting beyond these; more: 429
  bool strict_fields = false;         // refuse unknown fields
  Duration drain_deadline = seconds(30);  // then requests still running are cut off
  Duration drain_delay{};             // keep answering 503 this long, so that probes notice
};

class ApiServer {
 public:
  static Result<std::unique_ptr<ApiServer>> start(Loop& loop, GenerationHub& hub,
                                                  const TextModel& text, ApiServerOptions options);
  ~ApiServer();

  std::string url() const;
  int port() const;
  const HttpServerStats& http_stats() const;

  // Readiness turns false, new work gets 503, requests running are finished, then the loop is
  // stopped; after the deadline they are cut off. Called again: stop_now().
  void drain();
  void stop_now();

  struct State;

 private:
  explicit ApiServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One key a line; blank lines and lines that begin with '#' are skipped.
Result<std::vector<std::string>> read_key_file(const std::string& path);

}  // namespace towline::serve
