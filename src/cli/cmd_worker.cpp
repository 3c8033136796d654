// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "cli/cluster_start.hpp"
#include "cli/commands.hpp"
#include "cli/stop_signals.hpp"
#include "worker/node_agent.hpp"

namespace towline::cli {
namespace {

struct WorkerOptions {
  worker::NodeAgentOptions agent;
  int threads = 0, tensor_parallel = 0, connect_seconds = 30, parent = 0, rejoin_seconds = 0;
  std::string log_level = "info";
};

OptionTable table(WorkerOptions& o) {
  OptionTable t("worker", "Be a node of a cluster: hold some layers of a model and evaluate them.");
  t.value("connect", &o.agent.coordinator, "the coordinator's address, e.g. tcp://10.0.0.7:7100");
  t.value("registry", &o.agent.registry,
          "instead: where the coordinator is told, etcd://HOST:PORT[,HOST:PORT]/PREFIX or "
          "file:///FOLDER; the node follows whoever leads there");
  t.value("name", &o.agent.name, "this node's name in the plan; unique in the cluster").required();
  t.value("listen", &o.agent.listen,
          "address for the other nodes; default: a free port of the interface that leads to the "
          "coordinator");
  t.value("model", &o.agent.model, "the model's path on this machine; default: the coordinator's");
  t.value("threads", &o.threads, "compute threads of each rank; 0: as the coordinator says").range(0, 1024);
  t.value("tensor-parallel", &o.tensor_parallel,
          "ranks, each a process that holds a share of every layer; 0: as the coordinator says")
      .range(0, 64);
  t.value("keys", &o.agent.key_file, "the cluster's key file (zmq)");
  t.flag("insecure", &o.agent.insecure, "zmq without keys and encryption");
  t.value("connect-seconds", &o.connect_seconds,
          "how long to look for a coordinator; with --registry, again when one is lost; 0: for ever")
      .range(0, 86400);
  t.value("rejoin", &o.rejoin_seconds,
          "with --connect: when the coordinator is lost, look for it again for so many seconds, the "
          "weights kept; 0: end")
      .range(0, 86400);
  t.value("parent", &o.parent, "end when the process of this id, which is the parent, ends")
      .range(0, 1 << 22);
  t.value("log-level", &o.log_level, "debug, info, warn, error or off")
      .one_of({"debug", "info", "warn", "error", "off"});
  t.describe("The coordinator (towline up, towline serve --cluster) says which layers to load. Goes "
             "on until the cluster ends or SIGTERM.");
  t.example("towline worker --connect tcp://10.0.0.7:7100 --name attic");
  t.example("towline worker --registry etcd://10.0.0.5:2379/garage --name attic --connect-seconds 0");
  t.example("towline worker --connect zmq://10.0.0.7:7100 --keys cluster.keys --name attic "
            "--listen zmq://10.0.0.8:7101");
  return t;
}

// A free port on the interface from which packets to the coordinator leave: what other machines
// reach if the coordinator does. Empty (the agent's own default) where that cannot be told.
std::string listen_towards(const std::string& coordinator) {
  if (coordinator.starts_with("shm://")) return format("shm://towline-worker-{}", ::getpid());
  const size_t scheme = coordinator.find("://"), port = coordinator.rfind(':');
  if (scheme == std::string::npos || port <= scheme) return {};
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const std::string host = coordinator.substr(scheme + 3, port - scheme - 3);
  if (::getaddrinfo(host.c_str(), coordinator.c_str() + port + 1, &hints, &found) != 0) return {};
  std::string out;
  sockaddr_in here{};
  socklen_t size = sizeof(here);
  // Connecting a datagram socket sends nothing: it only chooses the way.
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  char text[INET_ADDRSTRLEN] = {};
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&here), &size) == 0 &&
      ::inet_ntop(AF_INET, &here.sin_addr, text, sizeof(text)) != nullptr) {
    out = format("{}{}:0", coordinator.substr(0, scheme + 3), text);
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return out;
}

Result<int> run(std::span<const std::string> args) {
  WorkerOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  // Ctrl-C reaches the whole group: a parent ends the cluster in order.
  if (o.parent > 0) ::signal(SIGINT, SIG_IGN);
  const StopSignals stop = o.parent > 0 ? StopSignals({SIGTERM}) : StopSignals({SIGTERM, SIGINT});
  init_log({.level = level_named(o.log_level)});
  // Activations are megabytes that come and go a hundred times a second: memory that the allocator gives
  // back to the system each time costs more than what is done with it.
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  ::mallopt(M_ARENA_MAX, 1);
  if (o.parent > 0) {
    // The kernel kills this process when its parent dies; if it died before this call, it did.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != o.parent) return Error(Code::kCancelled, "the parent process has gone");
  }
  if (o.agent.coordinator.empty() == o.agent.registry.empty()) {
    return Error(Code::kInvalidArgument, "say where the coordinator is: --connect ADDRESS, or --registry URL");
  }
  if (o.rejoin_seconds > 0 && o.agent.coordinator.empty()) {
    return Error(Code::kInvalidArgument,
                 "--rejoin belongs to --connect; with --registry it is --connect-seconds");
  }
  o.agent.listen_towards = listen_towards;
  o.agent.rejoin_seconds = o.rejoin_seconds;
  o.agent.threads = o.threads;
  o.agent.tensor_parallel = o.tensor_parallel;
  o.agent.connect_seconds = o.connect_seconds;
  TRY(worker::run_node(o.agent, stop.token()));
  return 0;
}

}  // namespace

const Command kWorker = {"worker", "be a node of a cluster", run,
                         [](void (*sink)(const OptionTable&)) {
                           WorkerOptions o;
                           sink(table(o));
                         }};

}  // namespace towline::cli
