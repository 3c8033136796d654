// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "net/keys.hpp"
#include "spec/deploy.hpp"
#include "spec/plan_desc.hpp"

namespace towline::cli {
namespace {

struct DeployCommand {
  spec::DeployOptions deploy;
  std::string scenario, to, out, keys;
};

OptionTable table(DeployCommand& o) {
  OptionTable t("deploy", "The files that start a scenario's cluster on real machines.");
  t.positional("scenario", &o.scenario, "scenario file (TOML)").required();
  t.value("to", &o.to,
          "systemd (a unit for the coordinator and each worker), slurm (a batch script) or "
          "kubernetes (manifests)")
      .one_of({"systemd", "slurm", "kubernetes"})
      .required();
  t.value("out", &o.out, "write the files into this folder; default: print them");
  t.value("name", &o.deploy.name, "of the units, the job or the Kubernetes objects");
  t.value("program", &o.deploy.program, "path of towline on the machines (or in the image)");
  t.value("model-path", &o.deploy.model,
          "where the model lies there; default: as in the scenario, for "
          "kubernetes /models/FILE");
  t.value("coordinator", &o.deploy.coordinator,
          "systemd: the coordinator's host name, for the workers");
  t.value("folder", &o.deploy.folder, "systemd: folder of the scenario and the keys");
  t.value("image", &o.deploy.image, "kubernetes: container image with towline in it");
  t.value("keys", &o.keys, "kubernetes: key file for the Secret; default: a new one");
  t.flag("insecure", &o.deploy.insecure, "zmq without keys and encryption");
  t.value("port", &o.deploy.port, "port of the API").range(1, 65535);
  t.value("cluster-port", &o.deploy.cluster_port, "port where workers join").range(1, 65535);
  t.value("registry", &o.deploy.registry,
          "where workers find whoever leads: etcd://HOST:PORT[,HOST:PORT]/PREFIX");
  t.value("standbys", &o.deploy.standbys,
          "with --registry: so many coordinators more, which wait to take over").range(0, 8);
  t.flag("state", &o.deploy.state,
         "coordinators keep their epoch and nodes on disk, and workers wait for one that is "
         "restarted");
  t.value("rejoin", &o.deploy.rejoin_seconds,
          "with --state, without --registry: seconds that workers look for the coordinator again")
      .range(1, 86400);
  t.value("drain-seconds", &o.deploy.drain_seconds, "how long requests may go on after SIGTERM")
      .range(0, 86400);
  t.describe(
      "Links and devices that the scenario emulates on one machine are left out. With --out, files "
      "with keys in them are readable by their owner only.");
  t.example(
      "towline deploy scenario.toml --to systemd --coordinator head.example.org --out units/");
  t.example(
      "towline deploy scenario.toml --to systemd --registry etcd://10.0.0.5:2379/garage "
      "--standbys 1 --out units/");
  t.example("towline deploy scenario.toml --to kubernetes --image registry.example.org/towline:1 "
            "| kubectl apply -f -");
  return t;
}

// The text of `path`, or of a key file made for this deployment.
Result<std::string> key_text(const std::string& path) {
  if (!path.empty()) {
    TRY(net::read_keys(path));  // says what is wrong with it
    return read_file(path, 1 << 16);
  }
  const std::string made = format("{}/towline-deploy-{}.keys",
                                  std::filesystem::temp_directory_path().string(), ::getpid());
  ASSIGN_OR_RETURN(const net::ClusterKeys keys, net::make_keys());
  TRY(net::write_keys(made, keys));
  Result<std::string> text = read_file(made, 1 << 16);
  ::unlink(made.c_str());
  return text;
}

Result<int> run(std::span<const std::string> args) {
  DeployCommand o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(spec::Scenario scenario, spec::load_scenario(o.scenario));
  if (!scenario.plan.empty()) {  // the machines need no plan file: its layers go into the scenario
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(scenario.plan));
    for (spec::ScenarioWorker& worker : scenario.workers) {
      const spec::PlannedNode* planned = plan.find(worker.name);
      if (planned != nullptr && !worker.layers) worker.layers = planned->layers;
    }
  }
  ASSIGN_OR_RETURN(o.deploy.target, spec::deploy_target_named(o.to));
  const bool secret = o.deploy.target == spec::DeployTarget::kKubernetes &&
                      scenario.transport == "zmq" && scenario.curve && !o.deploy.insecure;
  if (secret) {
    ASSIGN_OR_RETURN(o.deploy.key_text, key_text(o.keys));
  }
  ASSIGN_OR_RETURN(const std::vector<spec::DeployFile> files,
                   spec::deploy_files(scenario, o.deploy));
  if (o.out.empty()) {
    for (const spec::DeployFile& file : files) {
      if (files.size() > 1) std::puts(format("# ---- {} ----", file.name).c_str());
      std::fputs(file.text.c_str(), stdout);
    }
    return 0;
  }
  std::error_code error;
  std::filesystem::create_directories(o.out, error);
  if (error) return errorf(Code::kIo, "'{}' cannot be made: {}", o.out, error.message());
  if (secret) ::umask(0077);
  for (const spec::DeployFile& file : files) {
    const std::string path = (std::filesystem::path(o.out) / file.name).string();
    TRY(write_file_atomic(path, file.text));
    std::puts(path.c_str());
  }
  return 0;
}

}  // namespace

const Command kDeploy = {"deploy", "files for systemd, Slurm or Kubernetes", run,
                         [](void (*sink)(const OptionTable&)) {
                           DeployCommand o;
                           sink(table(o));
                         }};

}  // namespace towline::cli
