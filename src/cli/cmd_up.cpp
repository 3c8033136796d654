// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "net/keys.hpp"
#include "plan/picture.hpp"
#include "serve/api_server.hpp"
#include "serve/cluster_engine.hpp"
#include "serve/model_text.hpp"
#include "spec/plan_desc.hpp"
#include "spec/scenario.hpp"
#include "worker/node_agent.hpp"

extern char** environ;

namespace towline::cli {
namespace {

struct UpOptions {
  std::string scenario, model, name, host = "127.0.0.1", transport = "tcp", keys, log_level = "info", picture;
  std::string router = "flow";
  int workers = 0, port = 8080, sequences = 64, queue = 256, context = 0, step_tokens = 512;
  int kv_tokens = 0, ready_seconds = 120;
  double drain_seconds = 30, wait_for_nodes = 0, lease = 3;
  bool json = false, no_spawn = false, no_prefix_cache = false, async_steps = false, insecure = false;
};

OptionTable table(UpOptions& o) {
  OptionTable t("up", "Start a whole local cluster: coordinator, API and workers as child processes.");
  t.positional("scenario", &o.scenario, "scenario file (TOML): model, workers, links");
  t.value("model", &o.model, "GGUF file or Hugging Face directory, instead of a scenario");
  t.value("workers", &o.workers, "so many workers of unequal speed (3:2:1...), instead of a scenario")
      .range(1, 64);
  t.value("name", &o.name, "the model's name for clients; default: the file's name");
  t.value("host", &o.host, "address of the API");
  t.value("port", &o.port, "port of the API; 0 picks a free one").range(0, 65535);
  t.value("transport", &o.transport, "between the processes: tcp, zmq or shm")
      .one_of({"tcp", "zmq", "shm"});
  t.value("keys", &o.keys, "zmq: the cluster's key file; default: made for this run");
  t.flag("insecure", &o.insecure, "zmq without keys and encryption");
  t.value("router", &o.router, "flow, swarm, random or shortest-queue");
  t.value("max-seqs", &o.sequences, "sequences running at the same time").range(1, 4096);
  t.value("queue", &o.queue, "sequences that may wait; more get 429").range(0, 1 << 20);
  t.value("ctx", &o.context, "tokens of a request at most; 0: the model's, up to 8192")
      .range(0, 1 << 24);
  t.value("step-tokens", &o.step_tokens, "tokens of one step at most").range(1, 65536);
  t.value("kv-tokens", &o.kv_tokens, "KV cache of each worker, in tokens; 0: up to 1 GiB")
      .range(0, 1 << 30);
  t.flag("async", &o.async_steps, "send a sequence's next step before its token is known");
  t.flag("no-prefix-cache", &o.no_prefix_cache, "evaluate every prompt from its beginning");
  t.value("wait-for-nodes", &o.wait_for_nodes,
          "seconds that requests wait when too few nodes are left; then they fail")
      .range(0, 86400);
  t.value("lease", &o.lease, "seconds of silence after which a node counts as dead").range(0.5, 600);
  t.value("drain-seconds", &o.drain_seconds, "how long requests may go on after SIGTERM")
      .range(0, 86400);
  t.value("ready-seconds", &o.ready_seconds, "how long the workers may take to load")
      .range(1, 86400);
  t.value("picture", &o.picture, "write a picture of the plan (HTML or SVG) to this file");
  t.flag("no-spawn", &o.no_spawn, "start no workers: print what to start, and wait for them");
  t.flag("json", &o.json,
         "print one JSON line when ready: {url, coordinator_pid, workers: [{name, pid, layers}]}");
  t.value("log-level", &o.log_level, "debug, info, warn, error or off")
      .one_of({"debug", "info", "warn", "error", "off"});
  t.describe("SIGTERM or Ctrl-C finishes the requests that run, then ends all processes; a second "
             "signal stops at once. docs/cluster.md tells the rest.");
  t.example("towline up --model model.gguf --workers 3 --port 8080");
  t.example("towline up cluster.toml --json");
  return t;
}

LogLevel level_named(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  return LogLevel::kInfo;
}

// A worker process of ours.
struct Child {
  std::string name;
  pid_t pid = -1;
  LayerRange layers;
  bool gone = false;
};

void reap(std::vector<Child>& children) {
  for (Child& child : children) {
    int status = 0;
    if (child.gone || child.pid <= 0 || ::waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    child.gone = true;
    if (WIFSIGNALED(status)) {
      log_warn("up", "worker was killed", {{"name", child.name}, {"signal", WTERMSIG(status)}});
    } else if (WEXITSTATUS(status) != 0) {
      log_warn("up", "worker ended", {{"name", child.name}, {"status", WEXITSTATUS(status)}});
    }
  }
}

bool all_gone(const std::vector<Child>& children) {
  for (const Child& child : children) {
    if (!child.gone && child.pid > 0) return false;
  }
  return true;
}

// In order, then SIGTERM, then SIGKILL; nobody is left behind.
void end_children(std::vector<Child>& children) {
  for (const int signal_number : {0, SIGTERM, SIGKILL}) {
    if (signal_number != 0) {
      for (const Child& child : children) {
        if (!child.gone && child.pid > 0) ::kill(child.pid, signal_number);
      }
    }
    for (int i = 0; i < 200 && !all_gone(children); ++i) {
      reap(children);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

struct ChildGuard {  // also when starting fails half-way
  std::vector<Child> children;
  ~ChildGuard() { end_children(children); }
};

Result<pid_t> spawn_worker(const UpOptions& o, const std::string& name, const std::string& address) {
  std::vector<std::string> words = {"towline",     "worker",      "--connect", address,
                                    "--name",      name,          "--parent",  std::to_string(::getpid()),
                                    "--log-level", o.log_level};
  if (o.transport == "zmq" && !o.keys.empty()) {
    words.insert(words.end(), {"--keys", o.keys});
  } else if (o.transport == "zmq") {
    words.emplace_back("--insecure");
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  // The ready line is the only thing on stdout.
  ::posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  const int failed = ::posix_spawn(&pid, "/proc/self/exe", &files, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  if (failed != 0) return errorf(Code::kIo, "worker {} cannot be started: {}", name, ::strerror(failed));
  return pid;
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

Result<std::vector<serve::ClusterNode>> nodes_of(const UpOptions& o, const spec::Scenario& scenario,
                                                 int32_t layers) {
  if (!scenario.links.empty()) {
    return Error(Code::kUnsupported, "the scenario's [[links]] are not emulated by this command yet; "
                 "remove them to run over the links that are there");
  }
  std::vector<serve::ClusterNode> nodes;
  for (const spec::ScenarioWorker& w : scenario.workers) {
    if (w.tensor_parallel != 1) {
      return errorf(Code::kUnsupported, "worker {}: tensor_parallel = {} needs a rank group, which "
                    "this command does not start", w.name, w.tensor_parallel);
    }
    if (w.emulate) {
      return errorf(Code::kUnsupported, "worker {}: emulate = true is not done by this command yet; "
                    "remove it to run the real model", w.name);
    }
    serve::ClusterNode node;
    node.name = w.name;
    node.layers = w.layers.value_or(LayerRange{});
    node.threads = w.threads;
    node.kv_tokens = w.kv_tokens > 0 ? w.kv_tokens : o.kv_tokens;
    node.speed = w.speed;
    nodes.push_back(std::move(node));
  }
  if (!scenario.plan.empty()) {
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(scenario.plan));
    for (serve::ClusterNode& node : nodes) {
      const spec::PlannedNode* planned = plan.find(node.name);
      if (planned != nullptr && node.layers.empty()) node.layers = planned->layers;
    }
  }
  if (nodes.empty()) return Error(Code::kInvalidArgument, "the scenario names no [[workers]]");
  TRY(serve::assign_layers(nodes, layers));
  return nodes;
}

// "models/a-q8_0.gguf" -> "a-q8_0"
std::string name_of(const std::string& path) {
  std::filesystem::path p = std::filesystem::path(path).lexically_normal();
  if (p.filename().empty()) p = p.parent_path();
  if (p.extension() == ".gguf") p.replace_extension();
  return p.filename().string();
}

std::string layers_text(LayerRange layers) { return format("[{}, {})", layers.begin, layers.end); }

void announce(const UpOptions& o, const std::string& name, const serve::ApiServer& server,
              const serve::ClusterEngine& engine, const std::vector<Child>& children) {
  const Json status = engine.status();
  if (o.json) {
    Json workers = Json::array();
    for (const Child& child : children) {
      workers.push(Json::object({{"name", child.name},
                                 {"pid", int64_t{child.pid}},
                                 {"layers", Json::array({Json(int64_t{child.layers.begin}),
                                                         Json(int64_t{child.layers.end})})}}));
    }
    std::puts(Json::object({{"url", server.url()},
                            {"coordinator_pid", static_cast<int64_t>(::getpid())},
                            {"model", name},
                            {"coordinator", engine.address()},
                            {"max_flow", status["max_flow"]},
                            {"workers", workers}})
                  .dump()
                  .c_str());
  } else {
    std::puts("node              layers     rows/s planned   pid");
    for (const Child& child : children) {
      double flow = 0;
      for (size_t i = 0; i < status["nodes"].size(); ++i) {
        const Json& node = status["nodes"][i];
        if (node["name"].as_string() == child.name) flow = node["planned_flow"].as_double();
      }
      std::puts(format("{:<16}  {:<9}  {:>14.0f}   {}", child.name, layers_text(child.layers), flow,
                       child.pid).c_str());
    }
    std::puts(format("maximum flow: {:.0f} tokens/s, by the speed that each worker measured",
                     status["max_flow"].as_double()).c_str());
    std::puts(format("{} is ready at {}", name, server.url()).c_str());
  }
  std::fflush(stdout);
}

Result<serve::ClusterOptions> cluster_options(UpOptions& o, const spec::Scenario& scenario,
                                              const engine::ModelFile& file) {
  serve::ClusterOptions options;
  ASSIGN_OR_RETURN(options.nodes, nodes_of(o, scenario, file.desc().layers));
  ASSIGN_OR_RETURN(options.model_hash, worker::model_fingerprint(scenario.model));
  if (!o.scenario.empty()) o.transport = scenario.transport;
  options.listen = o.transport == "shm" ? format("shm://towline-{}", ::getpid())
                                        : format("{}://127.0.0.1:0", o.transport);
  options.key_file = o.keys;
  options.insecure = o.insecure;
  options.context = scenario.serving.context;
  options.sequences = scenario.serving.sequences;
  options.step_tokens = scenario.serving.step_tokens;
  options.chunk_tokens = std::min(scenario.serving.chunk_tokens, scenario.serving.step_tokens);
  options.prefix_cache = scenario.serving.prefix_cache;
  options.queue = scenario.serving.queue + scenario.serving.sequences;
  std::string router = scenario.serving.router == "iwrr" ? "flow" : scenario.serving.router;
  if (router == "shortest_queue") router = "shortest-queue";
  ASSIGN_OR_RETURN(options.router, policy::router_named(router));
  options.async_steps = o.async_steps;
  options.lease = Duration(static_cast<int64_t>(o.lease * 1e9));
  options.wait_for_nodes = Duration(static_cast<int64_t>(o.wait_for_nodes * 1e9));
  return options;
}

Result<void> start_workers(const UpOptions& o, const serve::ClusterOptions& options,
                           serve::ClusterEngine& engine, std::vector<Child>& children) {
  for (const serve::ClusterNode& node : options.nodes) {
    Child child{node.name, -1, node.layers, false};
    if (o.no_spawn) {
      log_info("up", "waiting for a worker",
               {{"command", format("towline worker --connect {} --name {}", engine.address(),
                                   node.name)}});
    } else {
      ASSIGN_OR_RETURN(child.pid, spawn_worker(o, node.name, engine.address()));
    }
    children.push_back(std::move(child));
  }
  const bool ready = engine.wait_ready(net::deadline_in(seconds(o.ready_seconds)), [&] {
    reap(children);
    return !o.no_spawn && all_gone(children);
  });
  if (ready) return {};
  std::string why;
  for (const std::string& complaint : engine.complaints()) why += "; " + complaint;
  return errorf(Code::kUnavailable, "the workers did not come up{}", why.empty()
                ? std::string("; their messages are above") : why);
}

Result<int> run(std::span<const std::string> args) {
  UpOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  init_log({.level = level_named(o.log_level)});
  ASSIGN_OR_RETURN(const spec::Scenario scenario, scenario_of(o));
  ASSIGN_OR_RETURN(engine::ModelFile opened, engine::ModelFile::open(scenario.model));
  const auto file = std::make_shared<engine::ModelFile>(std::move(opened));
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::ModelText> text, serve::ModelText::open(*file));
  struct KeyFile {  // made for this run only
    std::string path;
    ~KeyFile() {
      if (!path.empty()) ::unlink(path.c_str());
    }
  } own_keys;
  const std::string transport = o.scenario.empty() ? o.transport : scenario.transport;
  if (transport == "zmq" && o.keys.empty() && !o.insecure) {
    own_keys.path = format("{}/towline-{}.keys", std::filesystem::temp_directory_path().string(),
                           ::getpid());
    ASSIGN_OR_RETURN(const net::ClusterKeys keys, net::make_keys());
    TRY(net::write_keys(own_keys.path, keys));
    o.keys = own_keys.path;
  }
  ASSIGN_OR_RETURN(const serve::ClusterOptions options, cluster_options(o, scenario, *file));

  ChildGuard guard;  // ends the children after everything below has ended
  Loop loop;
  serve::GenerationHub hub(loop);
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::ClusterEngine> engine,
                   serve::ClusterEngine::start(file, options, hub.sink()));
  hub.attach(engine.get());
  TRY(start_workers(o, options, *engine, guard.children));
  serve::ApiServerOptions api;
  api.http.host = o.host;
  api.http.port = o.port;
  api.model_name = !o.name.empty() ? o.name : !scenario.name.empty() ? scenario.name
                                                                      : name_of(scenario.model);
  api.max_sequences = options.sequences;
  api.max_queue = scenario.serving.queue;
  api.drain_deadline = Duration(static_cast<int64_t>(o.drain_seconds * 1e9));
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::ApiServer> server,
                   serve::ApiServer::start(loop, hub, *text, api));
  loop.on_signal(SIGTERM, [&] { server->drain(); });
  loop.on_signal(SIGINT, [&] { server->drain(); });
  loop.on_signal(SIGCHLD, [&] { reap(guard.children); });
  if (!o.picture.empty()) {
    const plan::FlowReport report = engine->plan_report();
    TRY(write_file_atomic(o.picture, o.picture.ends_with(".svg") ? plan::picture_svg(report)
                                                                 : plan::picture_html(report)));
  }
  announce(o, api.model_name, *server, *engine, guard.children);
  loop.run();
  log_info("up", "stopped");
  return 0;
}

}  // namespace

const Command kUp = {"up", "start a whole local cluster", run, [](void (*sink)(const OptionTable&)) {
                       UpOptions o;
                       sink(table(o));
                     }};

}  // namespace towline::cli
