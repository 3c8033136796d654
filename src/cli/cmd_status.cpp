// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline status` and `towline drain`: what a running cluster says of itself, over its HTTP API.
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdio>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "cli/commands.hpp"
#include "serve/load_client.hpp"

namespace towline::cli {
namespace {

// One short exchange with a server on the loop of the caller's patience: no keep-alive.
Result<std::string> exchange(const serve::LoadTarget& target, const std::string& method,
                             const std::string& path, const std::string& key) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found) != 0) {
    return errorf(Code::kNotFound, "{} cannot be resolved", target.host);
  }
  int fd = -1;
  for (addrinfo* a = found; a != nullptr && fd < 0; a = a->ai_next) {
    fd = ::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd >= 0 && ::connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
      ::close(fd);
      fd = -1;
    }
  }
  ::freeaddrinfo(found);
  if (fd < 0) {
    return errorf(Code::kUnavailable, "nothing answers at {}:{}", target.host, target.port);
  }
  const timeval patience{5, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  std::string request = format("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n"
                               "content-length: 0\r\n", method, path, target.host);
  if (!key.empty()) request += format("authorization: Bearer {}\r\n", key);
  request += "\r\n";
  std::string answer;
  if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) ==
      static_cast<ssize_t>(request.size())) {
    char buffer[16384];
    for (ssize_t n = 0; answer.size() < (size_t{16} << 20) &&
                        (n = ::recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(n));
    }
  }
  ::close(fd);
  const size_t body = answer.find("\r\n\r\n");
  if (body == std::string::npos || answer.size() < 12) {
    return errorf(Code::kUnavailable, "{}:{} did not answer with HTTP", target.host, target.port);
  }
  const std::string status = answer.substr(9, 3);
  if (status != "200") {
    const Result<Json> error = parse_json(answer.substr(body + 4), "the answer");
    return errorf(status == "404" ? Code::kNotFound : Code::kUnavailable, "{}",
                  error ? (*error)["error"]["message"].as_string() : "HTTP status " + status);
  }
  return answer.substr(body + 4);
}

struct StatusOptions {
  std::string url = "http://127.0.0.1:8080", api_key, node;
  bool json = false;
};

void add_common(OptionTable& t, StatusOptions& o) {
  t.value("url", &o.url, "where the cluster's API is");
  t.value("api-key", &o.api_key, "if the server asks for one").secret();
}

OptionTable status_table(StatusOptions& o) {
  OptionTable t("status", "The nodes of a running cluster: layers, KV use, planned and achieved flow.");
  add_common(t, o);
  t.flag("json", &o.json, "print the server's own JSON");
  t.example("towline status --url http://127.0.0.1:8080");
  return t;
}

OptionTable drain_table(StatusOptions& o) {
  OptionTable t("drain", "Give a node no new requests; those that run on it finish there.");
  t.positional("node", &o.node, "the node's name").required();
  add_common(t, o);
  t.example("towline drain worker-2");
  return t;
}

Result<int> run_status(std::span<const std::string> args) {
  StatusOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, status_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const serve::LoadTarget target, serve::LoadTarget::parse(o.url));
  ASSIGN_OR_RETURN(const std::string body, exchange(target, "GET", "/cluster", o.api_key));
  if (o.json) {
    std::puts(body.c_str());
    return 0;
  }
  ASSIGN_OR_RETURN(const Json status, parse_json(body, "the answer"));
  std::puts("node              state       layers     requests  KV blocks        tokens  planned/s");
  for (size_t i = 0; i < status["nodes"].size(); ++i) {
    const Json& n = status["nodes"][i];
    std::puts(format("{:<16}  {:<10}  {:<9}  {:>8}  {:>6} / {:<6}  {:>7}  {:>9.0f}",
                     n["name"].as_string(), n["state"].as_string(),
                     format("[{}, {})", n["layers"][0].as_int(), n["layers"][1].as_int()),
                     n["requests"].as_int(), n["kv_blocks_used"].as_int(), n["kv_blocks"].as_int(),
                     n["tokens"].as_int(), n["planned_flow"].as_double())
                  .c_str());
  }
  std::puts(format("epoch {}, {} running, {} waiting, {} tokens, {} re-routes, maximum flow {:.0f} "
                   "tokens/s", status["epoch"].as_int(), status["running"].as_int(),
                   status["waiting"].as_int(), status["tokens"].as_int(),
                   status["reroutes"].as_int(), status["max_flow"].as_double())
                .c_str());
  return 0;
}

Result<int> run_drain(std::span<const std::string> args) {
  StatusOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, drain_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const serve::LoadTarget target, serve::LoadTarget::parse(o.url));
  ASSIGN_OR_RETURN(const std::string body,
                   exchange(target, "POST", "/cluster/drain/" + o.node, o.api_key));
  std::puts(format("{} takes no new requests", o.node).c_str());
  return 0;
}

}  // namespace

const Command kStatus = {"status", "the nodes of a running cluster", run_status,
                         [](void (*sink)(const OptionTable&)) {
                           StatusOptions o;
                           sink(status_table(o));
                         }};
const Command kDrain = {"drain", "give a node of a cluster no new requests", run_drain,
                        [](void (*sink)(const OptionTable&)) {
                          StatusOptions o;
                          sink(drain_table(o));
                        }};

}  // namespace towline::cli
