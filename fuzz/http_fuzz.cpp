// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes to the real HTTP server, over a real connection that then half-closes. The server must
// end the connection by itself; a byte 0xff in the input splits it into separate sends.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/log.hpp"
#include "serve/http_server.hpp"
#include "serve/test_client.hpp"

namespace {

using namespace towline;

struct Target {
  Loop loop;
  std::unique_ptr<serve::HttpServer> server;
  Target() {
    init_log({.level = LogLevel::kOff, .json = false});
    serve::HttpServerOptions options;
    options.max_header_bytes = 4096;
    options.max_body_bytes = 16384;
    const auto answer = [](std::shared_ptr<serve::HttpExchange> exchange) {
      if (exchange->request().header("x-stream").empty()) {
        serve::HttpResponse response;
        response.body = exchange->request().path + exchange->request().body;
        return exchange->respond(std::move(response));
      }
      exchange->begin_stream({});
      exchange->write(exchange->request().body);
      exchange->end_stream();
    };
    const auto refuse = [](int status, const std::string& why) {
      serve::HttpResponse response;
      response.status = status;
      response.body = why;
      return response;
    };
    auto started = serve::HttpServer::start(loop, options, answer, refuse);
    if (!started) {
      std::fputs(started.error().to_string().c_str(), stderr);
      std::abort();
    }
    server = std::move(*started);
  }
  // Runs the loop until the server has taken and ended `connections` in all.
  void run_until_quiet(int64_t connections) {
    loop.post([this, connections] {
      const auto& stats = server->stats();
      if (stats.accepted >= connections && stats.connections == 0) return loop.stop();
      loop.after(microseconds(20), [this, connections] { run_until_quiet(connections); });
    });
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Target target;
  static int64_t connections = 0;
  if (size > 65536) return 0;
  serve::Client client(target.server->port());
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  while (!rest.empty()) {
    const size_t cut = std::min(rest.find('\xff'), rest.size());
    client.send(rest.substr(0, cut));
    rest.remove_prefix(std::min(cut + 1, rest.size()));
  }
  client.half_close();
  target.run_until_quiet(++connections);
  target.loop.run();
  return 0;
}
