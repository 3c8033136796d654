// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline call`: a collective call to the nodes of a running cluster.
#include <cstdio>

#include "base/fmt.hpp"
#include "cli/cluster_client.hpp"
#include "cli/commands.hpp"

namespace towline::cli {
namespace {

constexpr int kMoreForTheCoordinator = 15;  // seconds

struct CallOptions {
  ClusterClient client{.api_key = {}, .ca = {}, .patience_seconds = 60};
  std::string method, args = "{}";
  bool json = false;
};

OptionTable table(CallOptions& o) {
  OptionTable t("call", "Ask every rank of a running cluster something, or tell it to.");
  t.positional("method", &o.method,
               "health, state_hash, dump_state, list_adapters, warm_up, profile, "
               "reset_prefix_cache, sleep or wake")
      .required();
  t.value("args", &o.args, "arguments as JSON, e.g. '{\"level\": 2}' for sleep");
  o.client.add_rows(t);
  t.flag("json", &o.json, "print the server's own JSON");
  t.describe(
      "Prints a line for each node and rank. docs/cluster.md says what the methods do. The exit "
      "code is 1 if a node failed.");
  t.example("towline call health");
  t.example("towline call sleep --args '{\"level\": 2}' && towline call wake");
  return t;
}

Result<int> run(std::span<const std::string> args) {
  CallOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(Json asked, parse_json(o.args, "--args"));
  if (!asked.is_object()) return Error(Code::kInvalidArgument, "--args must be a JSON object");
  // The coordinator says which node did not answer; it has the first word.
  if (asked["timeout_s"].is_null()) asked.set("timeout_s", int64_t{o.client.patience_seconds});
  o.client.patience_seconds += kMoreForTheCoordinator;
  ASSIGN_OR_RETURN(const std::string body,
                   o.client.ask("POST", "/cluster/call/" + o.method, asked.dump()));
  ASSIGN_OR_RETURN(const Json answers, parse_json(body, "the answer"));
  bool all = true;
  for (const auto& [node, answer] : answers.members()) {
    all = all && answer["ok"].as_bool();
    if (o.json) continue;
    if (!answer["ok"].as_bool()) {
      std::puts(format("{:<16}  failed: {}", node, answer["error"].as_string()).c_str());
    } else if (answer["answer"].is_array() && answer["answer"][size_t{0}].is_object()) {
      for (const Json& rank : answer["answer"].items()) {
        std::puts(format("{:<16}  {}", node, rank.dump()).c_str());
      }
    } else {
      std::puts(format("{:<16}  {}", node, answer["answer"].dump()).c_str());
    }
  }
  if (o.json) std::puts(body.c_str());
  return all ? 0 : 1;
}

}  // namespace

const Command kCall = {"call", "ask every rank of a running cluster something", run,
                       [](void (*sink)(const OptionTable&)) {
                         CallOptions o;
                         sink(table(o));
                       }};

}  // namespace towline::cli
