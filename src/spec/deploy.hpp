// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Deploy: the files that start a scenario's cluster on real machines: systemd units, a Slurm batch
// script, Kubernetes manifests. Pure: texts in, texts out.
//
// Every file is complete and says in its head how to use it. All names from the scenario are quoted
// for the language they land in. Links and emulation are left out of the scenario that is deployed:
// the machines have links of their own.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "spec/scenario.hpp"

namespace towline::spec {

enum class DeployTarget { kSystemd, kSlurm, kKubernetes };
Result<DeployTarget> deploy_target_named(std::string_view name);

struct DeployOptions {
  DeployTarget target = DeployTarget::kSystemd;
  std::string program = "/usr/local/bin/towline";
  std::string model;             // where the model lies on the machines; empty: as in the scenario
  std::string coordinator;       // systemd: host name that workers dial; the others find it
  std::string folder = "/etc/towline";  // systemd: scenario and keys
  std::string image = "towline:latest";  // Kubernetes
  std::string name = "towline";  // of units, the job, the Kubernetes objects
  std::string key_text;          // Kubernetes: contents of the key file, for the Secret
  int port = 8080;               // API
  int cluster_port = 7100;       // where workers join
  int drain_seconds = 30;
  bool insecure = false;         // zmq without keys; tcp has none anyway
  std::string registry;          // URL: workers find who leads there; empty: they dial one address
  int standbys = 0;              // coordinators more, waiting to take over; needs a registry
  bool state = false;            // coordinators keep epoch and nodes on disk over their restarts
  int rejoin_seconds = 600;      // with state, without a registry: how long workers look for it
};

struct DeployFile {
  std::string name;  // file name without folder
  std::string text;
};

// Refuses what cannot be deployed: transports and registries of one machine only (shm, inproc, mpi,
// file), names that no quoting makes safe, a scenario without workers, standbys without a registry.
Result<std::vector<DeployFile>> deploy_files(const Scenario& scenario,
                                             const DeployOptions& options);

}  // namespace towline::spec
