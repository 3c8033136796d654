// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterClient: what `status`, `drain` and `top` ask of a running cluster over its HTTP API, and
// how its answer is shown to people.
#pragma once

#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/options.hpp"
#include "base/result.hpp"

namespace towline::cli {

inline constexpr const char* kCaHelp =
    "PEM certificates that vouch for an https server; default: the system's";

// Where the API is. One exchange is one connection.
struct ClusterClient {
  std::string url = "http://127.0.0.1:8080";
  std::string api_key;
  std::string ca;            // who vouches for an https server; empty: the system's certificates
  int patience_seconds = 5;  // from the connecting to the answer's end

  // The options --url, --api-key, --ca and --timeout.
  void add_rows(OptionTable& table);
  // The body of a 200 answer. Errors as of serve::fetch(); else what the server says is wrong.
  Result<std::string> ask(const std::string& method, const std::string& path,
                          const std::string& body = {}) const;
  // GET /cluster.
  Result<Json> status() const;
};

// The status as a table, a line each: one of headings, one for each node, one or two about all.
std::vector<std::string> status_lines(const Json& status);

}  // namespace towline::cli
