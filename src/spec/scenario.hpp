// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Scenario: one file that says what is served, on which machines, how, and under which load. The
// same file is for `towline up` (real processes) and `towline simulate --scenario`.
// Pure data. Paths in it are relative to the file's own folder.
//
//   schema = 1
//   model = "demo.gguf"          # GGUF file, Hugging Face folder, or a built-in name
//   name = "demo"                # what clients call it; default: the file's name
//   cluster = "cluster.toml"     # machines and links; may be missing
//   plan = "plan.toml"           # placement; missing: planned from the workers below
//
//   [serving]                    # each may be missing; these are the defaults
//   context = 0                  # tokens of one request at most; 0: the model's
//   sequences = 64               # running at the same time
//   step_tokens = 512            # rows of one step
//   chunk_tokens = 512           # of one prompt in one step
//   prefix_cache = true
//   router = "iwrr"              # or swarm, random, shortest_queue ("flow", "maxflow": as iwrr)
//   queue = 256                  # requests waiting; more are refused
//   async = false                # a sequence's next step is sent before its token is known
//   extra_steps = 1              # steps of a pipeline on their way beyond one a node of it
//
//   [net]
//   transport = "tcp"            # or shm, zmq, mpi
//   curve = true                 # zmq: encrypted and authenticated
//
//   [[workers]]
//   name = "alpha"               # up to 64 printable ASCII characters, no spaces
//   layers = [0, 4]              # [begin, end); missing: by the plan
//   threads = 1                  # compute threads (of each rank)
//   tensor_parallel = 1          # ranks of each stage
//   stages = 1                   # that its layers are divided into, each with ranks of its own
//   kv_tokens = 0                # KV capacity, up to 2^30; 0: chosen from the memory
//   speed = 1.0                  # relative to the other workers, for planning without a profile
//   type = "A100"                # machine type, for planning and emulation
//   emulate = false              # kernel time is replaced by the type's profiled time
//   site = "attic"
//
//   [emulation]                  # machines that are not there; no weights are read
//   profile = "llama2-70b"       # times of a layer on each type: built in, or a file; else `model`
//   slowness = 1.0               # all times are multiplied by this
//   full_floats = false          # activations of 4 bytes a value, not the profile's 2
//   plan_workers = false         # no [[workers]]: every node of the plan that holds layers is one,
//                                # of the type that `cluster` says. Both may be Helix's files
//                                # (simulator_cluster.ini and *_sol.ini)
//
//   [[links]]                    # between two sites, or two workers ("coordinator" is one), both
//                                # ways, each pair once
//   between = ["attic", "cellar"]
//   latency = "50 ms"
//   jitter = "0 ms"
//   bandwidth = "100 mbit"       # missing: unlimited
//   loss = 0.0                   # share of messages lost (and sent again)
//   duplicate = 0.0              # ... that arrive twice
//   reorder = 0.0                # ... that later ones overtake
//   corrupt = 0.0                # ... that arrive with a bit flipped
//   cut = 0.0                    # ... that take the connection down with them
//   seed = 1                     # which messages these are
//
//   [workload]                   # for simulate and bench
//   trace = "azure.csv"          # lengths, and times if it has them
//   input = 128                  # without a trace: tokens of every prompt
//   output = 64                  # ...and of every answer
//   rate = 2.0                   # requests/s
//   requests = 1000
//   seed = 0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::spec {

struct ScenarioWorker {
  std::string name;
  std::optional<LayerRange> layers;
  int32_t threads = 1;
  int32_t tensor_parallel = 1;
  int32_t stages = 1;
  int64_t kv_tokens = 0;
  double speed = 1;
  std::string type;
  bool emulate = false;
  std::string site;
  friend bool operator==(const ScenarioWorker&, const ScenarioWorker&) = default;
};

struct ScenarioLink {
  std::string from, to;        // sites or workers; both ways
  Seconds latency, jitter;
  BytesPerSec bandwidth;       // 0: unlimited
  double loss = 0, duplicate = 0, reorder = 0, corrupt = 0, cut = 0;  // 0 to 0.99, of each message
  int64_t seed = 1;
  friend bool operator==(const ScenarioLink&, const ScenarioLink&) = default;
};

struct ScenarioServing {
  int32_t context = 0;
  int32_t sequences = 64;
  int32_t step_tokens = 512;
  int32_t chunk_tokens = 512;
  bool prefix_cache = true;
  std::string router = "iwrr";
  int32_t queue = 256;
  bool async = false;
  int32_t extra_steps = 1;
  friend bool operator==(const ScenarioServing&, const ScenarioServing&) = default;
};

struct ScenarioEmulation {
  std::string profile;
  double slowness = 1;
  bool full_floats = false;
  bool plan_workers = false;
  friend bool operator==(const ScenarioEmulation&, const ScenarioEmulation&) = default;
};

struct ScenarioWorkload {
  std::string trace;
  double rate = 0;
  int64_t requests = 0;
  int64_t seed = 0;
  int32_t input = 0, output = 0;
  friend bool operator==(const ScenarioWorkload&, const ScenarioWorkload&) = default;
};

struct Scenario {
  std::string model, name, cluster, plan;
  ScenarioServing serving;
  std::string transport = "tcp";
  bool curve = true;
  std::vector<ScenarioWorker> workers;
  std::vector<ScenarioLink> links;
  ScenarioEmulation emulation;
  ScenarioWorkload workload;

  // The link between two workers ("coordinator" is one): by their names, else by their sites.
  const ScenarioLink* link_between(std::string_view a, std::string_view b) const;
  friend bool operator==(const Scenario&, const Scenario&) = default;
};

// `source` names the text in errors. Unknown keys, duplicate or missing names, numbers out of range
// and links to nobody are one sentence each. parse_scenario(parse_toml(print_scenario(s))) == s.
Result<Scenario> parse_scenario(const Json& tree, std::string_view source);
// .toml or .json; relative paths inside become relative to the caller's folder.
Result<Scenario> load_scenario(const std::string& path);
std::string print_scenario(const Scenario& scenario);

}  // namespace towline::spec
