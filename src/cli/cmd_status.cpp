// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline status` and `towline drain`: what a running cluster says of itself, over its HTTP API.
#include <cstdio>

#include "base/fmt.hpp"
#include "cli/cluster_client.hpp"
#include "cli/commands.hpp"

namespace towline::cli {
namespace {

struct StatusOptions {
  ClusterClient client;
  std::string node;
  bool json = false;
};

OptionTable status_table(StatusOptions& o) {
  OptionTable t("status",
                "The nodes of a running cluster: layers, KV use, planned and achieved flow.");
  o.client.add_rows(t);
  t.flag("json", &o.json, "print the server's own JSON");
  t.example("towline status --url http://127.0.0.1:8080");
  t.example("towline status --url https://head.example.org:8080 --ca cluster-ca.pem --json");
  return t;
}

OptionTable drain_table(StatusOptions& o) {
  OptionTable t("drain", "Give a node no new requests; those that run on it finish there.");
  t.positional("node", &o.node, "the node's name").required();
  o.client.add_rows(t);
  t.example("towline drain worker-2");
  return t;
}

Result<int> run_status(std::span<const std::string> args) {
  StatusOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, status_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const Json status, o.client.status());
  if (o.json) {
    std::puts(status.dump().c_str());
    return 0;
  }
  for (const std::string& line : status_lines(status)) std::puts(line.c_str());
  return 0;
}

Result<int> run_drain(std::span<const std::string> args) {
  StatusOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, drain_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  TRY(o.client.ask("POST", "/cluster/drain/" + o.node));
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
