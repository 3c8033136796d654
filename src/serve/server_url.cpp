// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/server_url.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "serve/http_stream.hpp"

namespace towline::serve {

Result<ServerUrl> ServerUrl::parse(std::string_view url, const std::string& ca) {
  const auto bad = [&](std::string_view why) {
    return errorf(Code::kInvalidArgument,
                  "'{}' {}; write http://host:port, https://host:port or http://host:port/v1", url,
                  why);
  };
  const bool secure = url.starts_with("https://");
  if (!secure && !url.starts_with("http://")) return bad("does not begin with http:// or https://");
  std::string_view rest = url.substr(secure ? 8 : 7);
  ServerUrl target;
  if (secure) target.port = "443";
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    std::string_view path = rest.substr(slash);
    while (path.ends_with('/')) path.remove_suffix(1);
    if (!path.empty()) target.path = path;
    rest = rest.substr(0, slash);
  }
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : std::string_view::npos;
  const size_t colon = rest.find(':', bracket == std::string_view::npos ? 0 : bracket);
  target.host = rest.substr(0, colon);
  if (bracket != std::string_view::npos) target.host = rest.substr(1, bracket - 1);
  if (colon != std::string_view::npos) target.port = rest.substr(colon + 1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (target.host.empty()) return bad("names no host");
  if (target.port.empty() || target.port.size() > 5 ||
      !std::all_of(target.port.begin(), target.port.end(), is_digit) ||
      std::stoi(target.port) > 65535) {
    return bad("has no proper port");
  }
  if (!secure && !ca.empty()) return bad("is plain HTTP, to which no --ca belongs");
  if (secure) {
    ASSIGN_OR_RETURN(target.tls, open_client_tls(ca));
  }
  return target;
}

std::string ServerUrl::origin() const {
  const bool v6 = host.find(':') != std::string::npos;
  return format("{}://{}{}{}:{}", tls ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

}  // namespace towline::serve
