// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/cluster_start.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/child_processes.hpp"
#include "cli/served_cluster.hpp"
#include "net/keys.hpp"
#include "plan/picture.hpp"
#include "serve/cluster_engine.hpp"

namespace towline::cli {
namespace {

constexpr int32_t kOfflineQueue = 1 << 20;
constexpr Duration kLastWords = seconds(2);

struct StartedNode {
  std::string name;
  LayerRange layers;
  pid_t pid = -1;  // -1: started by somebody else
};

// Made for this run only, in memory: however it ends, nothing is left of it. Processes of the same
// user find it at `path` while this one lives.
struct KeyFile {
  std::string path;
  int fd = -1;
  ~KeyFile() {
    if (fd >= 0) ::close(fd);
  }
  Result<void> make() {
    ASSIGN_OR_RETURN(const net::ClusterKeys keys, net::make_keys());
    const std::string text = net::print_keys(keys);
    fd = ::memfd_create("towline-keys", MFD_CLOEXEC);
    if (fd < 0 || ::fchmod(fd, 0600) != 0 ||
        ::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      return errorf(Code::kIo, "the cluster's keys cannot be kept in memory: {}",
                    std::strerror(errno));
    }
    path = format("/proc/{}/fd/{}", ::getpid(), fd);
    return {};
  }
};

// What --listen says, else a free address of this machine.
std::string listen_address(const ClusterStart& start) {
  if (!start.listen.empty()) return start.listen;
  const std::string& transport = start.scenario.transport;
  return transport == "shm" ? format("shm://towline-{}", ::getpid())
                            : format("{}://127.0.0.1:0", transport);
}

// What clients call the model.
std::string served_name(const ClusterStart& start) {
  if (!start.api.model_name.empty()) return start.api.model_name;
  return !start.scenario.name.empty() ? start.scenario.name : model_name_of(start.scenario.model);
}

// (name, directory), the directory for nodes that may have another working directory.
Result<std::vector<std::pair<std::string, std::string>>> adapters_of(const ClusterStart& start) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& given : start.adapters) {
    const size_t equals = given.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == given.size() ||
        given.substr(0, equals) == served_name(start)) {
      return errorf(Code::kInvalidArgument,
                    "--lora '{}' must be NAME=DIRECTORY, NAME another than the model's", given);
    }
    out.emplace_back(given.substr(0, equals),
                     std::filesystem::absolute(given.substr(equals + 1)).string());
  }
  return out;
}

Result<serve::ClusterOptions> cluster_options(const ClusterStart& start,
                                              const ServedCluster& served) {
  serve::ClusterOptions options;
  options.nodes = served.nodes;
  options.planned_links = served.links;
  options.model_hash = served.model_hash;
  options.links =
      serve::EmulatedLinks::of(start.scenario, served.machines ? &*served.machines : nullptr);
  options.listen = listen_address(start);
  options.key_file = start.key_file;
  options.insecure = start.insecure;
  options.serving = start.scenario.serving;
  options.serving.async |= start.async_steps;
  ASSIGN_OR_RETURN(options.adapters, adapters_of(start));
  options.offline = start.admission == "offline";
  if (options.offline) options.serving.queue = kOfflineQueue;
  options.records = start.records;
  options.lease = Duration(static_cast<int64_t>(start.lease * 1e9));
  options.wait_for_nodes = Duration(static_cast<int64_t>(start.wait_for_nodes * 1e9));
  return options;
}

// zmq is encrypted unless somebody says otherwise.
Result<void> settle_keys(ClusterStart& start, KeyFile& own) {
  ASSIGN_OR_RETURN(const net::TransportKind kind, net::kind_of_address(listen_address(start)));
  if (kind == net::TransportKind::kInproc) {
    return Error(Code::kInvalidArgument,
                 "inproc does not leave a process, and workers are processes: "
                 "use tcp, zmq, shm or mpi");
  }
  if (kind != net::TransportKind::kZmq && !start.key_file.empty()) {
    return errorf(Code::kInvalidArgument,
                  "--keys are for zmq: what goes over {} is not encrypted; use zmq, or leave them "
                  "out", net::kind_name(kind));
  }
  start.insecure = start.insecure || !start.scenario.curve;
  if (kind != net::TransportKind::kZmq || start.insecure || !start.key_file.empty()) return {};
  if (!start.own_keys) {
    return Error(Code::kInvalidArgument,
                 "zmq needs the cluster's key file: make one with 'towline net keys FILE', copy it "
                 "to every machine and give --keys FILE here and to each worker; or --insecure");
  }
  TRY(own.make());
  start.key_file = own.path;
  return {};
}

// The address with a host that others can dial, where it is "any interface".
std::string reachable(const std::string& address, const std::string& host) {
  const size_t any = address.find("://0.0.0.0:");
  return any == std::string::npos ? address
                                  : address.substr(0, any + 3) + host + address.substr(any + 10);
}

std::string host_name() {
  char host[256] = "HOST";
  ::gethostname(host, sizeof(host) - 1);
  return host;
}

// A coordinator from its files to its end.
class ClusterRun {
 public:
  explicit ClusterRun(ClusterStart start) : start_(std::move(start)) {}

  Result<int> run() {
    TRY(open());
    ASSIGN_OR_RETURN(tenure_, Tenure::start(loop_, start_.tenure, [this](Result<void> begun) {
      if (begun) begun = begin();
      if (begun) return;
      failure_ = std::move(begun.error());
      loop_.stop();
    }));
    loop_.run();
    if (failure_) return std::move(*failure_);
    log_info("up", "stopped");
    return 0;
  }
  // Another process became the coordinator.
  bool deposed() const { return deposed_; }

 private:
  // This process is the coordinator now.
  Result<void> begin() {
    tenure_->settle(options_, [this](const std::string& reason) { on_deposed(reason); });
    options_.on_nodes = [this, told = std::move(options_.on_nodes)](
                            const std::vector<policy::NodeView>& nodes) {
      if (told) told(nodes);
      loop_.post([this, all = all_ready(nodes)] { on_complete(all); });
    };
    TRY(open_coordinator());
    TRY(start_workers());
    if (start_.ready_seconds > 0) {
      ready_timer_ = loop_.after(seconds(start_.ready_seconds), [this] {
        fail(format("{} seconds have passed", start_.ready_seconds));
      });
    }
    if (start_.announce_waiting && !ready_) announce_waiting();
    return {};
  }

  // The requests have failed; the last answers go out.
  void on_deposed(const std::string& reason) {
    deposed_ = true;
    failure_ = Error(Code::kUnavailable, reason);
    if (server_) server_->drain();
    loop_.after(kLastWords, [this] { loop_.stop(); });
  }

  Result<void> open() {
    ASSIGN_OR_RETURN(served_, load_served_cluster(start_.scenario));
    TRY(settle_keys(start_, own_keys_));
    ASSIGN_OR_RETURN(options_, cluster_options(start_, served_));
    options_.on_ready = [this](bool ready) {
      loop_.post([this, ready] { on_ready(ready); });
    };
    // From here on signals are ours; they are handled as soon as the loop runs.
    loop_.on_signal(SIGTERM, [this] { end(); });
    loop_.on_signal(SIGINT, [this] { end(); });
    loop_.on_signal(SIGCHLD, [this] { on_child(); });
    return {};
  }

  Result<void> open_coordinator() {
    ASSIGN_OR_RETURN(engine_, serve::ClusterEngine::start(served_.model, options_, hub_.sink()));
    hub_.attach(engine_.get());
    serve::ApiServerOptions api = start_.api;
    api.model_name = served_name(start_);
    api.max_sequences = options_.serving.sequences;
    api.max_queue = options_.serving.queue;
    model_name_ = api.model_name;
    ASSIGN_OR_RETURN(server_, serve::ApiServer::start(loop_, hub_, *served_.text, api));
    tenure_->publish(reachable(engine_->address(), host_name()), server_->url(),
                     [engine = engine_.get()] { engine->ask_whether_to_act(); });
    return {};
  }

  Result<void> start_workers() {
    for (const serve::ClusterNode& node : options_.nodes) {
      StartedNode started{node.name, node.layers, -1};
      if (start_.spawn) {
        const std::string address = reachable(engine_->address(), "127.0.0.1");
        std::vector<std::string> words = {"worker", "--connect", address, "--name", node.name,
                                          "--parent", std::to_string(::getpid()), "--log-level",
                                          start_.log_level};
        // They may look for the coordinator as long as it waits for them.
        if (start_.ready_seconds > 0) {
          words.insert(words.end(), {"--connect-seconds", std::to_string(start_.ready_seconds)});
        }
        if (!start_.key_file.empty()) words.insert(words.end(), {"--keys", start_.key_file});
        if (start_.insecure) words.emplace_back("--insecure");
        ASSIGN_OR_RETURN(started.pid, children_.start(node.name, std::move(words)));
      } else if (!start_.announce_waiting && !start_.complete) {
        log_info("up", "waiting for a worker", {{"command", worker_command(node.name)}});
      }
      nodes_.push_back(std::move(started));
    }
    return {};
  }

  std::string worker_command(const std::string& name) const {
    std::string command = format("towline worker --connect {} --name {}",
                                 reachable(engine_->address(), host_name()), name);
    if (!start_.tenure.registry.empty()) {
      command = format("towline worker --registry {} --name {}", start_.tenure.registry, name);
    }
    if (!start_.key_file.empty()) command += " --keys " + start_.key_file;
    if (start_.insecure && engine_->address().starts_with("zmq")) command += " --insecure";
    return command;
  }

  void on_child() {
    children_.reap();
    if (!ready_ && children_.alive() < children_.started()) {
      fail("one has ended before all was ready");
    }
  }

  // Of the nodes that the scenario lists.
  bool all_ready(const std::vector<policy::NodeView>& nodes) const {
    return std::ranges::all_of(options_.nodes, [&](const serve::ClusterNode& listed) {
      return std::ranges::any_of(nodes, [&](const policy::NodeView& node) {
        return node.name == listed.name && node.state == "ready";
      });
    });
  }

  void on_complete(bool complete) {
    complete_ = complete;
    settle_ready();
  }

  void on_ready(bool ready) {
    routable_ = ready;
    settle_ready();
  }

  void settle_ready() {
    if (ready_ || !routable_ || (start_.complete && !complete_)) return;
    ready_ = true;
    loop_.cancel(ready_timer_);
    if (!start_.picture.empty()) {
      const plan::FlowReport report = engine_->plan_report();
      const Result<void> written =
          write_file_atomic(start_.picture, start_.picture.ends_with(".svg")
                                                ? plan::picture_svg(report)
                                                : plan::picture_html(report));
      if (!written) log_warn("up", "no picture", {{"why", written.error().to_string()}});
    }
    announce();
  }

  // The workers did not come up, and nobody is left who could.
  void fail(const std::string& why) {
    std::string complaints;
    for (const std::string& complaint : engine_->complaints()) complaints += "; " + complaint;
    if (complaints.empty()) complaints = "; their messages are above";
    failure_ = errorf(Code::kUnavailable, "the workers did not come up: {}{}", why, complaints);
    loop_.stop();
  }

  void end() {
    if (ending_) children_.end_at_once();
    ending_ = true;
    server_ ? server_->drain() : loop_.stop();
  }

  void announce_waiting() const {
    if (start_.json) {
      Json commands = Json::array();
      for (const StartedNode& node : nodes_) commands.push(worker_command(node.name));
      std::puts(Json::object({{"state", "waiting"},
                              {"url", server_->url()},
                              {"coordinator", engine_->address()},
                              {"start", commands}})
                    .dump()
                    .c_str());
    } else {
      std::puts("start these, in any order:");
      for (const StartedNode& node : nodes_) std::puts(("  " + worker_command(node.name)).c_str());
    }
    std::fflush(stdout);
  }

  void announce() const { start_.json ? announce_json() : announce_table(); }

  void announce_json() const {
    const Json status = engine_->status().value_or(Json());
    Json workers = Json::array();
    for (const StartedNode& node : nodes_) {
      Json worker = Json::object({{"name", node.name}});
      if (node.pid > 0) worker.set("pid", int64_t{node.pid});
      for (const Json& seen : status["nodes"].items()) {  // started by somebody else
        if (node.pid <= 0 && seen["name"].as_string() == node.name && !seen["pid"].is_null()) {
          worker.set("pid", seen["pid"]);
        }
      }
      worker.set("layers", Json::array({Json(int64_t{node.layers.begin}),
                                        Json(int64_t{node.layers.end})}));
      workers.push(std::move(worker));
    }
    Json line = Json::object({{"url", server_->url()},
                              {"port", server_->port()},
                              {"coordinator_pid", static_cast<int64_t>(::getpid())},
                              {"model", model_name_},
                              {"coordinator", engine_->address()},
                              {"max_flow", status["max_flow"]},
                              {"workers", workers}});
    if (start_.announce_waiting) line.set("state", "ready");
    std::puts(line.dump().c_str());
    std::fflush(stdout);
  }

  void announce_table() const {
    const Json status = engine_->status().value_or(Json());
    std::puts("node              layers     rows/s planned   pid");
    for (const StartedNode& node : nodes_) {
      double flow = 0;
      for (const Json& seen : status["nodes"].items()) {
        if (seen["name"].as_string() == node.name) flow = seen["planned_flow"].as_double();
      }
      std::puts(format("{:<16}  {:<9}  {:>14.0f}   {}", node.name,
                       format("[{}, {})", node.layers.begin, node.layers.end), flow,
                       node.pid > 0 ? std::to_string(node.pid) : "-").c_str());
    }
    std::puts(format("maximum flow: {:.0f} tokens/s, by the speed that each worker measured",
                     status["max_flow"].as_double()).c_str());
    std::puts(format("{} is ready at {}", model_name_, server_->url()).c_str());
    std::fflush(stdout);
  }

  ClusterStart start_;
  KeyFile own_keys_;
  ServedCluster served_;
  serve::ClusterOptions options_;
  std::string model_name_;
  std::vector<StartedNode> nodes_;
  ChildProcesses children_;  // they end after everything below has
  Loop loop_;
  std::unique_ptr<Tenure> tenure_;  // ends when nobody acts by it any more
  serve::GenerationHub hub_{loop_};
  std::unique_ptr<serve::ClusterEngine> engine_;
  std::unique_ptr<serve::ApiServer> server_;
  Loop::TimerId ready_timer_ = 0;
  bool routable_ = false, complete_ = false;  // now
  bool ready_ = false, deposed_ = false, ending_ = false;  // for good
  std::optional<Error> failure_;
};

}  // namespace

void add_cluster_rows(OptionTable& t, ClusterStart& o) {
  t.value("listen", &o.listen, "where workers reach the coordinator, e.g. tcp://0.0.0.0:7100 or "
                               "zmq://0.0.0.0:7100; default: a free port of this machine only");
  t.value("keys", &o.key_file, "zmq: the cluster's key file (towline net keys)");
  t.flag("insecure", &o.insecure, "zmq without keys and encryption");
  t.value("admission", &o.admission,
          "online: more than may wait are refused; offline: all wait, and are begun while the KV "
          "caches are expected to be below 80 %")
      .one_of({"online", "offline"});
  t.value("journal", &o.records.journal,
          "write everything the coordinator decides by, tokens included, for simulate --replay");
  t.value("helix-log", &o.records.helix_log,
          "write events.txt and query_route.txt to this folder, for report");
  t.flag("async", &o.async_steps, "send a sequence's next step before its token is known");
  t.value("wait-for-nodes", &o.wait_for_nodes,
          "seconds that requests wait when too few nodes are left; then they fail")
      .range(0, 86400);
  t.value("lease", &o.lease, "seconds of silence after which a node counts as dead")
      .range(0.5, 600);
  add_tenure_rows(t, o.tenure);
  t.value("picture", &o.picture, "write a picture of the plan (HTML or SVG) to this file");
}

Result<int> run_cluster(ClusterStart start) {
  for (;;) {
    ClusterRun run(start);
    Result<int> ended = run.run();
    if (!run.deposed() || !start.tenure.standby) return ended;
    log_warn("up", "standing by again", {{"why", ended.error().message()}});
  }
}

LogLevel level_named(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  return LogLevel::kInfo;
}

std::string model_name_of(const std::string& path) {
  std::filesystem::path p = std::filesystem::path(path).lexically_normal();
  if (p.filename().empty()) p = p.parent_path();
  if (p.extension() == ".gguf") p.replace_extension();
  return p.filename().string();
}

}  // namespace towline::cli
