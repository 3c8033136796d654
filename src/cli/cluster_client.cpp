// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/cluster_client.hpp"

#include "base/fmt.hpp"
#include "serve/fetch.hpp"

namespace towline::cli {
namespace {

std::string layers_text(const Json& layers) {
  return format("[{}, {})", layers[0].as_int(), layers[1].as_int());
}

}  // namespace

void ClusterClient::add_rows(OptionTable& table) {
  table.value("url", &url, "where the cluster's API is");
  table.value("api-key", &api_key, "if the server asks for one").secret();
  table.value("ca", &ca, kCaHelp).metavar("FILE");
  table.value("timeout", &patience_seconds, "seconds to wait for the answer").range(1, 86400);
}

Result<std::string> ClusterClient::ask(const std::string& method, const std::string& path,
                                       const std::string& body) const {
  ASSIGN_OR_RETURN(const serve::ServerUrl server, serve::ServerUrl::parse(url, ca));
  ASSIGN_OR_RETURN(serve::HttpReply reply, serve::fetch(server, {method, path, body, api_key,
                                                                 seconds(patience_seconds)}));
  if (reply.status == 200) return std::move(reply.body);
  const Result<Json> error = parse_json(reply.body, "the answer");
  const std::string why = error ? (*error)["error"]["message"].as_string() : std::string();
  const Code code = reply.status == 400   ? Code::kInvalidArgument
                    : reply.status == 401 ? Code::kPermissionDenied
                    : reply.status == 404 ? Code::kNotFound
                                          : Code::kUnavailable;
  return errorf(code, "{}", why.empty() ? format("HTTP status {}", reply.status) : why);
}

Result<Json> ClusterClient::status() const {
  ASSIGN_OR_RETURN(const std::string body, ask("GET", "/cluster"));
  ASSIGN_OR_RETURN(Json status, parse_json(body, "the answer"));
  if (status["nodes"].is_array()) return status;
  return errorf(Code::kInvalidArgument,
                "{} answers, but not as a Towline cluster does: /cluster has no list of nodes",
                url);
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
                         status["epoch"].as_int(), status["asleep"].as_bool()  ? ", ASLEEP"
                         : status["ready"].as_bool() ? ""
                                                     : ", NOT READY",
                         status["running"].as_int(), status["waiting"].as_int(),
                         status["tokens"].as_int(), status["reroutes"].as_int()));
  lines.push_back(
      format("flow {:.1f} tokens/s over the last {:.0f} s, {:.1f} % of the maximum of {:.0f}",
             status["achieved_flow"].as_double(), status["flow_window_s"].as_double(),
             100 * status["achieved_over_max"].as_double(), status["max_flow"].as_double()));
  return lines;
}

}  // namespace towline::cli
