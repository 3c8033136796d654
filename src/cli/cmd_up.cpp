// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/fmt.hpp"
#include "cli/api_rows.hpp"
#include "cli/cluster_start.hpp"
#include "cli/commands.hpp"
#include "cli/job_rank.hpp"
#include "cli/served_cluster.hpp"
#include "cli/worker_start.hpp"

namespace towline::cli {
namespace {

struct UpOptions {
  ClusterStart start;
  ApiRows rows;
  std::string scenario, model, transport = "tcp", router = "flow";
  int workers = 0, sequences = 64, queue = 256, context = 0, step_tokens = 512;
  int kv_tokens = 0, ready_seconds = 120;
  int tensor_parallel = 1, stages = 1;
  bool no_spawn = false, no_prefix_cache = false, log_json = false;
};

OptionTable table(UpOptions& o) {
  OptionTable t("up",
                "Start a whole local cluster: coordinator, API and workers as child processes.");
  t.positional("scenario", &o.scenario, "scenario file (TOML): model, workers, links");
  t.value("model", &o.model, "GGUF file or Hugging Face directory, instead of a scenario");
  t.value("workers", &o.workers,
          "so many workers of unequal speed (3:2:1...), instead of a scenario")
      .range(1, 64);
  o.rows.add_to(t);
  t.value("transport", &o.transport, "between the processes")
      .one_of({"tcp", "zmq", "shm", "mpi"});
  add_cluster_rows(t, o.start);
  t.value("tensor-parallel", &o.tensor_parallel, "ranks (processes) of each worker").range(1, 64);
  t.value("stages", &o.stages, "parts of each worker's layers, each with ranks of its own")
      .range(1, 64);
  t.value("lora", &o.start.adapters, "LoRA adapter (PEFT directory) as NAME=DIRECTORY; may be "
                                     "repeated. Clients choose it as the model's name");
  t.flag("lora-updates", &o.rows.api.lora_updates,
         "let clients load and unload adapters from the workers' disks");
  t.value("router", &o.router,
          "how requests are spread over the ways: flow, swarm, random or shortest-queue");
  t.value("max-seqs", &o.sequences, "sequences running at the same time").range(1, 4096);
  t.value("queue", &o.queue, "sequences that may wait; more get 429").range(0, 1 << 20);
  t.value("ctx", &o.context, "tokens of a request at most; 0: the model's, up to 8192")
      .range(0, 1 << 24);
  t.value("step-tokens", &o.step_tokens, "tokens of one step at most").range(1, 65536);
  t.value("kv-tokens", &o.kv_tokens, "KV cache of each worker, in tokens; 0: up to 1 GiB")
      .range(0, 1 << 30);
  t.flag("no-prefix-cache", &o.no_prefix_cache, "evaluate every prompt from its beginning");
  t.value("ready-seconds", &o.ready_seconds, "how long the workers may take to load")
      .range(1, 86400);
  t.flag("no-spawn", &o.no_spawn, "start no workers: print what to start, and wait for them");
  t.flag("json", &o.start.json,
         "print one JSON line when ready: {url, coordinator_pid, workers: [{name, pid, layers}]}");
  t.value("log-level", &o.start.log_level, "debug, info, warn, error or off")
      .one_of({"debug", "info", "warn", "error", "off"});
  t.flag("log-json", &o.log_json, "log JSON lines");
  t.describe("SIGTERM or Ctrl-C finishes the requests that run, then ends all processes; a second "
             "signal stops at once. What is given here wins over what the scenario says. "
             "docs/cluster.md tells the rest.");
  t.example("towline up --model model.gguf --workers 3 --port 8080");
  t.example("towline up --model model.gguf --workers 2 --tensor-parallel 2");
  t.example("towline up cluster.toml --json");
  t.example("towline up cluster.toml --listen tcp://0.0.0.0:7100");
  t.example("mpirun -n 4 towline up --model model.gguf --workers 3 --transport mpi");
  return t;
}

Result<spec::Scenario> scenario_of_workers(const UpOptions& o) {
  if (o.model.empty()) {
    return Error(Code::kInvalidArgument, "give a scenario file, or --model and --workers");
  }
  spec::Scenario s;
  s.model = o.model;
  const int workers = o.workers > 0 ? o.workers : 3;
  for (int i = 0; i < workers; ++i) {
    spec::ScenarioWorker w;
    w.name = format("worker-{}", i + 1);
    w.speed = workers - i;
    s.workers.push_back(w);
  }
  return s;
}

// The scenario file, or one made from --model and --workers, with what else is given.
Result<spec::Scenario> scenario_of(const UpOptions& o, const OptionTable& t) {
  if (!o.scenario.empty() && (!o.model.empty() || o.workers > 0)) {
    return Error(Code::kInvalidArgument,
                 "give a scenario file, or --model and --workers, not both");
  }
  ASSIGN_OR_RETURN(spec::Scenario s, o.scenario.empty() ? scenario_of_workers(o)
                                                        : spec::load_scenario(o.scenario));
  const auto settle = [&t](std::string_view name, auto& field, const auto& value) {
    if (t.given(name)) field = value;
  };
  settle("transport", s.transport, o.transport);
  settle("max-seqs", s.serving.sequences, o.sequences);
  settle("step-tokens", s.serving.step_tokens, o.step_tokens);
  settle("queue", s.serving.queue, o.queue);
  settle("ctx", s.serving.context, o.context);
  settle("router", s.serving.router, o.router);
  settle("no-prefix-cache", s.serving.prefix_cache, !o.no_prefix_cache);
  for (const char* name : {"tensor-parallel", "stages", "kv-tokens"}) {
    if (t.given(name) && s.workers.empty()) {
      return errorf(Code::kInvalidArgument,
                    "--{} is about [[workers]]; those of this scenario come from its plan", name);
    }
  }
  for (spec::ScenarioWorker& w : s.workers) {
    settle("tensor-parallel", w.tensor_parallel, o.tensor_parallel);
    settle("stages", w.stages, o.stages);
    settle("kv-tokens", w.kv_tokens, o.kv_tokens);
  }
  return s;
}

// Every process of an mpirun is started alike: rank 0 is the coordinator, rank i the i-th worker.
Result<int> run_rank(ClusterStart start) {
  ASSIGN_OR_RETURN(const JobRank job, job_rank_or_error("towline up ..."));
  std::vector<std::string> names;
  for (const spec::ScenarioWorker& worker : start.scenario.workers) names.push_back(worker.name);
  if (names.empty()) {  // the plan has them
    ASSIGN_OR_RETURN(const ServedCluster served, load_served_cluster(start.scenario));
    for (const serve::ClusterNode& node : served.nodes) names.push_back(node.name);
  }
  if (static_cast<size_t>(job.size) != names.size() + 1) {
    if (job.rank > 0) return 0;  // rank 0 says it
    return errorf(Code::kInvalidArgument,
                  "the job has {} processes; a coordinator and {} workers are {}: mpirun -n {}",
                  job.size, names.size(), names.size() + 1, names.size() + 1);
  }
  if (job.rank == 0) {
    start.spawn = false;
    return run_cluster(std::move(start));
  }
  WorkerStart node;
  node.agent.coordinator = "mpi://0";
  node.agent.name = names[static_cast<size_t>(job.rank - 1)];
  node.agent.connect_seconds = start.ready_seconds;
  return run_worker(std::move(node));
}

Result<int> run(std::span<const std::string> args) {
  UpOptions o;
  OptionTable t = table(o);
  ASSIGN_OR_RETURN(const ParseOutcome outcome, t.parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  init_log({.level = level_named(o.start.log_level), .json = o.log_json});
  ASSIGN_OR_RETURN(o.start.scenario, scenario_of(o, t));
  TRY(o.rows.complete());
  o.start.api = o.rows.api;
  o.start.ready_seconds = o.ready_seconds;
  o.start.spawn = o.start.own_keys = o.start.complete = !o.no_spawn;
  if (o.start.scenario.transport == "mpi" && !o.no_spawn) return run_rank(std::move(o.start));
  return run_cluster(std::move(o.start));
}

}  // namespace

const Command kUp = {"up", "start a whole local cluster", run,
                     [](void (*sink)(const OptionTable&)) {
                       UpOptions o;
                       sink(table(o));
                     }};

}  // namespace towline::cli
