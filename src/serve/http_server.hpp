// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// HttpServer: HTTP/1.1 with keep-alive, pipelining, chunked streaming and TLS, on the loop thread.
//
// One coroutine reads each connection, always one request ahead, so that a peer that goes away is
// noticed while its answer is being made. Answers are written in the order of the requests.
//
// Everything a peer can make us hold is bounded: connections, header and body bytes of a request,
// body bytes over all connections, bytes read ahead, bytes waiting for a slow reader and for all of
// them, and the time for each of the phases (TLS handshake, waiting for a request, reading its
// body, a stalled write). Deadlines are checked by one sweep a second for all connections, and none
// is armed when there are no connections.
//
// Boost.Beast parses the requests (http_connection.cpp only: ten seconds to compile). Threading:
// every call on the loop thread, or before it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/loop.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "serve/http.hpp"

namespace towline::serve {

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // an address or a name
  int port = 0;                    // 0: the system picks one
  std::string tls_cert, tls_key;   // PEM files; both or neither
  int max_connections = 16384;
  int64_t max_header_bytes = 64 << 10;
  int64_t max_body_bytes = 8 << 20;
  int64_t max_body_bytes_total = 512 << 20;  // being read or answered, over all connections
  int64_t max_unsent_bytes = 1 << 20;        // of a stream; a reader further behind is cut off
  int64_t max_unsent_bytes_total = 256 << 20;  // of all; then the reader furthest behind is cut off
  // Of the kernel, for each connection (it keeps about twice this); 0: as much as it likes,
  // which is 4 MiB for a reader that does not read.
  int send_buffer_bytes = 256 << 10;
  Duration handshake_timeout = seconds(10);
  Duration idle_timeout = seconds(75);       // from one answer to the next request's header
  Duration body_timeout = seconds(60);
  Duration write_timeout = seconds(30);      // for a peer that is behind to take 4 KiB more
  Duration sse_comment_after = seconds(10);  // of silence
  Duration sweep_interval = seconds(1);
};

// Counts since the start, except `connections` and `unsent_bytes`, which are of now.
struct HttpServerStats {
  int64_t connections = 0;
  int64_t unsent_bytes = 0;       // of answers, not taken by their readers yet
  int64_t accepted = 0;
  int64_t refused = 0;            // over max_connections
  int64_t bad_requests = 0;       // not HTTP, or over a limit
  int64_t timed_out = 0;
  int64_t slow_readers_cut = 0;
};

class HttpServer {
 public:
  // `bad_request` makes the answer to what never became a request (status, sentence).
  using BadRequest = std::function<HttpResponse(int status, const std::string& why)>;

  // Binds and listens at once; requests come when the loop runs. Errors name the address and what
  // to do. Raises the process's limit of open files to what max_connections needs, if it may.
  static Result<std::unique_ptr<HttpServer>> start(Loop& loop, HttpServerOptions options,
                                                   HttpHandler handler, BadRequest bad_request);
  ~HttpServer();

  int port() const;
  std::string url() const;  // "http://127.0.0.1:8080"
  const HttpServerStats& stats() const;

  // Answers carry "connection: close" from now on, and connections between requests are closed.
  void drain();
  // Closes the listener and every connection; exchanges in flight see a disconnect.
  void close();

  struct State;  // shared with the connections; http_server_state.hpp

 private:
  explicit HttpServer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace towline::serve
