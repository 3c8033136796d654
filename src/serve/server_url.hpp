// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ServerUrl: where an HTTP server is, as people write it, and how it is trusted. What every client
// of ours takes: `bench URL`, `chat --url`, `status`, `top`, `drain`, `call`.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace towline::serve {

struct ClientTls;  // whose certificates are believed; http_stream.cpp knows what is in it

struct ServerUrl {
  std::string host = "127.0.0.1";  // an IPv6 address without its brackets
  std::string port = "80";
  std::string path = "/v1";              // before /completions and the like
  std::shared_ptr<ClientTls> tls;        // null: plain HTTP

  // "http://host[:port][/path]" or https://; the path defaults to /v1. `ca` (https only)
  // is a file of PEM certificates that vouch for the server; empty: those that the system trusts.
  static Result<ServerUrl> parse(std::string_view url, const std::string& ca = {});

  // "https://host:port", for people and errors.
  std::string origin() const;
};

}  // namespace towline::serve
