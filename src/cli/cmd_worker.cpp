// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "cli/cluster_start.hpp"
#include "cli/commands.hpp"
#include "cli/job_rank.hpp"
#include "cli/worker_start.hpp"
#include "net/transport.hpp"

namespace towline::cli {
namespace {

struct WorkerOptions {
  WorkerStart start;
  int threads = 0, tensor_parallel = 0, stages = 0, connect_seconds = 30, rejoin_seconds = 0;
  std::string transport, log_level = "info";
};

OptionTable table(WorkerOptions& o) {
  OptionTable t("worker", "Be a node of a cluster: hold some layers of a model and evaluate them.");
  t.value("connect", &o.start.agent.coordinator,
          "the coordinator's address, e.g. tcp://10.0.0.7:7100");
  t.value("registry", &o.start.agent.registry,
          "instead: where the coordinator is told, etcd://HOST:PORT[,HOST:PORT]/PREFIX or "
          "file:///FOLDER; the node follows whoever leads there");
  t.value("name", &o.start.agent.name,
          "this node's name in the plan; unique in the cluster. Of a rank of an mpirun: "
          "worker-RANK, if not given");
  t.value("transport", &o.transport,
          "mpi: the coordinator is rank 0 of this mpirun or srun. Else what --connect says, "
          "or what it leaves out (HOST:PORT)")
      .one_of({"tcp", "zmq", "shm", "mpi"});
  t.value("listen", &o.start.agent.listen,
          "address for the other nodes; default: a free port of the interface that leads to the "
          "coordinator");
  t.value("advertise", &o.start.agent.advertise,
          "the address that other nodes dial, if it is another one (NAT or a container that "
          "forwards a port to --listen)");
  t.flag("outbound-only", &o.start.agent.outbound_only,
         "nobody can dial this node (NAT, firewall): it dials the coordinator and all other nodes");
  t.value("model", &o.start.agent.model,
          "the model's path on this machine; default: the coordinator's");
  t.value("threads", &o.threads, "compute threads of each rank; 0: as the coordinator says")
      .range(0, 1024);
  t.value("tensor-parallel", &o.tensor_parallel,
          "ranks, each a process that holds a share of every layer; 0: as the coordinator says")
      .range(0, 64);
  t.value("stages", &o.stages,
          "parts that its layers are divided into, which work at several steps at once, each with "
          "ranks of its own; 0: as the coordinator says")
      .range(0, 64);
  t.value("keys", &o.start.agent.key_file, "the cluster's key file (zmq)");
  t.flag("insecure", &o.start.agent.insecure, "zmq without keys and encryption");
  t.value(
       "connect-seconds", &o.connect_seconds,
       "how long to look for a coordinator; with --registry, again when one is lost; 0: for ever")
      .range(0, 86400);
  t.value(
       "rejoin", &o.rejoin_seconds,
       "with --connect: when the coordinator is lost, look for it again for so many seconds, the "
       "weights kept; 0: end")
      .range(0, 86400);
  t.value("parent", &o.start.parent, "end when the process of this id, which is the parent, ends")
      .range(0, 1 << 22);
  t.value("log-level", &o.log_level, "debug, info, warn, error or off")
      .one_of({"debug", "info", "warn", "error", "off"});
  t.describe(
      "The coordinator (towline up, towline serve --cluster) says which layers to load. Goes "
      "on until the cluster ends or SIGTERM.");
  t.example("towline worker --connect tcp://10.0.0.7:7100 --name attic");
  t.example(
      "towline worker --registry etcd://10.0.0.5:2379/garage --name attic --connect-seconds 0");
  t.example("towline worker --connect zmq://10.0.0.7:7100 --keys cluster.keys --name attic "
            "--listen zmq://10.0.0.8:7101");
  t.example(
      "mpirun -n 1 towline serve --cluster scenario.toml --listen mpi://0 : -n 3 towline worker "
      "--transport mpi");
  return t;
}

// Where the coordinator is and what this node is called, from what is said and where this runs.
Result<void> settle(WorkerOptions& o) {
  worker::NodeAgentOptions& agent = o.start.agent;
  if (o.transport == "mpi" && agent.coordinator.empty() && agent.registry.empty()) {
    ASSIGN_OR_RETURN(const JobRank job, job_rank_or_error("towline up SCENARIO --transport mpi"));
    if (job.rank == 0) {
      return errorf(
          Code::kInvalidArgument,
          "rank 0 of the job is the coordinator: start it as 'mpirun -n 1 towline serve --cluster "
          "SCENARIO --listen mpi://0 : -n {} towline worker --transport mpi', or all of it as "
          "'mpirun -n {} towline up SCENARIO --transport mpi'",
          job.size - 1, job.size);
    }
    agent.coordinator = "mpi://0";
  }
  if (!agent.coordinator.empty() && !agent.registry.empty()) {
    return Error(Code::kInvalidArgument,
                 "--connect and --registry both say where the coordinator is: leave one out");
  }
  if (agent.coordinator.empty() && agent.registry.empty()) {
    return Error(Code::kInvalidArgument,
                 "say where the coordinator is: --connect ADDRESS, or --registry URL");
  }
  if (!o.transport.empty() && !agent.coordinator.empty()) {
    if (agent.coordinator.find("://") == std::string::npos) {
      agent.coordinator = o.transport + "://" + agent.coordinator;
    } else if (!agent.coordinator.starts_with(o.transport + "://")) {
      return errorf(Code::kInvalidArgument, "--transport {} does not go with --connect {}",
                    o.transport, agent.coordinator);
    }
  }
  if (!agent.coordinator.empty()) TRY(net::check_address(agent.coordinator));
  if (!agent.listen.empty()) TRY(net::check_address(agent.listen));
  if (agent.coordinator.starts_with("mpi://")) {
    ASSIGN_OR_RETURN(const JobRank job, job_rank_or_error("towline up SCENARIO --transport mpi"));
    if (agent.name.empty()) agent.name = format("worker-{}", job.rank);
  }
  if (!agent.key_file.empty() && !agent.coordinator.empty() &&
      !agent.coordinator.starts_with("zmq://")) {
    return errorf(Code::kInvalidArgument,
                  "--keys are for zmq: what goes over {} is not encrypted; use a zmq:// address, "
                  "or leave them out", agent.coordinator);
  }
  if (agent.name.empty()) {
    return Error(Code::kInvalidArgument, "--name is needed: this node's name in the plan");
  }
  if (agent.rejoin_seconds > 0 && agent.coordinator.empty()) {
    return Error(Code::kInvalidArgument,
                 "--rejoin belongs to --connect; with --registry it is --connect-seconds");
  }
  if (agent.outbound_only && !(agent.listen.empty() && agent.advertise.empty())) {
    return Error(Code::kInvalidArgument, "--outbound-only means that nobody dials this node: leave "
                                         "out --listen and --advertise");
  }
  return {};
}

Result<int> run(std::span<const std::string> args) {
  WorkerOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  init_log({.level = level_named(o.log_level)});
  worker::NodeAgentOptions& agent = o.start.agent;
  agent.rejoin_seconds = o.rejoin_seconds;
  agent.threads = o.threads;
  agent.tensor_parallel = o.tensor_parallel;
  agent.stages = o.stages;
  agent.connect_seconds = o.connect_seconds;
  TRY(settle(o));
  return run_worker(std::move(o.start));
}

}  // namespace

const Command kWorker = {"worker", "be a node of a cluster", run,
                         [](void (*sink)(const OptionTable&)) {
                           WorkerOptions o;
                           sink(table(o));
                         }};

}  // namespace towline::cli
