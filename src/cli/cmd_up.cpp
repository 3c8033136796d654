// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/fmt.hpp"
#include "cli/cluster_start.hpp"
#include "cli/commands.hpp"

namespace towline::cli {
namespace {

struct UpOptions {
  ClusterStart start;
  std::string scenario, model, transport = "tcp", router = "flow";
  int workers = 0, port = 8080, sequences = 64, queue = 256, context = 0, step_tokens = 512;
  int kv_tokens = 0, ready_seconds = 120;
  int tensor_parallel = 1;
  double drain_seconds = 30;
  bool no_spawn = false, no_prefix_cache = false;
};

OptionTable table(UpOptions& o) {
  OptionTable t("up", "Start a whole local cluster: coordinator, API and workers as child processes.");
  t.positional("scenario", &o.scenario, "scenario file (TOML): model, workers, links");
  t.value("model", &o.model, "GGUF file or Hugging Face directory, instead of a scenario");
  t.value("workers", &o.workers, "so many workers of unequal speed (3:2:1...), instead of a scenario")
      .range(1, 64);
  t.value("name", &o.start.api.model_name, "the model's name for clients; default: the file's name");
  t.value("host", &o.start.api.http.host, "address of the API");
  t.value("port", &o.port, "port of the API; 0 picks a free one").range(0, 65535);
  t.value("transport", &o.transport, "between the processes: tcp, zmq or shm")
      .one_of({"tcp", "zmq", "shm"});
  add_cluster_rows(t, o.start);
  t.value("tensor-parallel", &o.tensor_parallel,
          "ranks (processes) of each worker; instead of a scenario").range(1, 64);
  t.value("lora", &o.start.adapters, "LoRA adapter (PEFT directory) as NAME=DIRECTORY; may be "
                                     "repeated. Clients choose it as the model's name");
  t.flag("lora-updates", &o.start.api.lora_updates,
         "let clients load and unload adapters from the workers' disks");
  t.value("router", &o.router, "flow, swarm, random or shortest-queue");
  t.value("max-seqs", &o.sequences, "sequences running at the same time").range(1, 4096);
  t.value("queue", &o.queue, "sequences that may wait; more get 429").range(0, 1 << 20);
  t.value("ctx", &o.context, "tokens of a request at most; 0: the model's, up to 8192")
      .range(0, 1 << 24);
  t.value("step-tokens", &o.step_tokens, "tokens of one step at most").range(1, 65536);
  t.value("kv-tokens", &o.kv_tokens, "KV cache of each worker, in tokens; 0: up to 1 GiB")
      .range(0, 1 << 30);
  t.flag("no-prefix-cache", &o.no_prefix_cache, "evaluate every prompt from its beginning");
  t.value("drain-seconds", &o.drain_seconds, "how long requests may go on after SIGTERM")
      .range(0, 86400);
  t.value("ready-seconds", &o.ready_seconds, "how long the workers may take to load")
      .range(1, 86400);
  t.flag("no-spawn", &o.no_spawn, "start no workers: print what to start, and wait for them");
  t.flag("json", &o.start.json,
         "print one JSON line when ready: {url, coordinator_pid, workers: [{name, pid, layers}]}");
  t.value("log-level", &o.start.log_level, "debug, info, warn, error or off")
      .one_of({"debug", "info", "warn", "error", "off"});
  t.describe("SIGTERM or Ctrl-C finishes the requests that run, then ends all processes; a second "
             "signal stops at once. docs/cluster.md tells the rest.");
  t.example("towline up --model model.gguf --workers 3 --port 8080");
  t.example("towline up --model model.gguf --workers 2 --tensor-parallel 2");
  t.example("towline up cluster.toml --json");
  t.example("towline up cluster.toml --listen tcp://0.0.0.0:7100");
  return t;
}

// The scenario file, or one made from --model and --workers.
Result<spec::Scenario> scenario_of(const UpOptions& o) {
  if (!o.scenario.empty()) {
    if (!o.model.empty() || o.workers > 0) {
      return Error(Code::kInvalidArgument, "give a scenario file, or --model and --workers, not both");
    }
    return spec::load_scenario(o.scenario);
  }
  if (o.model.empty()) {
    return Error(Code::kInvalidArgument, "give a scenario file, or --model and --workers");
  }
  spec::Scenario s;
  s.model = o.model;
  s.transport = o.transport;
  const int workers = o.workers > 0 ? o.workers : 3;
  for (int i = 0; i < workers; ++i) {
    spec::ScenarioWorker w;
    w.name = format("worker-{}", i + 1);
    w.speed = workers - i;
    w.tensor_parallel = o.tensor_parallel;
    s.workers.push_back(w);
  }
  s.serving.sequences = o.sequences;
  s.serving.step_tokens = o.step_tokens;
  s.serving.queue = o.queue;
  s.serving.context = o.context;
  s.serving.prefix_cache = !o.no_prefix_cache;
  s.serving.router = o.router;
  return s;
}

Result<int> run(std::span<const std::string> args) {
  UpOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  init_log({.level = level_named(o.start.log_level)});
  ASSIGN_OR_RETURN(o.start.scenario, scenario_of(o));
  o.start.api.http.port = o.port;
  o.start.api.drain_deadline = Duration(static_cast<int64_t>(o.drain_seconds * 1e9));
  o.start.kv_tokens = o.kv_tokens;
  o.start.ready_seconds = o.ready_seconds;
  o.start.spawn = !o.no_spawn;
  o.start.own_keys = o.start.spawn;
  return run_cluster(std::move(o.start));
}

}  // namespace

const Command kUp = {"up", "start a whole local cluster", run, [](void (*sink)(const OptionTable&)) {
                       UpOptions o;
                       sink(table(o));
                     }};

}  // namespace towline::cli
