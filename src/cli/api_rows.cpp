// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/api_rows.hpp"

namespace towline::cli {

void ApiRows::add_to(OptionTable& t) {
  t.value("host", &api.http.host, "address to listen on; 0.0.0.0 for every interface");
  t.value("port", &port, "TCP port; 0 picks a free one").range(0, 65535);
  t.value("name", &api.model_name, "the model's name for clients; default: the file's name");
  t.value("api-key", &keys, "key that clients must send; may be repeated").secret();
  t.value("api-key-file", &key_file, "file with one key a line");
  t.value("tls-cert", &api.http.tls_cert, "certificate chain (PEM); serves HTTPS");
  t.value("tls-key", &api.http.tls_key, "private key (PEM) of the certificate");
  t.value("cors-origin", &api.cors_origin, "origin that browsers may call from, or '*'");
  t.value("max-connections", &api.http.max_connections, "open connections at most")
      .range(1, 1 << 20);
  t.value("max-body-bytes", &api.http.max_body_bytes, "longest request body").range(1024, 1 << 30);
  t.flag("strict-fields", &api.strict_fields, "refuse fields that the API does not have");
  t.value("drain-seconds", &drain_seconds, "how long requests may go on after SIGTERM")
      .range(0, 86400);
  t.value("drain-delay", &drain_delay,
          "seconds to go on answering 503 after SIGTERM, for load balancers to notice")
      .range(0, 3600);
}

Result<void> ApiRows::complete() {
  api.http.port = port;
  api.api_keys = keys;
  if (!key_file.empty()) {
    ASSIGN_OR_RETURN(const std::vector<std::string> read, serve::read_key_file(key_file));
    api.api_keys.insert(api.api_keys.end(), read.begin(), read.end());
  }
  for (const std::string& key : api.api_keys) {
    if (key.empty()) return Error(Code::kInvalidArgument, "--api-key must not be empty");
  }
  api.drain_deadline = Duration(static_cast<int64_t>(drain_seconds * 1e9));
  api.drain_delay = Duration(static_cast<int64_t>(drain_delay * 1e9));
  return {};
}

}  // namespace towline::cli
