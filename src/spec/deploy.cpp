// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/deploy.hpp"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/fmt.hpp"
#include "base/json.hpp"

namespace towline::spec {
namespace {

using Words = std::vector<std::string>;

// --- quoting -------------------------------------------------------------------------------------

bool plain(std::string_view word) {
  return !word.empty() && std::ranges::all_of(word, [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("-_./:=,@+").find(static_cast<char>(c)) !=
                                       std::string_view::npos;
  });
}

std::string shell_word(const std::string& word) {
  if (plain(word)) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// systemd.service(5), "Command lines": % and $ are its own.
std::string systemd_word(const std::string& word) {
  std::string out;
  for (const char c : word) {
    if (c == '%' || c == '$') out += c;
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return plain(word) ? out : "\"" + out + "\"";
}

std::string line_of(const Words& words, std::string (*quote)(const std::string&)) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + quote(word);
  return out;
}

// A JSON string is a YAML string.
std::string yaml(const std::string& text) { return Json(text).dump(); }

std::string yaml_words(const Words& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "[" : ", ") + yaml(word);
  return out + "]";
}

std::string indented(const std::string& text, int spaces) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) out += std::string(static_cast<size_t>(spaces), ' ') + text.substr(at, end - at);
    out += '\n';
    at = end + 1;
  }
  return out;
}

// A name for files, units and Kubernetes objects (RFC 1123 label).
std::string label_of(std::string_view name) {
  std::string out;
  for (const char c : name) {
    const bool keep = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (keep) {
      out += c;
    } else if (c >= 'A' && c <= 'Z') {
      out += static_cast<char>(c - 'A' + 'a');
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
  }
  while (out.ends_with('-')) out.pop_back();
  return out.substr(0, 40);
}

// --- what every target says ----------------------------------------------------------------------

class Deployment {
 public:
  Deployment(const Scenario& scenario, const DeployOptions& options)
      : s_(scenario), o_(options), secure_(s_.transport == "zmq" && s_.curve && !o_.insecure) {
    s_.links.clear();
    s_.cluster.clear();
    s_.plan.clear();
    s_.emulation = {};
    if (!o_.model.empty()) s_.model = o_.model;
    for (ScenarioWorker& worker : s_.workers) worker.emulate = false;
  }

  Result<std::vector<DeployFile>> files() {
    TRY(check());
    switch (o_.target) {
      case DeployTarget::kSystemd:
        systemd();
        break;
      case DeployTarget::kSlurm:
        slurm();
        break;
      case DeployTarget::kKubernetes:
        kubernetes();
        break;
    }
    return std::move(files_);
  }

 private:
  Result<void> check() {
    if (s_.transport != "tcp" && s_.transport != "zmq") {
      return errorf(Code::kUnsupported, "transport '{}' does not leave the machine; the scenario's "
                    "[net] must say zmq or tcp to be deployed", s_.transport);
    }
    if (s_.workers.empty()) {
      return Error(Code::kInvalidArgument, "the scenario names no [[workers]] to deploy");
    }
    std::set<std::string> labels;
    for (const ScenarioWorker& worker : s_.workers) {
      const bool printable = std::ranges::all_of(
          worker.name, [](unsigned char c) { return c > ' ' && c < 127; });
      if (!printable || worker.name.size() > 64 || label_of(worker.name).empty()) {
        return errorf(Code::kInvalidArgument,
                      "worker '{}': a name to be deployed has 1 to 64 "
                      "printable letters without spaces, one of them a letter or digit",
                      worker.name);
      }
      if (!labels.insert(label_of(worker.name)).second) {
        return errorf(Code::kInvalidArgument, "worker '{}': another worker's files would have the "
                      "same name '{}'; rename one", worker.name, label_of(worker.name));
      }
    }
    if (!o_.registry.empty() && !o_.registry.starts_with("etcd://") &&
        !o_.registry.starts_with("etcds://")) {
      return errorf(Code::kInvalidArgument, "--registry '{}' does not reach other machines; write "
                    "etcd://HOST:PORT[,HOST:PORT]/PREFIX", o_.registry);
    }
    if (o_.standbys > 0 && o_.registry.empty()) {
      return Error(Code::kInvalidArgument,
                   "--standbys wait for a lead in a registry: they need --registry");
    }
    for (const std::string& text :
         {o_.program, s_.model, o_.coordinator, o_.folder, o_.image, o_.name, o_.registry}) {
      if (std::ranges::any_of(text, [](unsigned char c) { return c < ' '; })) {
        return errorf(Code::kInvalidArgument, "'{}' has a control character in it", text);
      }
    }
    if (label_of(o_.name) != o_.name || o_.name.empty()) {
      return errorf(Code::kInvalidArgument, "--name '{}' must be small letters, digits and dashes",
                    o_.name);
    }
    return {};
  }

  // `advertise`: the host by which the registry tells this coordinator;
  // empty: as the machine is called.
  Words coordinator_words(const std::string& scenario, const std::string& keys,
                          const std::string& state, const std::string& advertise = {}) const {
    Words words = {o_.program, "serve", "--cluster", scenario, "--listen",
                   format("{}://0.0.0.0:{}", s_.transport, o_.cluster_port), "--host", "0.0.0.0",
                   "--port", std::to_string(o_.port), "--drain-seconds",
                   std::to_string(o_.drain_seconds)};
    if (!o_.registry.empty()) {
      words.insert(words.end(), {"--registry", o_.registry});
      if (!advertise.empty()) {
        words.insert(words.end(), {"--advertise",
                                   format("{}://{}:{}", s_.transport, advertise, o_.cluster_port)});
      }
      // The first that comes leads; who comes back finds that another does,
      // and waits like the rest.
      if (o_.standbys > 0) words.emplace_back("--standby");
    }
    if (o_.state) words.insert(words.end(), {"--state", state});
    add_keys(words, keys);
    return words;
  }
  Words worker_words(const std::string& name, const std::string& host,
                     const std::string& keys) const {
    Words words = {o_.program, "worker"};
    if (!o_.registry.empty()) {
      words.insert(words.end(),
                   {"--registry", o_.registry, "--name", name, "--connect-seconds", "0"});
    } else {
      words.insert(words.end(),
                   {"--connect", format("{}://{}:{}", s_.transport, host, o_.cluster_port),
                    "--name", name, "--connect-seconds", "600"});
      if (o_.state) words.insert(words.end(), {"--rejoin", std::to_string(o_.rejoin_seconds)});
    }
    add_keys(words, keys);
    return words;
  }
  void add_keys(Words& words, const std::string& keys) const {
    if (secure_) words.insert(words.end(), {"--keys", keys});
    if (s_.transport == "zmq" && !secure_) words.emplace_back("--insecure");
  }
  void add(std::string name, std::string text) {
    files_.push_back({std::move(name), std::move(text)});
  }
  std::string scenario_text() const {
    return "# As deployed: without the links and devices that are emulated on one machine.\n" +
           print_scenario(s_);
  }

  void systemd();
  std::string unit(const std::string& what, const Words& command, bool always, int stop_seconds,
                   const std::string& state = {}) const;
  void slurm();
  void kubernetes();
  std::string kubernetes_coordinator() const;
  std::string kubernetes_worker(const ScenarioWorker& worker) const;
  std::string volumes() const;

  Scenario s_;
  const DeployOptions& o_;
  const bool secure_;
  std::vector<DeployFile> files_;
};

// --- systemd -------------------------------------------------------------------------------------

std::string Deployment::unit(const std::string& what, const Words& command, bool always,
                             int stop_seconds, const std::string& state) const {
  return format(R"([Unit]
Description={}
Documentation=https://github.com/towline/towline
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={}
Restart={}
RestartSec=2
# SIGTERM drains; after this long the process is killed.
TimeoutStopSec={}
KillMode=mixed
LimitNOFILE=65536
LimitMEMLOCK=infinity
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
{}{}
[Install]
WantedBy=multi-user.target
)",
                what, line_of(command, systemd_word), always ? "always" : "on-failure",
                stop_seconds,
                secure_ ? format("LoadCredential=cluster.keys:{}/cluster.keys\n", o_.folder) : "",
                state.empty() ? "" : format("StateDirectory={}\n", state));
}

void Deployment::systemd() {
  const std::string keys = "${CREDENTIALS_DIRECTORY}/cluster.keys";
  const std::string host = o_.coordinator.empty() ? "coordinator" : o_.coordinator;
  // The credentials' folder is known to systemd only: its variable must reach it unquoted.
  const auto with_credentials = [&](std::string text) {
    const std::string quoted = systemd_word(keys);
    for (size_t at; (at = text.find(quoted)) != std::string::npos;) {
      text.replace(at, quoted.size(), keys);
    }
    return text;
  };
  add("scenario.toml", scenario_text());
  std::string steps =
      format("# 1. On every machine: {}, and the model at {}.\n", o_.program, s_.model);
  if (secure_) {
    steps += format(
        "# 2. Once: towline net keys cluster.keys; copy it to {}/cluster.keys (mode 600, "
        "root) on every machine.\n",
        o_.folder);
  }
  steps += format(
      "# 3. This file and {}/scenario.toml on the coordinator, each worker's unit on its "
      "machine; then systemctl enable --now.\n",
      o_.folder);
  if (o_.standbys > 0) {
    steps += format(
        "# 4. The same unit and scenario on {} more machine{}: whoever comes first leads, the "
        "others stand by.\n",
        o_.standbys, o_.standbys > 1 ? "s" : "");
  }
  // One that ended with an error is of use again where others remember it.
  const bool comes_back = o_.state || !o_.registry.empty();
  add(o_.name + "-coordinator.service",
      steps + with_credentials(unit(
                  "Towline coordinator",
                  coordinator_words(o_.folder + "/scenario.toml", keys, "/var/lib/" + o_.name),
                  comes_back, o_.drain_seconds + 10, o_.state ? o_.name : "")));
  for (const ScenarioWorker& worker : s_.workers) {
    add(format("{}-worker-{}.service", o_.name, label_of(worker.name)),
        with_credentials(unit("Towline worker " + label_of(worker.name),
                              worker_words(worker.name, host, keys), true, 20)));
  }
}

// --- Slurm ---------------------------------------------------------------------------------------

void Deployment::slurm() {
  add("scenario.toml", scenario_text());
  const size_t coordinators = 1 + static_cast<size_t>(o_.standbys);
  const size_t tasks = s_.workers.size() + coordinators;
  int32_t threads = 1;
  for (const ScenarioWorker& w : s_.workers) {
    threads = std::max(threads, w.threads * w.tensor_parallel * w.stages);
  }
  std::string text = format(
      R"(#!/bin/bash
# sbatch {0}.sbatch: {5} and {1} workers; more nodes than tasks are not used. They are dealt to
# the nodes in turn. The API's URL is the last line of this script's output; scancel drains.
#SBATCH --job-name={0}
#SBATCH --ntasks={2}
#SBATCH --cpus-per-task={3}
#SBATCH --output={0}-%j.log
#SBATCH --signal=B:TERM@{4}
set -euo pipefail
cd "${{SLURM_SUBMIT_DIR:-.}}"
mapfile -t nodes < <(scontrol show hostnames "${{SLURM_JOB_NODELIST:?this script is for sbatch}}")
head=${{nodes[0]}}
)",
      o_.name, s_.workers.size(), tasks, threads, o_.drain_seconds + 30,
      o_.standbys > 0 ? format("{} coordinators (one leads, the API is its own)", coordinators)
                      : std::string("a coordinator"));
  if (secure_) {
    text += format("keys=cluster.keys\n[ -e \"$keys\" ] || {} net keys \"$keys\"\n",
                   shell_word(o_.program));
  }
  text += R"(one="srun --nodes=1 --ntasks=1 --exact --kill-on-bad-exit=0"
pids=()
)";
  text += format("trap 'kill -TERM \"${{pids[@]:0:{}}}\" 2>/dev/null || true; wait' TERM INT\n",
                 coordinators);
  // Words that the shell has to fill in stay in double quotes.
  const auto command = [&](Words words) {
    std::string line;
    for (const std::string& word : words) {
      const bool filled = word.find("${head}") != std::string::npos || word == "$keys";
      line += (line.empty() ? "" : " ") + (filled ? "\"" + word + "\"" : shell_word(word));
    }
    return line;
  };
  for (size_t i = 0; i < coordinators; ++i) {
    text +=
        format("$one --nodelist=\"{}\" {} &\npids+=($!)\n",
               i == 0 ? std::string("$head") : format("${{nodes[{} % ${{#nodes[@]}}]}}", i),
               command(coordinator_words("scenario.toml", "$keys",
                                         i == 0 ? std::string("state") : format("state-{}", i))));
  }
  for (size_t i = 0; i < s_.workers.size(); ++i) {
    text += format("$one --nodelist=\"${{nodes[{} % ${{#nodes[@]}}]}}\" {} &\npids+=($!)\n",
                   i + coordinators, command(worker_words(s_.workers[i].name, "${head}", "$keys")));
  }
  text += format("echo \"http://$head:{}\"\nwait\n", o_.port);
  add(o_.name + ".sbatch", text);
}

// --- Kubernetes ----------------------------------------------------------------------------------

std::string Deployment::volumes() const {
  std::string out =
      "      volumes:\n"
      "        - name: models\n"
      "          persistentVolumeClaim: {claimName: " +
      o_.name + "-models, readOnly: true}\n";
  if (secure_) {
    out += "        - name: keys\n          secret: {secretName: " + o_.name +
           "-keys, defaultMode: 0o400}\n";
  }
  return out;
}

std::string Deployment::kubernetes_coordinator() const {
  std::string mounts = "            - {name: scenario, mountPath: /etc/towline, readOnly: true}\n"
                       "            - {name: models, mountPath: /models, readOnly: true}\n";
  if (secure_) {
    mounts += "            - {name: keys, mountPath: /etc/towline-keys, readOnly: true}\n";
  }
  if (o_.state) mounts += "            - {name: state, mountPath: /var/lib/towline}\n";
  // Without standbys: a standby opens its port when it leads, and would be killed for that before.
  const std::string alive = o_.standbys > 0 ? "" : R"(          livenessProbe:
            httpGet: {path: /health/live, port: http}
            periodSeconds: 10
            failureThreshold: 6
)";
  const std::string own_address = o_.registry.empty() ? "" : R"(          env:
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
)";
  const std::string claim = !o_.state ? "" : R"(  volumeClaimTemplates:
    - metadata: {name: state}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
)";
  return format(
      R"(apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {0}-coordinator
  labels: {{app: {0}}}
spec:
  serviceName: {0}-coordinator
  replicas: {8}
  podManagementPolicy: Parallel
  selector:
    matchLabels: {{app: {0}, role: coordinator}}
  template:
    metadata:
      labels: {{app: {0}, role: coordinator}}
    spec:
      terminationGracePeriodSeconds: {1}
      securityContext: {{runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001}}
      containers:
        - name: towline
          image: {2}
          command: {3}
          ports:
            - {{name: http, containerPort: {4}}}
            - {{name: cluster, containerPort: {5}}}
{9}{10}          readinessProbe:
            httpGet: {{path: /health/ready, port: http}}
            periodSeconds: 5
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
{6}{7}        - name: scenario
          configMap: {{name: {0}-scenario}}
{11})",
      o_.name, o_.drain_seconds + 15, yaml(o_.image),
      yaml_words(coordinator_words("/etc/towline/scenario.toml", "/etc/towline-keys/cluster.keys",
                                   "/var/lib/towline", "$(POD_IP)")),
      o_.port, o_.cluster_port, mounts, volumes(), 1 + o_.standbys, own_address, alive, claim);
}

std::string Deployment::kubernetes_worker(const ScenarioWorker& worker) const {
  std::string mounts = "            - {name: models, mountPath: /models, readOnly: true}\n";
  if (secure_) {
    mounts += "            - {name: keys, mountPath: /etc/towline-keys, readOnly: true}\n";
  }
  return format(R"(apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {0}-worker-{1}
  labels: {{app: {0}}}
spec:
  serviceName: {0}-coordinator
  replicas: 1
  selector:
    matchLabels: {{app: {0}, role: worker, worker: {1}}}
  template:
    metadata:
      labels: {{app: {0}, role: worker, worker: {1}}}
    spec:
      terminationGracePeriodSeconds: 20
      securityContext: {{runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001}}
      containers:
        - name: towline
          image: {2}
          command: {3}
          resources:
            requests: {{cpu: {4}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
{5}{6})",
                o_.name, label_of(worker.name), yaml(o_.image),
                yaml_words(worker_words(worker.name, o_.name + "-coordinator",
                                        "/etc/towline-keys/cluster.keys")),
                worker.threads * worker.tensor_parallel * worker.stages, mounts, volumes());
}

void Deployment::kubernetes() {
  const std::string file = std::filesystem::path(s_.model).filename().string();
  if (o_.model.empty()) s_.model = "/models/" + file;
  std::string text = format(
      "# kubectl apply -f {0}.yaml. The model must be on the volume claim {0}-models, "
      "as {1}.\n",
      o_.name, s_.model);
  text += format("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {0}-scenario\n"
                 "  labels: {{app: {0}}}\ndata:\n  scenario.toml: |\n{1}", o_.name,
                 indented(scenario_text(), 4));
  if (secure_) {
    text += format("---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: {0}-keys\n"
                   "  labels: {{app: {0}}}\ntype: Opaque\nstringData:\n  cluster.keys: {1}\n",
                   o_.name, yaml(o_.key_text));
  }
  // Ready or not: workers join before the API is ready.
  text += format("---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {0}-coordinator\n"
                 "  labels: {{app: {0}}}\nspec:\n  clusterIP: None\n"
                 "  publishNotReadyAddresses: true\n  selector: {{app: {0}, role: coordinator}}\n"
                 "  ports:\n    - {{name: cluster, port: {1}, targetPort: cluster}}\n",
                 o_.name, o_.cluster_port);
  text += format("---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {0}\n"
                 "  labels: {{app: {0}}}\nspec:\n  selector: {{app: {0}, role: coordinator}}\n"
                 "  ports:\n    - {{name: http, port: {1}, targetPort: http}}\n",
                 o_.name, o_.port);
  text += "---\n" + kubernetes_coordinator();
  for (const ScenarioWorker& worker : s_.workers) text += "---\n" + kubernetes_worker(worker);
  add(o_.name + ".yaml", text);
}

}  // namespace

Result<DeployTarget> deploy_target_named(std::string_view name) {
  if (name == "systemd") return DeployTarget::kSystemd;
  if (name == "slurm") return DeployTarget::kSlurm;
  if (name == "kubernetes") return DeployTarget::kKubernetes;
  return errorf(Code::kInvalidArgument,
                "'{}' is no target; there are systemd, slurm and kubernetes", name);
}

Result<std::vector<DeployFile>> deploy_files(const Scenario& scenario,
                                             const DeployOptions& options) {
  return Deployment(scenario, options).files();
}

}  // namespace towline::spec
