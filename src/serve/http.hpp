// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// HTTP as the API code sees it: a request, a response, and the exchange that joins them.
//
// An HttpExchange is handed to the handler once the whole request is read. The handler answers at
// once or later, whole (respond) or piece by piece (begin_stream, write, end_stream). Everything
// here belongs to the loop thread. After the peer has gone every call is a harmless no-op.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace towline::serve {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // upper case as sent
  std::string path;    // of the target, before '?'; not percent-decoded
  std::string query;   // after '?'
  HeaderList headers;
  std::string body;
  std::string peer;    // address of the client, for the log
  // The header's value, names compared without case; empty if absent. The first of several.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HeaderList headers;
  std::string body;
};

// What an exchange needs of its connection (http_server.cpp).
class HttpConnection {
 public:
  virtual ~HttpConnection() = default;
  virtual void send(HttpResponse response) = 0;
  virtual void begin_stream(const HttpResponse& head) = 0;
  virtual void write(std::string_view bytes) = 0;
  virtual void end_stream() = 0;
};

class HttpExchange {
 public:
  HttpExchange(HttpRequest request, std::weak_ptr<HttpConnection> connection)
      : request_(std::move(request)), connection_(std::move(connection)) {}

  const HttpRequest& request() const { return request_; }

  // Exactly one of respond() or begin_stream() ... end_stream().
  void respond(HttpResponse response);
  // Sends the head with `head.status` and headers; the body follows by write(). A stream of
  // content type text/event-stream gets a comment line whenever it was silent for a while.
  void begin_stream(HttpResponse head);
  void write(std::string_view bytes);
  void end_stream();

  bool started() const { return started_; }
  bool open() const { return !ended_ && !gone_; }  // an answer is still wanted
  bool gone() const { return gone_; }  // the peer left before the answer was complete
  int status() const { return status_; }  // 0 until started
  // Called at most once, when the peer goes away (or is cut off for not reading) before the
  // answer was complete.
  void on_disconnect(std::function<void()> task) { on_disconnect_ = std::move(task); }
  // Called when the answer has been handed over in full, or the peer has gone.
  void on_done(std::function<void()> task) { on_done_ = std::move(task); }
  // Headers added to whatever answer is given (x-request-id, CORS). Before respond/begin_stream.
  void add_header(std::string name, std::string value);

  // For the connection.
  void peer_gone();

 private:
  void finish();
  HttpRequest request_;
  std::weak_ptr<HttpConnection> connection_;
  HeaderList extra_headers_;
  std::function<void()> on_disconnect_, on_done_;
  int status_ = 0;
  bool started_ = false, ended_ = false, gone_ = false;
};

using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;

}  // namespace towline::serve
