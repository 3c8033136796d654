// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/http_stream.hpp"

#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <boost/asio/error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>

#include "base/fmt.hpp"
#include "serve/asio_names.hpp"

namespace towline::serve {

struct ClientTls {
  asio::ssl::context context{asio::ssl::context::tls_client};
};

Result<std::shared_ptr<ClientTls>> open_client_tls(const std::string& ca) {
  auto tls = std::make_shared<ClientTls>();
  error_code ec;
  tls->context.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv3 |
                               asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1,
                           ec);
  tls->context.set_verify_mode(asio::ssl::verify_peer, ec);
  if (ca.empty()) {
    tls->context.set_default_verify_paths(ec);
  } else if (tls->context.load_verify_file(ca, ec)) {
    return errorf(Code::kInvalidArgument, "--ca: '{}' is no file of certificates (PEM): {}", ca,
                  ec.message());
  }
  return tls;
}

asio::awaitable<Result<HostAddresses>> look_up(asio::io_context& context, const ServerUrl& url) {
  tcp::resolver resolver(context);
  error_code ec;
  HostAddresses found = co_await resolver.async_resolve(url.host, url.port, await_into(ec));
  if (ec) {
    co_return errorf(Code::kNotFound, "the host '{}' is not known: {}", url.host, ec.message());
  }
  co_return found;
}

HttpStream::HttpStream(asio::io_context& context, const ServerUrl& url)
    : url_(url), stream_(url.tls ? std::variant<Plain, Tls>(std::in_place_type<Tls>, context,
                                                            url.tls->context)
                                 : std::variant<Plain, Tls>(std::in_place_type<Plain>, context)) {}

HttpStream::Plain& HttpStream::lowest() {
  if (Tls* tls = std::get_if<Tls>(&stream_)) return beast::get_lowest_layer(*tls);
  return std::get<Plain>(stream_);
}

void HttpStream::expires_after(Duration patience) {
  const std::chrono::nanoseconds time(patience.value);
  deadline_ = std::chrono::steady_clock::now() + time;
  lowest().expires_after(time);
}

void HttpStream::cancel() { lowest().cancel(); }

Error HttpStream::fault(std::string_view what, const error_code& ec) const {
  if (ec == beast::error::timeout) return errorf(Code::kDeadline, "{}: not in time", what);
  return errorf(Code::kUnavailable, "{}: {}", what, ec.message());
}

asio::awaitable<Result<void>> HttpStream::open(const HostAddresses& addresses) {
  error_code ec;
  co_await lowest().async_connect(addresses, await_into(ec));
  if (ec) co_return fault("cannot connect", ec);
  if (std::holds_alternative<Tls>(stream_)) co_return co_await shake_hands();
  co_return Result<void>();
}

asio::awaitable<Result<void>> HttpStream::shake_hands() {
  Tls& tls = std::get<Tls>(stream_);
  SSL* ssl = tls.native_handle();
  error_code ec;
  asio::ip::make_address(url_.host, ec);
  const bool is_name = static_cast<bool>(ec);
  const bool set = is_name
                       ? SSL_set1_host(ssl, url_.host.c_str()) == 1 &&
                             SSL_set_tlsext_host_name(ssl, url_.host.c_str()) == 1
                       : X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), url_.host.c_str()) == 1;
  if (!set) {
    co_return errorf(Code::kInvalidArgument, "'{}' is no host that a certificate could name",
                     url_.host);
  }
  ec = {};
  co_await tls.async_handshake(asio::ssl::stream_base::client, await_into(ec));
  if (!ec) co_return Result<void>();
  if (const long verdict = SSL_get_verify_result(ssl); verdict != X509_V_OK) {
    co_return errorf(Code::kPermissionDenied,
                     "the server's certificate is not accepted: {} (--ca names a file of "
                     "certificates that vouch for it)",
                     X509_verify_cert_error_string(verdict));
  }
  Error error = fault("no TLS", ec);
  if (error.code() == Code::kDeadline) co_return error;
  co_return errorf(Code::kUnavailable, "{}; a server without TLS wants http://", error.message());
}

asio::awaitable<Result<void>> HttpStream::send(std::string_view method, std::string_view target,
                                               std::string body, const std::string& api_key) {
  Request request;
  request.version(11);
  request.method_string({method.data(), method.size()});
  request.target({target.data(), target.size()});
  request.set(http::field::host, url_.origin().substr(url_.tls ? 8 : 7));
  request.set(http::field::connection, "close");
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  if (!api_key.empty()) request.set(http::field::authorization, "Bearer " + api_key);
  request.body() = std::move(body);
  request.prepare_payload();
  error_code ec;
  if (Tls* tls = std::get_if<Tls>(&stream_)) {
    co_await http::async_write(*tls, request, await_into(ec));
  } else {
    co_await http::async_write(std::get<Plain>(stream_), request, await_into(ec));
  }
  if (ec) co_return fault("cannot send", ec);
  co_return Result<void>();
}

asio::awaitable<Result<void>> HttpStream::read_head(Parser& parser) {
  error_code ec;
  if (Tls* tls = std::get_if<Tls>(&stream_)) {
    co_await http::async_read_header(*tls, buffer_, parser, await_into(ec));
  } else {
    co_await http::async_read_header(std::get<Plain>(stream_), buffer_, parser, await_into(ec));
  }
  if (!ec) co_return Result<void>();
  Error error = fault("no answer", ec);
  const bool shut = ec == http::error::end_of_stream || ec == asio::error::connection_reset ||
                    ec == http::error::bad_version;
  if (!shut || url_.tls) co_return error;
  co_return errorf(error.code(), "{}; a server with TLS wants https://", error.message());
}

asio::awaitable<Result<void>> HttpStream::read_some(Parser& parser) {
  error_code ec;
  if (Tls* tls = std::get_if<Tls>(&stream_)) {
    co_await http::async_read_some(*tls, buffer_, parser, await_into(ec));
  } else {
    co_await http::async_read_some(std::get<Plain>(stream_), buffer_, parser, await_into(ec));
  }
  // Beast's timer is looked at while a read waits: a peer that always has something more is never late.
  if (!ec && !parser.is_done() && std::chrono::steady_clock::now() >= deadline_) {
    ec = beast::error::timeout;
  }
  if (ec) co_return fault("the answer broke off", ec);
  co_return Result<void>();
}

}  // namespace towline::serve
