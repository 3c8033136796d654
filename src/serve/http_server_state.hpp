// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the two halves of HttpServer share: http_server.cpp listens, counts and sweeps,
// http_connection.cpp reads and answers. No one else includes this. Everything on the loop thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "net/log_budget.hpp"
#include "serve/http_server.hpp"

namespace towline::serve {

// A connection as the server sees it, whatever its stream.
class Connection : public HttpConnection {
 public:
  virtual void start() = 0;
  virtual void sweep(Instant now) = 0;
  virtual void forgive(Duration time) = 0;  // the server did not listen for so long
  virtual void drain() = 0;
  virtual void cut() = 0;  // closes at once; the exchange sees a disconnect
  virtual size_t unsent() const = 0;  // bytes of answers that the peer has not taken yet
  virtual void cut_slow_reader(std::string_view why) = 0;  // once the caller has returned
};

struct HttpServer::State : std::enable_shared_from_this<HttpServer::State> {
  State(Loop& l, HttpServerOptions o, HttpHandler h, BadRequest b)
      : loop(l), options(std::move(o)), handler(std::move(h)), bad_request(std::move(b)),
        acceptor(l.context()), accept_pause(l.context()) {}

  Result<void> listen();
  boost::asio::awaitable<void> accept_loop();
  void admit(boost::asio::ip::tcp::socket socket);
  void add(std::shared_ptr<Connection> connection);
  void remove(const std::shared_ptr<Connection>& connection);
  void arm_sweep();
  // Called when stats.unsent_bytes is over its limit: the reader furthest behind has to go.
  void cut_furthest_behind();

  Loop& loop;
  const HttpServerOptions options;
  const HttpHandler handler;
  const BadRequest bad_request;
  boost::asio::ip::tcp::acceptor acceptor;
  boost::asio::steady_timer accept_pause;
  net::LogBudget accept_log;
  std::optional<boost::asio::ssl::context> tls;
  std::set<std::shared_ptr<Connection>> connections;
  HttpServerStats stats;
  int64_t body_bytes = 0;  // reserved by requests being read or answered
  bool sweeping = false, draining = false, closed = false;
};

// The status line and the headers, but not the empty line that ends them.
void append_http_head(std::string& out, const HttpResponse& response, bool http10, bool close);

std::shared_ptr<Connection> make_connection(HttpServer::State& server,
                                            boost::asio::ip::tcp::socket socket);

}  // namespace towline::serve
