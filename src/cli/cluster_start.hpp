// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterStart: from a scenario to a running coordinator with its API. `towline up` and `towline
// serve --cluster` are this with different options; the first also starts the workers.
//
// Order: everything that can be wrong with the files; with a registry, the lead (a standby waits
// here); the coordinator's address; the API (it
// answers at once: /health/ready says 503 until a way through all layers is there); the workers or
// what to start by hand; then one loop until SIGTERM or Ctrl-C has drained it. A second signal
// stops now.
#pragma once

#include <string>
#include <vector>

#include "base/log.hpp"
#include "base/options.hpp"
#include "base/result.hpp"
#include "cli/tenure.hpp"
#include "serve/api_server.hpp"
#include "serve/cluster_records.hpp"
#include "spec/scenario.hpp"

namespace towline::cli {

struct ClusterStart {
  spec::Scenario scenario;
  serve::ApiServerOptions api;  // max_sequences, max_queue and an empty name come from the scenario
  std::string listen;              // of the coordinator; empty: a free port of this machine
  std::string key_file;            // zmq
  bool insecure = false;           // zmq without keys
  bool own_keys = false;           // zmq without a key file: make keys for this run
  bool spawn = false;              // start the workers as child processes
  bool complete = false;  // ready: when all of its nodes are, not only one way through the layers
  int ready_seconds = 0;           // how long they may take; 0: for ever
  double lease = 3, wait_for_nodes = 0;  // seconds
  bool async_steps = false;
  std::string admission = "online";
  serve::RecordFiles records;
  bool json = false;               // ready line as JSON
  bool announce_waiting = false;   // say on stdout, before that, what to start
  std::vector<std::string> adapters;  // LoRA, NAME=DIRECTORY: every node loads them, then serves
  TenureOptions tenure;            // registry, standby, state
  std::string picture;             // file for a picture of the plan
  std::string log_level = "info";  // of the workers as well
};

// The rows that both commands have.
void add_cluster_rows(OptionTable& table, ClusterStart& start);

// Runs until it is told to end. The value is the exit code.
Result<int> run_cluster(ClusterStart start);

LogLevel level_named(const std::string& name);      // as --log-level names it
std::string model_name_of(const std::string& path);  // "models/a-q8_0.gguf" -> "a-q8_0"

}  // namespace towline::cli
