// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ApiRows: the options of the HTTP API, the same for one process (`serve`), a coordinator (`serve
// --cluster`) and a local cluster (`up`).
#pragma once

#include <string>
#include <vector>

#include "base/options.hpp"
#include "base/result.hpp"
#include "serve/api_server.hpp"

namespace towline::cli {

struct ApiRows {
  serve::ApiServerOptions api;  // complete after complete(), but for sequences and queue
  std::vector<std::string> keys;
  std::string key_file;
  int port = 8080;
  double drain_seconds = 30, drain_delay = 0;

  void add_to(OptionTable& table);
  // Reads the key file; what is wrong with a key is one sentence.
  Result<void> complete();
};

}  // namespace towline::cli
