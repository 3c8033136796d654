// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/cluster_client.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/fmt.hpp"
#include "serve/load_client.hpp"

namespace towline::cli {
namespace {

constexpr size_t kLongestAnswer = size_t{16} << 20;
constexpr std::chrono::milliseconds kConnectPatience{5000};

// Connected within `patience`, or not.
bool connect_within(int fd, const addrinfo& to, std::chrono::milliseconds patience) {
  if (::connect(fd, to.ai_addr, to.ai_addrlen) == 0) return true;
  if (errno != EINPROGRESS) return false;
  pollfd watched{fd, POLLOUT, 0};
  int fault = 0;
  socklen_t size = sizeof(fault);
  return ::poll(&watched, 1, static_cast<int>(patience.count())) == 1 &&
         ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &size) == 0 && fault == 0;
}

// A connection whose reads wait `patience` at most.
Result<int> dial(const serve::LoadTarget& target, std::chrono::seconds patience) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found) != 0) {
    return errorf(Code::kNotFound, "{} cannot be resolved", target.host);
  }
  int fd = -1;
  for (addrinfo* a = found; a != nullptr && fd < 0; a = a->ai_next) {
    fd = ::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd >= 0 && !connect_within(fd, *a, kConnectPatience)) {
      ::close(fd);
      fd = -1;
    }
  }
  ::freeaddrinfo(found);
  if (fd < 0) {
    return errorf(Code::kUnavailable, "nothing answers at {}:{}", target.host, target.port);
  }
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  const timeval longest{patience.count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof(longest));
  return fd;
}

std::string layers_text(const Json& layers) {
  return format("[{}, {})", layers[0].as_int(), layers[1].as_int());
}

}  // namespace

Result<std::string> ClusterClient::ask(const std::string& method, const std::string& path,
                                       const std::string& body) const {
  ASSIGN_OR_RETURN(const serve::LoadTarget target, serve::LoadTarget::parse(url));
  ASSIGN_OR_RETURN(const int fd, dial(target, std::chrono::seconds(patience_seconds)));
  std::string request = format("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n"
                               "content-length: {}\r\n", method, path, target.host, body.size());
  if (!api_key.empty()) request += format("authorization: Bearer {}\r\n", api_key);
  request += "\r\n" + body;
  std::string answer;
  bool late = false;
  if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) ==
      static_cast<ssize_t>(request.size())) {
    char buffer[16384];
    ssize_t n = 0;
    while (answer.size() < kLongestAnswer && (n = ::recv(fd, buffer, sizeof(buffer), 0)) > 0) {
      answer.append(buffer, static_cast<size_t>(n));
    }
    late = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }
  ::close(fd);
  if (late) {
    return errorf(Code::kDeadline, "{}:{} did not answer within {} s", target.host, target.port,
                  patience_seconds);
  }
  const size_t head = answer.find("\r\n\r\n");
  if (head == std::string::npos || answer.size() < 12) {
    return errorf(Code::kUnavailable, "{}:{} did not answer with HTTP", target.host, target.port);
  }
  const std::string status = answer.substr(9, 3);
  if (status == "200") return answer.substr(head + 4);
  const Result<Json> error = parse_json(answer.substr(head + 4), "the answer");
  const Code code = status == "400"   ? Code::kInvalidArgument
                    : status == "401" ? Code::kPermissionDenied
                    : status == "404" ? Code::kNotFound
                                      : Code::kUnavailable;
  return errorf(code, "{}",
                error ? (*error)["error"]["message"].as_string() : "HTTP status " + status);
}

Result<Json> ClusterClient::status() const {
  ASSIGN_OR_RETURN(const std::string body, ask("GET", "/cluster"));
  return parse_json(body, "the answer");
}

std::vector<std::string> status_lines(const Json& status) {
  std::vector<std::string> lines = {
      "node              state       layers     requests       KV blocks  planned/s  achieved/s"};
  for (const Json& n : status["nodes"].items()) {
    lines.push_back(format("{:<16}  {:<10}  {:<9}  {:>8}  {:>6} / {:<6}  {:>9.0f}  {:>10.1f}",
                           n["name"].as_string(), n["state"].as_string(), layers_text(n["layers"]),
                           n["requests"].as_int(), n["kv_blocks_used"].as_int(),
                           n["kv_blocks"].as_int(), n["planned_flow"].as_double(),
                           n["achieved_flow"].as_double()));
  }
  lines.push_back(format("epoch {}{}, {} running, {} waiting, {} tokens, {} re-routes",
                         status["epoch"].as_int(), status["ready"].as_bool() ? "" : ", NOT READY",
                         status["running"].as_int(), status["waiting"].as_int(),
                         status["tokens"].as_int(), status["reroutes"].as_int()));
  lines.push_back(format("flow {:.1f} tokens/s over the last {:.0f} s, {:.1f} % of the maximum of {:.0f}",
                         status["achieved_flow"].as_double(), status["flow_window_s"].as_double(),
                         100 * status["achieved_over_max"].as_double(),
                         status["max_flow"].as_double()));
  return lines;
}

}  // namespace towline::cli
