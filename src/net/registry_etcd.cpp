// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The etcd back end of net::Registry: one HTTP request on a connection of its own for each call, to
// the member that answered last, then to the others. Connections are not kept: a call every second
// or so does not pay for the states of a broken one. Over TLS the server's certificate must be of
// the host that was asked for. A login's token is kept until etcd does not know it any more.
#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "net/etcd_reply.hpp"
#include "net/etcd_url.hpp"

namespace towline::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using TlsStream = beast::ssl_stream<beast::tcp_stream>;

constexpr uint64_t kLongestAnswer = 16u << 20;
constexpr int64_t kLongestPassword = 4096;
constexpr Duration kLookUpAgain = seconds(30);  // at most so often, when a member does not answer

struct Member {
  std::string host, port;
  std::vector<tcp::endpoint> addresses;  // empty until looked up
  Instant looked_up{};                   // on steady_now()'s clock
  std::string name() const { return host + ":" + port; }
};

struct Answer {
  int status = 0;
  std::string body;
};

auto await_into(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

template <class Stream>
asio::awaitable<void> ask_over(Stream& stream, const http::request<http::string_body>& request,
                               error_code& ec, Answer& answer) {
  co_await http::async_write(stream, request, await_into(ec));
  if (ec) co_return;
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kLongestAnswer);
  co_await http::async_read(stream, buffer, parser, await_into(ec));
  if (ec) co_return;
  answer.status = static_cast<int>(parser.get().result_int());
  answer.body = std::move(parser.get().body());
}

// `tls`: may be null.
asio::awaitable<void> exchange(tcp::endpoint to, std::string host, asio::ssl::context* tls,
                               http::request<http::string_body> request, Duration patience,
                               error_code& ec, Answer& answer) {
  const auto longest = std::chrono::nanoseconds(patience.value);
  if (tls == nullptr) {
    beast::tcp_stream stream(co_await asio::this_coro::executor);
    stream.expires_after(longest);
    co_await stream.async_connect(to, await_into(ec));
    if (!ec) co_await ask_over(stream, request, ec, answer);
    co_return;
  }
  TlsStream stream(co_await asio::this_coro::executor, *tls);
  beast::get_lowest_layer(stream).expires_after(longest);
  co_await beast::get_lowest_layer(stream).async_connect(to, await_into(ec));
  if (ec) co_return;
  stream.set_verify_callback(asio::ssl::host_name_verification(host), ec);
  if (ec) co_return;
  error_code is_name;
  asio::ip::make_address(host, is_name);
  if (is_name) SSL_set_tlsext_host_name(stream.native_handle(), host.c_str());
  co_await stream.async_handshake(asio::ssl::stream_base::client, await_into(ec));
  if (!ec) co_await ask_over(stream, request, ec, answer);
}

Result<std::unique_ptr<asio::ssl::context>> make_tls(const EtcdUrl& url) {
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  error_code ec;
  const auto fault = [&](const std::string& file, std::string_view what) {
    return errorf(Code::kInvalidArgument, "registry: '{}' is no {} (PEM): {}", file, what,
                  ec.message());
  };
  tls->set_verify_mode(asio::ssl::verify_peer, ec);
  // A key that wants a passphrase is an error, not a question on the terminal.
  tls->set_password_callback(
      [](size_t, asio::ssl::context::password_purpose) { return std::string(); }, ec);
  if (url.ca.empty()) {
    tls->set_default_verify_paths(ec);
  } else if (tls->load_verify_file(url.ca, ec)) {
    return fault(url.ca, "file of certificates");
  }
  if (url.cert.empty()) return tls;
  if (tls->use_certificate_chain_file(url.cert, ec)) return fault(url.cert, "certificate");
  if (tls->use_private_key_file(url.key, asio::ssl::context::pem, ec)) {
    return fault(url.key, "private key of that certificate");
  }
  return tls;
}

// The first line.
Result<std::string> read_password(const std::string& path) {
  auto text = read_file(path, kLongestPassword);
  if (!text) return std::move(text).error().context("the registry's password");
  return text->substr(0, text->find_first_of("\r\n"));
}

class EtcdRegistry final : public Registry {
 public:
  EtcdRegistry(std::string url, const EtcdUrl& parts, std::string password,
               std::unique_ptr<asio::ssl::context> tls)
      : Registry(std::move(url)), prefix_(parts.prefix), user_(parts.user),
        password_(std::move(password)), tls_(std::move(tls)) {
    for (const EtcdUrl::Host& host : parts.hosts) {
      members_.push_back({host.name, host.port, {}, {}});
    }
  }

  Result<std::vector<RegistryEntry>> list(std::string_view prefix, Deadline deadline) override {
    ASSIGN_OR_RETURN(const std::string body,
                     call("kv/range", etcd_range_request(prefix_, prefix), deadline));
    return read_etcd_range(body, prefix_);
  }

  Result<bool> commit(const RegistryChange& change, Deadline deadline) override {
    TRY(check_change(change));
    ASSIGN_OR_RETURN(const std::string body,
                     call("kv/txn", etcd_txn_request(prefix_, change), deadline));
    return read_etcd_txn(body);
  }

  Result<Lease> grant(Duration time, Deadline deadline) override {
    ASSIGN_OR_RETURN(const std::string body,
                     call("lease/grant", etcd_grant_request(time), deadline));
    return read_etcd_grant(body);
  }

  Result<Lease> renew(LeaseId lease, Deadline deadline) override {
    ASSIGN_OR_RETURN(const std::string body,
                     call("lease/keepalive", etcd_lease_request(lease), deadline));
    return read_etcd_renewal(body);
  }

  Result<void> revoke(LeaseId lease, Deadline deadline) override {
    TRY(call("lease/revoke", etcd_lease_request(lease), deadline));
    return {};
  }

 private:
  // The body of an answer of status 200, asked for as the user, if there is one.
  Result<std::string> call(const std::string& path, const std::string& body, Deadline deadline) {
    if (user_.empty()) return call_any(path, body, deadline);
    const bool fresh = token_.empty();
    if (fresh) TRY(log_in(deadline));
    Result<std::string> answer = call_any(path, body, deadline);
    if (answer || fresh || answer.error().code() != Code::kPermissionDenied) return answer;
    TRY(log_in(deadline));  // the token has ended, maybe
    return call_any(path, body, deadline);
  }

  Result<void> log_in(Deadline deadline) {
    token_.clear();
    ASSIGN_OR_RETURN(const std::string body,
                     call_any("auth/authenticate", etcd_login_request(user_, password_), deadline));
    ASSIGN_OR_RETURN(token_, read_etcd_login(body));
    return {};
  }

  // Members that do not answer are passed over; each gets an equal share of the time that is left.
  Result<std::string> call_any(const std::string& path, const std::string& body,
                               Deadline deadline) {
    Error last(Code::kDeadline, "no time is left to ask the registry");
    for (size_t tried = 0; tried < members_.size(); ++tried) {
      const Duration left = deadline - steady_now();
      if (left.value <= 0) break;
      Member& member = members_[current_];
      Result<Answer> answer =
          ask(member, path, body, left / static_cast<int64_t>(members_.size() - tried));
      if (answer && answer->status == 200) return std::move(answer->body);
      last = answer ? etcd_error(answer->status, answer->body) : std::move(answer.error());
      std::move(last).context(format("registry {}", member.name()));
      // A refusal is the whole cluster's.
      const bool elsewhere = last.code() == Code::kUnavailable || last.code() == Code::kDeadline;
      if (!elsewhere) break;
      current_ = (current_ + 1) % members_.size();
    }
    return last;
  }

  Result<Answer> ask(Member& member, const std::string& path, const std::string& body,
                     Duration patience) {
    const Deadline deadline = deadline_in(patience);
    if (member.addresses.empty()) TRY(look_up(member));
    const bool is_old = steady_now() - member.looked_up > kLookUpAgain;
    http::request<http::string_body> request{http::verb::post, "/v3/" + path, 11};
    request.set(http::field::host, member.name());
    request.set(http::field::content_type, "application/json");
    request.set(http::field::connection, "close");
    if (!token_.empty()) request.set(http::field::authorization, token_);
    request.body() = body;
    request.prepare_payload();
    error_code ec;
    for (const tcp::endpoint& address : member.addresses) {
      ec = {};
      const Duration left = deadline - steady_now();
      if (left.value <= 0) {
        ec = beast::error::timeout;
        break;
      }
      Answer answer;
      try {  // Asio throws when the process has no descriptors left
        asio::io_context context(1);
        asio::co_spawn(context,
                       exchange(address, member.host, tls_.get(), request, left, ec, answer),
                       asio::detached);
        context.run();
      } catch (const boost::system::system_error& thrown) {
        ec = thrown.code();
      }
      if (!ec) return answer;
    }
    if (is_old) (void)look_up(member);  // it may have moved
    const Code code = ec == beast::error::timeout ? Code::kDeadline : Code::kUnavailable;
    return errorf(code, "no answer ({})", ec.message());
  }

  static Result<void> look_up(Member& member) {
    member.looked_up = steady_now();
    std::vector<tcp::endpoint> addresses;
    error_code ec;
    try {
      asio::io_context context(1);
      tcp::resolver resolver(context);
      for (const auto& found : resolver.resolve(member.host, member.port, ec)) {
        addresses.push_back(found.endpoint());
      }
    } catch (const boost::system::system_error& thrown) {
      ec = thrown.code();
    }
    if (!ec && !addresses.empty()) {
      member.addresses = std::move(addresses);
      return {};
    }
    return errorf(Code::kUnavailable, "host '{}' is not known ({})", member.host, ec.message());
  }

  std::vector<Member> members_;
  size_t current_ = 0;
  const std::string prefix_;  // ends with a slash
  const std::string user_, password_;
  const std::unique_ptr<asio::ssl::context> tls_;  // null: plain
  std::string token_;         // of the login
};

}  // namespace

Result<std::unique_ptr<Registry>> open_etcd_registry(const std::string& url) {
  ASSIGN_OR_RETURN(const EtcdUrl parts, parse_etcd_url(url));
  std::string password;
  if (!parts.user.empty()) {
    ASSIGN_OR_RETURN(password, read_password(parts.password_file));
  }
  std::unique_ptr<asio::ssl::context> tls;
  if (parts.tls) {
    ASSIGN_OR_RETURN(tls, make_tls(parts));
  }
  return std::unique_ptr<Registry>(
      new EtcdRegistry(url, parts, std::move(password), std::move(tls)));
}

}  // namespace towline::net
