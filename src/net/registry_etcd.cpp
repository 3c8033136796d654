// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The etcd back end of net::Registry: one HTTP request on a connection of its own for each call, to
// the member that answered last, then to the others. Connections are not kept: a call every second
// or so does not pay for the states of a broken one.
#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <optional>

#include "base/fmt.hpp"
#include "net/etcd_reply.hpp"

namespace towline::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

constexpr uint64_t kLongestAnswer = 16u << 20;
constexpr std::string_view kDefaultPrefix = "towline";
constexpr std::string_view kDefaultPort = "2379";
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

asio::awaitable<void> exchange(tcp::endpoint to, http::request<http::string_body> request,
                               Duration patience, error_code& ec, Answer& answer) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  stream.expires_after(std::chrono::nanoseconds(patience.value));
  co_await stream.async_connect(to, await_into(ec));
  if (ec) co_return;
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

class EtcdRegistry final : public Registry {
 public:
  EtcdRegistry(std::string url, std::vector<Member> members, std::string prefix)
      : Registry(std::move(url)), members_(std::move(members)), prefix_(std::move(prefix)) {}

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
    ASSIGN_OR_RETURN(const std::string body, call("lease/grant", etcd_grant_request(time), deadline));
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
  // The body of an answer of status 200. Members that do not answer are passed over; each gets an
  // equal share of the time that is left.
  Result<std::string> call(const std::string& path, const std::string& body, Deadline deadline) {
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
        asio::co_spawn(context, exchange(address, request, left, ec, answer), asio::detached);
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
};

// "host", "host:2379", "[::1]:2379"
std::optional<Member> member_of(std::string_view text) {
  Member member;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    member.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
  } else {
    const size_t colon = text.find(':');
    member.host = text.substr(0, colon);
    port = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
  }
  if (member.host.empty()) return std::nullopt;
  if (port.empty()) {
    member.port = kDefaultPort;
    return member;
  }
  if (!port.starts_with(':')) return std::nullopt;
  member.port = port.substr(1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool proper = !member.port.empty() && member.port.size() <= 5 &&
                      std::ranges::all_of(member.port, is_digit) && std::stoi(member.port) <= 65535;
  return proper ? std::optional(member) : std::nullopt;
}

}  // namespace

Result<std::unique_ptr<Registry>> open_etcd_registry(const std::string& url, std::string_view rest) {
  const size_t slash = rest.find('/');
  std::string_view hosts = rest.substr(0, slash);
  std::string_view prefix = slash == std::string_view::npos ? "" : rest.substr(slash + 1);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (prefix.empty()) prefix = kDefaultPrefix;
  std::vector<Member> members;
  while (!hosts.empty()) {
    const size_t comma = hosts.find(',');
    const std::optional<Member> member = member_of(hosts.substr(0, comma));
    if (!member) {
      members.clear();
      break;
    }
    members.push_back(*member);
    hosts = comma == std::string_view::npos ? std::string_view() : hosts.substr(comma + 1);
  }
  if (members.empty()) {
    return errorf(Code::kInvalidArgument,
                  "registry '{}' names no proper hosts; write etcd://HOST:PORT[,HOST:PORT]/PREFIX",
                  url);
  }
  return std::unique_ptr<Registry>(
      new EtcdRegistry(url, std::move(members), std::string(prefix) + "/"));
}

}  // namespace towline::net
