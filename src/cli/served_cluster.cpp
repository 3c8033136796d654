// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/served_cluster.hpp"

#include <algorithm>
#include <bit>
#include <map>

#include "base/fmt.hpp"
#include "cli/plan_inputs.hpp"
#include "engine/format/model_file.hpp"
#include "serve/model_text.hpp"
#include "serve/stand_in_text.hpp"
#include "sim/helix_load.hpp"
#include "spec/helix_cluster.hpp"
#include "spec/helix_plan.hpp"
#include "spec/plan_desc.hpp"
#include "spec/profile.hpp"
#include "worker/emulated_executor.hpp"
#include "worker/node_agent.hpp"

namespace towline::cli {
namespace {

constexpr int32_t kMostRanks = 64;  // of a worker

// A node of a plan that is to be emulated.
struct PlanWorker {
  std::string name, type;
  LayerRange layers;
  double capacity = 0;    // tokens/s through all of its layers
  int64_t kv_blocks = 0;  // 0: the profile's
};
struct PlanWorkers {
  std::vector<PlanWorker> workers;
  std::vector<serve::PlannedLink> links;
  std::optional<spec::ClusterDesc> machines;
};

Result<spec::Profile> profile_of(const std::string& name) {
  const std::vector<std::string> known = spec::builtin_models();
  return std::ranges::find(known, name) != known.end() ? spec::builtin_profile(name)
                                                       : spec::load_profile(name);
}

// Helix's simulator_cluster.ini and *_sol.ini.
Result<PlanWorkers> helix_workers(const spec::Scenario& s, const spec::Profile& profile) {
  ASSIGN_OR_RETURN(const spec::HelixSimCluster cluster, spec::load_helix_sim_cluster(s.cluster));
  ASSIGN_OR_RETURN(const spec::HelixSolution solution, spec::load_helix_solution(s.plan));
  ASSIGN_OR_RETURN(sim::HelixInput input, sim::make_helix_input(cluster, solution, profile, {}));
  sim::plan_flow(input);
  PlanWorkers out;
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    const sim::HelixNode& node = input.nodes[i];
    if (node.layers.empty()) continue;
    PlanWorker& worker = out.workers.emplace_back();
    worker.name = node.name;
    worker.type = cluster.nodes[i].machine_type;
    worker.layers = node.layers;
    worker.capacity = node.rate;
    worker.kv_blocks = node.kv_capacity / node.layers.size() / spec::kBlockTokens;
  }
  spec::ClusterDesc& machines = out.machines.emplace();
  for (const sim::HelixNode& node : input.nodes) machines.nodes.push_back({node.name, 0, 1, {}});
  const auto name = [&](int32_t place) {
    return place < 0 ? std::string() : input.nodes[static_cast<size_t>(place)].name;
  };
  for (size_t i = 0; i < input.links.size(); ++i) {
    const sim::HelixLink& link = input.links[i];
    const bool ends = link.from < 0 || link.to < 0;
    const double bytes = ends ? input.token_bytes : input.token_bytes + input.activation_bytes;
    out.links.push_back({name(link.from), name(link.to), link.bandwidth / bytes, input.flow[i]});
    machines.links.push_back({link.from < 0 ? spec::kSource : link.from,
                              link.to < 0 ? spec::kSink : link.to, BytesPerSec(link.bandwidth),
                              Seconds(link.latency)});
  }
  return out;
}

// A cluster file and a plan of `towline plan`.
Result<PlanWorkers> native_workers(const spec::Scenario& s, const spec::Profile& profile) {
  ASSIGN_OR_RETURN(const spec::ClusterDesc cluster, spec::load_cluster(s.cluster));
  ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(s.plan));
  spec::MachineMix mix;
  std::map<std::string, std::string> type_of;
  for (int32_t i = 0; i < cluster.size(); ++i) {
    mix.emplace_back(cluster.type_of(i).name, 1);
    type_of[cluster.nodes[static_cast<size_t>(i)].name] = cluster.type_of(i).name;
  }
  ASSIGN_OR_RETURN(const std::vector<spec::RateTable> tables, spec::derive_rates(profile, mix));
  PlanWorkers out;
  for (const spec::PlannedNode& node : plan.nodes) {
    if (node.layers.empty()) continue;
    const auto type = type_of.find(node.name);
    if (type == type_of.end()) {
      return errorf(Code::kInvalidArgument,
                    "{}: node '{}' is not in {}; plan_workers needs a plan of "
                    "that cluster, with one device in each machine",
                    s.plan, node.name, s.cluster);
    }
    PlanWorker& worker = out.workers.emplace_back();
    worker.name = node.name;
    worker.type = type->second;
    worker.layers = node.layers;
    const spec::RateTable& table = *spec::find_table(tables, worker.type);
    const auto held = std::min(node.layers.size(), table.max_layers());
    worker.capacity = table.points[static_cast<size_t>(held - 1)].rate.value;
  }
  const auto name = [](const std::string& end) {
    return end == "source" || end == "sink" ? std::string() : end;
  };
  for (const spec::PlannedLink& link : plan.links) {
    out.links.push_back({name(link.from), name(link.to), link.capacity.value, link.flow.value});
  }
  out.machines = cluster;
  return out;
}

// --- emulated -----------------------------------------------------------------------------------

// The [[workers]] of the scenario, with layers of the plan, or by their speed.
Result<PlanWorkers> listed_workers(const spec::Scenario& s, const spec::Profile& profile) {
  std::vector<serve::ClusterNode> nodes;
  spec::MachineMix mix;
  for (const spec::ScenarioWorker& w : s.workers) {
    if (!w.emulate || w.tensor_parallel != 1 || w.stages != 1) {
      return errorf(Code::kUnsupported,
                    "worker {}: emulated workers have one rank and one stage (give a type like "
                    "T4x2 instead), and where one worker is emulated all must be", w.name);
    }
    serve::ClusterNode& node = nodes.emplace_back();
    node.name = w.name;
    node.layers = w.layers.value_or(LayerRange{});
    node.speed = w.speed;
    mix.emplace_back(w.type, 1);
  }
  if (!s.plan.empty()) {
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(s.plan));
    for (serve::ClusterNode& node : nodes) {
      const spec::PlannedNode* planned = plan.find(node.name);
      if (planned != nullptr && node.layers.empty()) node.layers = planned->layers;
    }
  }
  TRY(serve::assign_layers(nodes, profile.model.layers));
  ASSIGN_OR_RETURN(const std::vector<spec::RateTable> tables, spec::derive_rates(profile, mix));
  PlanWorkers out;
  for (size_t i = 0; i < nodes.size(); ++i) {
    PlanWorker& worker = out.workers.emplace_back();
    worker.name = nodes[i].name;
    worker.type = s.workers[i].type;
    worker.layers = nodes[i].layers;
    const spec::RateTable& table = *spec::find_table(tables, worker.type);
    if (worker.layers.size() > table.max_layers()) {
      return errorf(Code::kInvalidArgument,
                    "worker {}: a '{}' has room for {} layers, not for [{}, {}); give it "
                    "fewer, or more workers",
                    worker.name, worker.type, table.max_layers(), worker.layers.begin,
                    worker.layers.end);
    }
    worker.capacity = table.points[static_cast<size_t>(worker.layers.size() - 1)].rate.value;
    worker.kv_blocks = s.workers[i].kv_tokens / spec::kBlockTokens;
  }
  return out;
}

Result<ServedCluster> load_emulated(const spec::Scenario& s) {
  const std::string& tables = s.emulation.profile.empty() ? s.model : s.emulation.profile;
  const std::vector<std::string> built_in = spec::builtin_models();
  if (s.emulation.profile.empty() && std::ranges::find(built_in, s.model) == built_in.end()) {
    std::string names;
    for (const std::string& name : built_in) names += (names.empty() ? "" : ", ") + name;
    return errorf(Code::kInvalidArgument,
                  "emulated workers take their times from a profile: give [emulation] profile, "
                  "or a model with a built-in one ({}), which '{}' is not", names, s.model);
  }
  ASSIGN_OR_RETURN(const spec::Profile profile, profile_of(tables));
  ServedCluster out;
  ASSIGN_OR_RETURN(const ShapedModel shaped, load_shape(s.model));  // a file's, or a known name's
  out.model.desc = shaped.desc;
  if (out.model.desc.layers != profile.model.layers) {
    return errorf(Code::kInvalidArgument, "{} has {} layers, the profile {} is of a model with {}",
                  s.model, out.model.desc.layers, tables, profile.model.layers);
  }
  ASSIGN_OR_RETURN(out.text, serve::StandInText::create(out.model.desc.vocab));
  const bool helix = s.cluster.ends_with(".ini");
  Result<PlanWorkers> planned = !s.emulation.plan_workers ? listed_workers(s, profile)
                                : helix                   ? helix_workers(s, profile)
                                                          : native_workers(s, profile);
  if (!planned) return std::move(planned).error();
  const double slowness = s.emulation.slowness;
  for (const PlanWorker& worker : planned->workers) {
    worker::EmulatedExecutorOptions device;
    device.profile = tables;
    device.device = worker.type;
    device.vocab = out.model.desc.vocab;
    device.full_floats = s.emulation.full_floats;
    device.slowness = slowness;
    serve::ClusterNode& node = out.nodes.emplace_back();
    node.name = worker.name;
    node.layers = worker.layers;
    node.kv_tokens = worker.kv_blocks * spec::kBlockTokens;
    node.rate = worker.capacity * worker.layers.size() / slowness;
    node.executor = device.to_json();
  }
  for (serve::PlannedLink& link : planned->links) {
    link.capacity /= slowness;
    link.flow /= slowness;
    out.links.push_back(std::move(link));
  }
  out.machines = std::move(planned->machines);
  if (out.machines) {
    for (spec::ClusterLink& link : out.machines->links) {
      link.latency = Seconds(link.latency.value * slowness);
      link.bandwidth = BytesPerSec(link.bandwidth.value / slowness);
    }
  }
  return out;
}

// --- real ---------------------------------------------------------------------------------------

Result<ServedCluster> load_real(const spec::Scenario& s) {
  ASSIGN_OR_RETURN(const engine::ModelFile file, engine::ModelFile::open(s.model));
  ServedCluster out;
  out.model = {file.desc(), file.path()};
  ASSIGN_OR_RETURN(out.text, serve::ModelText::open(file));
  ASSIGN_OR_RETURN(out.model_hash, worker::model_fingerprint(s.model));
  for (const spec::ScenarioWorker& w : s.workers) {
    serve::ClusterNode& node = out.nodes.emplace_back();
    node.name = w.name;
    node.layers = w.layers.value_or(LayerRange{});
    node.threads = w.threads;
    node.tensor_parallel = w.tensor_parallel;
    node.stages = w.stages;
    node.kv_tokens = w.kv_tokens;
    node.speed = w.speed;
  }
  if (!s.plan.empty()) {
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(s.plan));
    for (serve::ClusterNode& node : out.nodes) {
      const spec::PlannedNode* planned = plan.find(node.name);
      if (planned != nullptr && node.layers.empty()) node.layers = planned->layers;
    }
  }
  TRY(serve::assign_layers(out.nodes, file.desc().layers));
  for (const serve::ClusterNode& node : out.nodes) {
    if (node.layers.size() >= node.stages) continue;
    return errorf(Code::kInvalidArgument, "worker {}: {} layers are too few for {} stages",
                  node.name, node.layers.size(), node.stages);
  }
  return out;
}

// Every layer somewhere, and nothing beyond them: what is missing no worker would bring.
Result<void> check_layers(const std::vector<serve::ClusterNode>& nodes, int32_t total) {
  std::vector<bool> held(static_cast<size_t>(total), false);
  for (const serve::ClusterNode& node : nodes) {
    if (node.layers.end > total) {
      return errorf(Code::kInvalidArgument,
                    "worker {}: layers [{}, {}) are not all in the model, which has {}", node.name,
                    node.layers.begin, node.layers.end, total);
    }
    for (int32_t l = node.layers.begin; l < node.layers.end; ++l) {
      held[static_cast<size_t>(l)] = true;
    }
  }
  const auto gap = std::ranges::find(held, false);
  if (gap == held.end()) return {};
  return errorf(Code::kInvalidArgument,
                "no worker holds layer {} of {}; the ranges are [begin, end)", gap - held.begin(),
                total);
}

// What tensor parallelism and stages take of a worker's ranks, as far as the model file does not
// matter.
Result<void> check_ranks(const spec::Scenario& s) {
  for (const spec::ScenarioWorker& w : s.workers) {
    if (w.stages * w.tensor_parallel > kMostRanks) {
      return errorf(Code::kInvalidArgument,
                    "worker {}: {} stages of {} ranks are too many; up to {} ranks in all are "
                    "possible", w.name, w.stages, w.tensor_parallel, kMostRanks);
    }
    if (std::has_single_bit(static_cast<uint32_t>(w.tensor_parallel))) continue;
    return errorf(Code::kInvalidArgument,
                  "worker {}: {} ranks are not possible; a power of two up to 64 is", w.name,
                  w.tensor_parallel);
  }
  return {};
}

}  // namespace

Result<ServedCluster> load_served_cluster(const spec::Scenario& scenario) {
  if (scenario.model.empty()) {
    return Error(Code::kInvalidArgument, "the scenario names no model; give model = \"FILE\"");
  }
  const bool emulated =
      scenario.emulation.plan_workers ||
      std::ranges::any_of(scenario.workers, [](const auto& worker) { return worker.emulate; });
  if (!emulated && scenario.workers.empty()) {
    return Error(Code::kInvalidArgument, "the scenario names no [[workers]]");
  }
  TRY(check_ranks(scenario));
  ASSIGN_OR_RETURN(ServedCluster out, emulated ? load_emulated(scenario) : load_real(scenario));
  TRY(check_layers(out.nodes, out.model.desc.layers));
  return out;
}

}  // namespace towline::cli
