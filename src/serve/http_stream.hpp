// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// HttpStream: the client's end of one connection, plain or TLS, and one request over it. What
// LoadClient, RemoteChat and fetch() are made of; no one else includes
// this (it brings Boost along).
//
// Over TLS (1.2 and later) the server's certificate must be vouched for and be of the host as the
// URL names it. Everything on the loop thread. Errors are sentences without the address: kDeadline,
// the time of expires_after() is over; kUnavailable, anything else that a network may do.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "base/units.hpp"
#include "serve/server_url.hpp"

namespace towline::serve {

// `ca`: a file of PEM certificates; empty: the system's. kInvalidArgument
// names a file that is none.
Result<std::shared_ptr<ClientTls>> open_client_tls(const std::string& ca);

using HostAddresses = boost::asio::ip::tcp::resolver::results_type;
// kNotFound: the host is not known.
boost::asio::awaitable<Result<HostAddresses>> look_up(boost::asio::io_context& context,
                                                      const ServerUrl& url);

class HttpStream {
 public:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  using Parser = boost::beast::http::response_parser<boost::beast::http::string_body>;

  // `url` outlives this.
  HttpStream(boost::asio::io_context& context, const ServerUrl& url);

  // All that is asked for from now on ends within `patience`.
  void expires_after(Duration patience);
  // What waits ends with an error, and so does the connection.
  void cancel();

  // Connects to the first address that answers; over TLS the handshake is done.
  boost::asio::awaitable<Result<void>> open(const HostAddresses& addresses);
  // `method` and `target` as HTTP writes them; a body is JSON. The connection is for one request.
  boost::asio::awaitable<Result<void>> send(std::string_view method, std::string_view target,
                                            std::string body, const std::string& api_key);
  boost::asio::awaitable<Result<void>> read_head(Parser& parser);
  // Some more of the body, which the parser holds also after an error.
  boost::asio::awaitable<Result<void>> read_some(Parser& parser);

 private:
  using Plain = boost::beast::tcp_stream;
  using Tls = boost::beast::ssl_stream<boost::beast::tcp_stream>;

  Plain& lowest();
  boost::asio::awaitable<Result<void>> shake_hands();
  Error fault(std::string_view what, const boost::system::error_code& ec) const;

  const ServerUrl& url_;
  std::variant<Plain, Tls> stream_;
  boost::beast::flat_buffer buffer_;
  std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::time_point::max();
};

}  // namespace towline::serve
