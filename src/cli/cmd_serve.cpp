// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <future>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "cli/api_rows.hpp"
#include "cli/cluster_start.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "serve/api_server.hpp"
#include "serve/local_engine.hpp"
#include "serve/model_text.hpp"

namespace towline::cli {
namespace {

struct ServeOptions {
  std::string model, cluster;
  ClusterStart start;  // with --cluster
  ApiRows rows;
  serve::LocalEngineOptions engine;
  std::string log_level = "info";
  std::vector<std::string> adapters;  // NAME=DIRECTORY
  int64_t kv_bytes = 0;
  int threads = 0, context = 0, sequences = 64, step_tokens = 512, queue = 256;
  bool no_prefix_cache = false, json = false, log_json = false, progress = false;
};

OptionTable table(ServeOptions& o) {
  OptionTable t("serve", "Serve a model over an OpenAI-compatible HTTP API.");
  t.positional("model", &o.model, "GGUF file or Hugging Face directory");
  t.value("cluster", &o.cluster,
          "scenario file: be the coordinator of its cluster, hold no weights, say which workers to "
          "start and wait for them");
  o.rows.add_to(t);
  t.value("threads", &o.threads, "compute threads; 0: every core allowed").range(0, 1024);
  t.value("ctx", &o.context,
          "prompt and output of a request, in tokens; 0: the model's, up to 8192")
      .range(0, 1 << 24);
  t.value("max-seqs", &o.sequences, "sequences running at the same time").range(1, 4096);
  t.value("kv-bytes", &o.kv_bytes, "memory for the KV cache; 0: up to 1 GiB").range(0, 1e15);
  t.value("step-tokens", &o.step_tokens, "tokens of one engine step at most").range(1, 65536);
  t.value("queue", &o.queue, "sequences that may wait; more get 429").range(0, 1 << 20);
  t.flag("no-prefix-cache", &o.no_prefix_cache, "evaluate every prompt from its beginning");
  t.value("lora", &o.adapters, "LoRA adapter (PEFT directory) as NAME=DIRECTORY; may be repeated. "
                               "Clients choose it as the model's name");
  t.flag("lora-updates", &o.rows.api.lora_updates,
         "let clients load and unload adapters from this machine's disk");
  t.value("isa", &o.engine.isa, "kernels: auto, avx512, avx2 or generic");
  add_cluster_rows(t, o.start);
  t.flag("standby", &o.start.tenure.standby,
         "with --registry: wait for as long as another process leads, then take over");
  t.flag("json", &o.json, "print one JSON line when ready: {url, port, model, pid}");
  t.value("log-level", &o.log_level, "debug, info, warn, error or off")
      .one_of({"debug", "info", "warn", "error", "off"});
  t.flag("log-json", &o.log_json, "log JSON lines");
  t.flag("progress", &o.progress, "show loading progress even if this is no terminal");
  t.describe(
      "Goes on until SIGTERM or Ctrl-C, then finishes the requests it has; a second signal "
      "stops at once. docs/api.md describes the API, docs/cluster.md clusters: with --cluster, "
      "what is about sequences, steps and memory stands in the scenario.");
  t.example("towline serve model.gguf --port 8000");
  t.example("towline serve model.gguf --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem "
            "--tls-key key.pem");
  t.example("towline serve --cluster scenario.toml --listen tcp://0.0.0.0:7100 --port 8000");
  t.example("curl http://127.0.0.1:8080/v1/completions -H 'content-type: application/json' "
            "-d '{\"prompt\":\"Once upon a time\"}'");
  return t;
}

void complete_engine(ServeOptions& o, const engine::ModelFile& file) {
  if (o.rows.api.model_name.empty()) o.rows.api.model_name = model_name_of(o.model);
  o.rows.api.max_sequences = o.sequences;
  o.rows.api.max_queue = o.queue;
  o.engine.threads = o.threads;
  o.engine.context = o.context;
  o.engine.sequences = o.sequences;
  o.engine.step_tokens = o.step_tokens;
  o.engine.prefix_cache = !o.no_prefix_cache;
  // The API refuses first and says why; one request's n may run over its limit by a window.
  o.engine.queue = o.queue + o.sequences;
  if (o.kv_bytes > 0) {
    const int64_t per_token = file.desc().layers * file.desc().kv_bytes_per_token_layer().value;
    o.engine.kv_tokens = std::max<int64_t>(1, o.kv_bytes / std::max<int64_t>(1, per_token));
  }
}

// The coordinator of a cluster: no engine here. What the scenario says must not be said twice.
Result<int> run_coordinator(ServeOptions& o) {
  const ServeOptions usual;
  const std::pair<bool, std::string_view> not_here[] = {
      {!o.model.empty(), "a model"},
      {o.threads != usual.threads, "--threads"},
      {o.context != usual.context, "--ctx"},
      {o.sequences != usual.sequences, "--max-seqs"},
      {o.kv_bytes != usual.kv_bytes, "--kv-bytes"},
      {o.step_tokens != usual.step_tokens, "--step-tokens"},
      {o.queue != usual.queue, "--queue"},
      {o.no_prefix_cache, "--no-prefix-cache"},
      {o.engine.isa != usual.engine.isa, "--isa"}};
  for (const auto& [given, name] : not_here) {
    if (!given) continue;
    return errorf(Code::kInvalidArgument,
                  "{} has no place beside --cluster: the scenario file or the worker says it",
                  name);
  }
  ASSIGN_OR_RETURN(o.start.scenario, spec::load_scenario(o.cluster));
  o.start.api = o.rows.api;
  o.start.adapters = o.adapters;
  o.start.json = o.json;
  o.start.announce_waiting = true;
  o.start.log_level = o.log_level;
  return run_cluster(std::move(o.start));
}

void announce(const ServeOptions& o, const serve::ApiServer& server,
              const serve::LocalEngine& engine, const serve::ModelText& text) {
  if (o.json) {
    std::puts(Json::object({{"url", server.url()},
                            {"port", server.port()},
                            {"model", o.rows.api.model_name},
                            {"pid", static_cast<int64_t>(::getpid())}})
                  .dump()
                  .c_str());
  } else {
    std::puts(format("{} is ready at {}", o.rows.api.model_name, server.url()).c_str());
  }
  std::fflush(stdout);
  log_info("serve", "listening",
           {{"url", server.url()}, {"model", o.rows.api.model_name}, {"threads", engine.threads()},
            {"isa", engine.isa()}, {"context", engine.max_context()},
            {"keys", o.rows.api.api_keys.size()}});
  if (!text.has_chat_template()) {
    log_warn("serve", "the model has no chat template; a plain one is used for chat");
  }
}

Result<void> load_adapters(const ServeOptions& o, serve::LocalEngine& engine) {
  for (const std::string& given : o.adapters) {
    const size_t equals = given.find('=');
    const std::string name = given.substr(0, equals);
    if (equals == std::string::npos || equals == 0 || name == o.rows.api.model_name) {
      return errorf(Code::kInvalidArgument,
                    "--lora '{}' must be NAME=DIRECTORY, NAME another than the model's", given);
    }
    const auto loaded = std::make_shared<std::promise<Result<void>>>();
    TRY(engine.load_adapter(name, given.substr(equals + 1), [loaded](Result<void> result) {
      loaded->set_value(std::move(result));
    }));
    TRY(loaded->get_future().get());
  }
  return {};
}

Result<int> run(std::span<const std::string> args) {
  ServeOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  init_log({.level = level_named(o.log_level), .json = o.log_json});
  TRY(o.rows.complete());
  if (!o.cluster.empty()) return run_coordinator(o);
  if (o.model.empty()) {
    return Error(Code::kInvalidArgument, "give a model, or --cluster SCENARIO");
  }
  if (!o.start.listen.empty()) {
    return Error(Code::kInvalidArgument,
                 "--listen is where workers join: it needs --cluster SCENARIO");
  }
  const TenureOptions& tenure = o.start.tenure;
  if (!tenure.registry.empty() || !tenure.state.empty() || tenure.standby) {
    return Error(
        Code::kInvalidArgument,
        "--registry, --standby and --state are a coordinator's: they need --cluster SCENARIO");
  }
  ASSIGN_OR_RETURN(engine::ModelFile opened, engine::ModelFile::open(o.model));
  const auto file = std::make_shared<engine::ModelFile>(std::move(opened));
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::ModelText> text, serve::ModelText::open(*file));
  complete_engine(o, *file);

  Loop loop;
  serve::GenerationHub hub(loop);
  std::unique_ptr<serve::LocalEngine> engine;
  {
    Progress progress("loading", o.progress);
    ASSIGN_OR_RETURN(engine, serve::LocalEngine::start(file, o.engine, hub.sink(),
                                                       [&](int64_t done, int64_t total) {
                                                         progress.report(done, total);
                                                       }));
  }
  TRY(load_adapters(o, *engine));
  hub.attach(engine.get());
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::ApiServer> server,
                   serve::ApiServer::start(loop, hub, *text, o.rows.api));
  loop.on_signal(SIGTERM, [&] { server->drain(); });
  loop.on_signal(SIGINT, [&] { server->drain(); });
  announce(o, *server, *engine, *text);
  loop.run();
  log_info("serve", "stopped");
  return 0;
}

}  // namespace

const Command kServe = {"serve", "serve a model over an OpenAI-compatible HTTP API", run,
                        [](void (*sink)(const OptionTable&)) {
                          ServeOptions o;
                          sink(table(o));
                        }};

}  // namespace towline::cli
