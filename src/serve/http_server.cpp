// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/http_server.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <utility>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "serve/asio_names.hpp"
#include "serve/http_server_state.hpp"

namespace towline::serve {

namespace {

void raise_open_files(int max_connections) {
  const auto wanted = static_cast<rlim_t>(max_connections) + 256;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted) {
    log_warn("http", "the limit of open files is below what --max-connections needs",
             {{"limit", limit.rlim_cur}, {"wanted", wanted}});
  }
}

Result<asio::ssl::context> make_tls(const HttpServerOptions& options) {
  asio::ssl::context tls(asio::ssl::context::tls_server);
  error_code ec;
  tls.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv3 |
                      asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1,
                  ec);
  tls.use_certificate_chain_file(options.tls_cert, ec);
  if (ec) {
    return errorf(Code::kInvalidArgument, "cannot use '{}' as TLS certificate (PEM): {}",
                  options.tls_cert, ec.message());
  }
  tls.use_private_key_file(options.tls_key, asio::ssl::context::pem, ec);
  if (ec) {
    return errorf(Code::kInvalidArgument, "cannot use '{}' as TLS private key (PEM): {}",
                  options.tls_key, ec.message());
  }
  return tls;
}

constexpr Duration kHeldUp = seconds(1);  // a sweep that comes so late: our own process was stopped

}  // namespace

Result<void> HttpServer::State::listen() {
  error_code ec;
  tcp::resolver resolver(loop.context());
  const auto found = resolver.resolve(options.host, std::to_string(options.port),
                                      tcp::resolver::passive, ec);
  if (ec || found.empty()) {
    return errorf(Code::kInvalidArgument, "host '{}' is not an address of this machine: {}",
                  options.host, ec.message());
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec && options.send_buffer_bytes > 0) {  // its connections have what it has
    acceptor.set_option(asio::socket_base::send_buffer_size(options.send_buffer_bytes), ec);
  }
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(4096, ec);
  if (ec) {
    return errorf(Code::kIo, "cannot listen on {}:{}: {}; choose another --host or --port (0 "
                  "picks a free one)", options.host, options.port, ec.message());
  }
  return {};
}

asio::awaitable<void> HttpServer::State::accept_loop() {
  const auto self = shared_from_this();
  while (!closed) {
    error_code ec;
    tcp::socket socket(loop.context());
    co_await acceptor.async_accept(socket, await_into(ec));
    if (closed) co_return;
    if (ec) {
      // Out of file descriptors, mostly: wait for some to come back.
      if (accept_log.spend(net::steady_now())) {
        log_warn("http", "cannot accept a connection",
                 {{"why", ec.message()}, {"unwritten_before", accept_log.unwritten()}});
      }
      accept_pause.expires_after(std::chrono::milliseconds(100));
      co_await accept_pause.async_wait(await_into(ec));
      continue;
    }
    admit(std::move(socket));
  }
}

void HttpServer::State::admit(tcp::socket socket) {
  ++stats.accepted;
  if (static_cast<int>(connections.size()) >= options.max_connections) {
    ++stats.refused;
    if (!tls) {
      HttpResponse busy = bad_request(503, "too many connections are open; try again");
      std::string text;
      append_http_head(text, busy, false, true);
      text += format("retry-after: 1\r\ncontent-length: {}\r\n\r\n{}", busy.body.size(), busy.body);
      error_code ignored;
      socket.non_blocking(true, ignored);
      socket.write_some(asio::buffer(text), ignored);
    }
    return;
  }
  add(make_connection(*this, std::move(socket)));
}

void HttpServer::State::add(std::shared_ptr<Connection> connection) {
  connections.insert(connection);
  stats.connections = static_cast<int64_t>(connections.size());
  connection->start();
  arm_sweep();
}

void HttpServer::State::remove(const std::shared_ptr<Connection>& connection) {
  connections.erase(connection);
  stats.connections = static_cast<int64_t>(connections.size());
}

void HttpServer::State::cut_furthest_behind() {
  const auto furthest = std::max_element(
      connections.begin(), connections.end(),
      [](const auto& a, const auto& b) { return a->unsent() < b->unsent(); });
  if (furthest != connections.end()) {
    (*furthest)->cut_slow_reader("all readers together are further behind than they may be");
  }
}

void HttpServer::State::arm_sweep() {
  if (sweeping || closed) return;
  sweeping = true;
  const Instant due = loop.now() + options.sweep_interval;
  loop.after(options.sweep_interval, [self = shared_from_this(), due] {
    self->sweeping = false;
    // One reading of the clock for both: a stop of this process is not the clients' silence.
    const Instant now = self->loop.now();
    const auto all = self->connections;  // a sweep may remove some
    for (const auto& connection : all) {
      if (now - due > kHeldUp) connection->forgive(now - due);
      connection->sweep(now);
    }
    if (!self->connections.empty()) self->arm_sweep();
  });
}

HttpServer::HttpServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
HttpServer::~HttpServer() { close(); }

Result<std::unique_ptr<HttpServer>> HttpServer::start(Loop& loop, HttpServerOptions options,
                                                      HttpHandler handler,
                                                      BadRequest bad_request) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return Error(Code::kInvalidArgument, "TLS needs both --tls-cert and --tls-key");
  }
  raise_open_files(options.max_connections);
  auto state = std::make_shared<State>(loop, std::move(options), std::move(handler),
                                       std::move(bad_request));
  if (!state->options.tls_cert.empty()) {
    ASSIGN_OR_RETURN(state->tls, make_tls(state->options));
  }
  TRY(state->listen());
  asio::co_spawn(
      loop.context(), [state] { return state->accept_loop(); }, asio::detached);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

int HttpServer::port() const {
  error_code ec;
  return state_->acceptor.local_endpoint(ec).port();
}

std::string HttpServer::url() const {
  const std::string& host = state_->options.host;
  const bool v6 = host.find(':') != std::string::npos;
  return format("{}://{}{}{}:{}", state_->tls ? "https" : "http", v6 ? "[" : "", host,
                v6 ? "]" : "", port());
}

const HttpServerStats& HttpServer::stats() const { return state_->stats; }

void HttpServer::drain() {
  state_->draining = true;
  const auto all = state_->connections;
  for (const auto& connection : all) connection->drain();
}

void HttpServer::close() {
  if (state_->closed) return;
  state_->closed = true;
  error_code ignored;
  state_->acceptor.close(ignored);
  const auto all = state_->connections;
  for (const auto& connection : all) connection->cut();
}

}  // namespace towline::serve
