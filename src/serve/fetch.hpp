// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// fetch: one HTTP request and its whole answer, from a thread that may wait.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "base/units.hpp"
#include "serve/server_url.hpp"

namespace towline::serve {

struct HttpCall {
  std::string method = "GET";
  std::string target;             // "/cluster"; the URL's own path is not put before it
  std::string body;               // JSON, or empty
  std::string api_key;            // empty: none is sent
  Duration patience = seconds(5);  // from the connecting to the answer's end
};

struct HttpReply {
  int status = 0;
  std::string body;  // 16 MiB at most
};

// Whatever the status. Errors name the server. kNotFound: its host is not known;
// kUnavailable: nobody answers, or not in HTTP; kPermissionDenied: its certificate is not
// accepted; kDeadline: not in time.
Result<HttpReply> fetch(const ServerUrl& url, const HttpCall& call);

}  // namespace towline::serve
