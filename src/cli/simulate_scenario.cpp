// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/simulate_scenario.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "base/fmt.hpp"
#include "cli/plan_inputs.hpp"
#include "cli/simulate_roles.hpp"
#include "plan/plan_cluster.hpp"
#include "policy/serving_limits.hpp"
#include "serve/cluster_plan.hpp"
#include "sim/helix_load.hpp"
#include "spec/ini.hpp"
#include "spec/plan_desc.hpp"
#include "spec/roofline.hpp"

namespace towline::cli {
namespace {

constexpr double kUnlimited = 1e12;  // bytes/s
constexpr std::string_view kCoordinator = "coordinator";

// Where the times are: --profile, else the scenario's, else those called like the model.
std::string profile_name(const spec::Scenario& scenario, const std::string& given) {
  if (!given.empty()) return given;
  return scenario.emulation.profile.empty() ? scenario.model : scenario.emulation.profile;
}

// Machine types of the scenario's cluster file, else well-known devices
// that its workers are called by.
Result<spec::ClusterDesc> machines_of(const spec::Scenario& scenario) {
  if (!scenario.cluster.empty()) return spec::load_cluster(scenario.cluster);
  spec::ClusterDesc machines;
  for (const spec::ScenarioWorker& w : scenario.workers) {
    const auto known = spec::known_device(w.type);
    if (!known) {
      return errorf(Code::kInvalidArgument,
                    "there are no times for '{}' on worker {} (type '{}'): measure them with "
                    "`towline profile {} --out p.toml` and give --profile p.toml, or give its "
                    "type, a known device such as L4 or one that the cluster file describes",
                    scenario.model, w.name, w.type, scenario.model);
    }
    const auto same = std::ranges::find(machines.types, w.type, &spec::MachineType::name);
    const auto type = static_cast<int32_t>(same - machines.types.begin());
    if (same == machines.types.end()) {
      spec::MachineType& made = machines.types.emplace_back();
      made.name = w.type;
      made.memory = known->memory;
    }
    machines.nodes.push_back({w.name, type, w.tensor_parallel, {}});
  }
  return machines;
}

struct Times {
  spec::Profile profile;
  bool measured = true;
};

Result<Times> times_of(const spec::Scenario& scenario, const std::string& given) {
  std::string name = profile_name(scenario, given);
  Times times;
  if (name.ends_with(".json") || name.ends_with(".toml")) {
    ASSIGN_OR_RETURN(times.profile, spec::load_profile(name));
    return times;
  }
  const std::string stem = std::filesystem::path(name).filename().string();
  if (auto builtin = spec::builtin_profile(stem)) {
    times.profile = *std::move(builtin);
    return times;
  }
  if (name != scenario.model) return spec::builtin_profile(stem).error();
  times.measured = false;
  ASSIGN_OR_RETURN(const ShapedModel model, load_shape(scenario.model));
  ASSIGN_OR_RETURN(const spec::ClusterDesc machines, machines_of(scenario));
  ASSIGN_OR_RETURN(times.profile,
                   spec::roofline_profile(model.desc, machines, model.bytes_per_weight));
  return times;
}

// The workers with their layers, in the scenario's order.
Result<std::vector<serve::ClusterNode>> placed(const spec::Scenario& scenario, int32_t layers) {
  std::vector<serve::ClusterNode> nodes;
  for (const spec::ScenarioWorker& w : scenario.workers) {
    serve::ClusterNode node;
    node.name = w.name;
    node.layers = w.layers.value_or(LayerRange{});
    node.speed = w.speed;
    nodes.push_back(std::move(node));
  }
  if (nodes.empty()) return Error(Code::kInvalidArgument, "the scenario names no [[workers]]");
  if (!scenario.plan.empty()) {
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(scenario.plan));
    for (serve::ClusterNode& node : nodes) {
      const spec::PlannedNode* planned = plan.find(node.name);
      if (planned != nullptr && node.layers.empty()) node.layers = planned->layers;
    }
  }
  TRY(serve::assign_layers(nodes, layers));
  for (const serve::ClusterNode& node : nodes) {
    if (node.layers.end <= layers && node.layers.begin >= 0) continue;
    return errorf(Code::kInvalidArgument, "worker {} holds layers {} to {}, the model has {}",
                  node.name, node.layers.begin, node.layers.end - 1, layers);
  }
  return nodes;
}

Result<std::string> type_of(const spec::ScenarioWorker& w, const spec::Profile& profile) {
  std::string type = w.type;
  if (type.empty() && profile.devices.size() == 1) type = profile.devices.front().type;
  if (w.stages > 1) {
    return errorf(Code::kUnsupported,
                  "worker {}: workers of several stages ({}) are not simulated; "
                  "give each stage as a worker", w.name, w.stages);
  }
  if (w.tensor_parallel > 1 && profile.find(format("{}x{}", type, w.tensor_parallel)) != nullptr) {
    type += format("x{}", w.tensor_parallel);
  } else if (w.tensor_parallel > 1 && !type.empty()) {
    return errorf(Code::kUnsupported, "worker {}: the profile has no times of {} ranks ('{}x{}')",
                  w.name, w.tensor_parallel, type, w.tensor_parallel);
  }
  if (profile.find(type) != nullptr) return type;
  return errorf(Code::kInvalidArgument, "worker {}: type '{}' is not in the profile", w.name, type);
}

// Both ways between the coordinator and the workers, wherever layers follow each other.
void add_links(const spec::Scenario& scenario, sim::HelixInput& input) {
  const auto name = [&](int32_t place) {
    return place < 0 ? std::string(kCoordinator) : input.nodes[place].name;
  };
  const auto add = [&](int32_t from, int32_t to) {
    sim::HelixLink link{from, to, 0, kUnlimited, 0};
    if (const spec::ScenarioLink* l = scenario.link_between(name(from), name(to))) {
      link.latency = l->latency.value + l->jitter.value / 2;
      if (l->bandwidth.value > 0) link.bandwidth = l->bandwidth.value;
      link.bandwidth *= 1 - std::min(l->loss, 0.99);
    }
    input.links.push_back(link);
  };
  const auto nodes = static_cast<int32_t>(input.nodes.size());
  for (int32_t a = 0; a < nodes; ++a) {
    const LayerRange layers = input.nodes[a].layers;
    if (layers.empty()) continue;
    if (layers.begin == 0) add(policy::kSourceNode, a);
    if (layers.end == input.total_layers) add(a, policy::kSinkNode);
    for (int32_t b = 0; b < nodes; ++b) {
      const LayerRange next = input.nodes[b].layers;
      if (!next.empty() && next.begin <= layers.end && layers.end < next.end) add(a, b);
    }
  }
}

// KV memory of a worker in tokens: its own, else what `towline up` gives a real one, else what the
// type's memory leaves.
Result<int64_t> kv_tokens(const spec::ScenarioWorker& w, const serve::ClusterNode& node,
                          const spec::DeviceProfile& device,
                          const std::optional<spec::ModelDesc>& real,
                          const spec::ScenarioServing& serving) {
  if (w.kv_tokens > 0 || node.layers.empty()) return w.kv_tokens;
  if (real && !w.emulate) return serve::kv_tokens_of(node, *real, serving);
  if (device.kv_blocks.empty()) {
    return errorf(Code::kInvalidArgument, "worker {}: its KV memory is not known; give kv_tokens",
                  w.name);
  }
  const auto held = static_cast<size_t>(node.layers.size());
  return device.kv_blocks[std::min(held, device.kv_blocks.size()) - 1] * spec::kBlockTokens;
}

// `real`: the model that real workers load.
Result<sim::HelixInput> listed_input(const spec::Scenario& scenario, const spec::Profile& profile,
                                     const std::optional<spec::ModelDesc>& real) {
  ASSIGN_OR_RETURN(const auto nodes, placed(scenario, profile.model.layers));
  // As a cluster and a plan of the other form, whose loader knows the tables.
  spec::HelixSimCluster cluster;
  cluster.coordinator_nic_in.value = cluster.coordinator_nic_out.value = kUnlimited;
  spec::HelixSolution solution;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const spec::ScenarioWorker& w = scenario.workers[i];
    ASSIGN_OR_RETURN(const std::string type, type_of(w, profile));
    const spec::DeviceProfile& device = *profile.find(type);
    spec::HelixSimCluster::Node node;
    node.name = spec::helix_node_name(static_cast<int32_t>(i));
    node.machine_type = type;
    node.nic_in.value = node.nic_out.value = kUnlimited;
    node.disk.value = 1e9;
    ASSIGN_OR_RETURN(const int64_t tokens,
                     kv_tokens(w, nodes[i], device, real, scenario.serving));
    node.kv_capacity = tokens * nodes[i].layers.size();
    cluster.nodes.push_back(std::move(node));
    solution.nodes.push_back(nodes[i].layers);
  }
  ASSIGN_OR_RETURN(sim::HelixInput input,
                   sim::make_helix_input(cluster, solution, profile, {}));
  for (size_t i = 0; i < nodes.size(); ++i) input.nodes[i].name = nodes[i].name;
  add_links(scenario, input);
  return input;
}

Result<spec::PlanDesc> plan_of(const spec::Scenario& s, const spec::ClusterDesc& cluster,
                               const spec::Profile& profile) {
  if (!s.plan.empty()) return spec::load_plan(s.plan);
  ASSIGN_OR_RETURN(plan::ClusterPlan planned, plan::plan_cluster(cluster, profile));
  return std::move(planned.desc);
}

// Every node of a plan is a worker: Helix's files, or a cluster and a plan of `towline plan`,
// or of the search here if there is none. With `prompt_machines`, so many process
// prompts and the others decode.
Result<sim::HelixInput> planned_input(const spec::Scenario& s, const std::string& given,
                                      int prompt_machines) {
  if (s.cluster.ends_with(".ini")) {
    ASSIGN_OR_RETURN(const spec::IniFile file, spec::IniFile::load(s.cluster));
    if (file.find("NodeNames") != nullptr) {
      return errorf(Code::kInvalidArgument,
                    "'{0}' is one of Helix's cluster files, which does not describe the machines; "
                    "convert it first: towline cluster show {0} --profile machine_profile.ini "
                    "--toml",
                    s.cluster);
    }
    return sim::load_helix_input({s.cluster, s.plan, profile_name(s, given), "", "", ""}, false);
  }
  ASSIGN_OR_RETURN(const Times times, times_of(s, given));
  ASSIGN_OR_RETURN(const spec::ClusterDesc cluster, spec::load_cluster(s.cluster));
  std::vector<PlacedMachine> placed;
  if (prompt_machines > 0) {
    ASSIGN_OR_RETURN(placed, place_roles(cluster, times.profile, prompt_machines));
  } else {
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, plan_of(s, cluster, times.profile));
    for (const spec::PlannedNode& node : plan.nodes) {
      if (!node.layers.empty()) placed.push_back({node.name, node.layers, policy::NodeRole::kBoth});
    }
  }
  std::map<std::string, int32_t> place_of;
  for (int32_t i = 0; i < cluster.size(); ++i) place_of[cluster.nodes[i].name] = i;
  spec::Scenario listed = s;
  listed.plan.clear();
  listed.workers.clear();
  for (const PlacedMachine& machine : placed) {
    const auto place = place_of.find(machine.name);
    if (place == place_of.end()) {
      return errorf(Code::kInvalidArgument,
                    "the plan's node '{}' is not in {}; one device in each machine is simulated",
                    machine.name, s.cluster);
    }
    spec::ScenarioWorker& worker = listed.workers.emplace_back();
    worker.name = machine.name;
    worker.type = cluster.type_of(place->second).name;
    worker.layers = machine.layers;
  }
  ASSIGN_OR_RETURN(sim::HelixInput input, listed_input(listed, times.profile, {}));
  input.coordinator_nic_in = cluster.coordinator_nic_in.value;
  input.coordinator_nic_out = cluster.coordinator_nic_out.value;
  std::map<std::string, int32_t> places = {
      {cluster.endpoint_name(spec::kSource), policy::kSourceNode},
      {cluster.endpoint_name(spec::kSink), policy::kSinkNode}};
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    sim::HelixNode& node = input.nodes[i];
    const spec::MachineType& type = cluster.type_of(place_of.at(node.name));
    node.nic_in = type.nic_in.value;
    node.nic_out = type.nic_out.value;
    node.disk = type.disk.value;
    node.price = type.price;
    node.role = placed[i].role;
    places[node.name] = static_cast<int32_t>(i);
  }
  std::map<std::pair<int32_t, int32_t>, const spec::ClusterLink*> links;
  for (const spec::ClusterLink& link : cluster.links) {
    const auto from = places.find(cluster.endpoint_name(link.from));
    const auto to = places.find(cluster.endpoint_name(link.to));
    if (from != places.end() && to != places.end()) links[{from->second, to->second}] = &link;
  }
  // Only what the cluster joins is joined.
  std::erase_if(input.links,
                [&](const sim::HelixLink& l) { return !links.contains({l.from, l.to}); });
  if (prompt_machines > 0) {
    settle_roles(input);
    for (const auto& [ends, there] : links) {
      const auto role = [&](int32_t place) { return input.nodes[place].role; };
      if (ends.first < 0 || ends.second < 0 || role(ends.first) == role(ends.second)) continue;
      sim::HelixLink link{ends.first, ends.second, 0, kUnlimited};
      link.kv_only = true;
      input.links.push_back(link);
    }
  }
  for (sim::HelixLink& link : input.links) {
    const spec::ClusterLink& there = *links.at({link.from, link.to});
    link.latency += there.latency.value;
    if (there.bandwidth.value > 0) link.bandwidth = std::min(link.bandwidth, there.bandwidth.value);
  }
  return input;
}

}  // namespace

Result<sim::HelixInput> scenario_input(const spec::Scenario& scenario, const std::string& given,
                                       int prompt_machines) {
  Result<sim::HelixInput> made = Error(Code::kInternal, "");
  std::optional<spec::ModelDesc> model;
  if (Result<ShapedModel> shaped = load_shape(scenario.model)) model = shaped->desc;
  if (scenario.emulation.plan_workers) {
    made = planned_input(scenario, given, prompt_machines);
  } else {
    ASSIGN_OR_RETURN(const Times times, times_of(scenario, given));
    made = listed_input(scenario, times.profile, times.measured ? model : std::nullopt);
  }
  if (!made) return made;
  if (model) made->kv_bytes = static_cast<double>(model->kv_bytes_per_token_layer().value);
  // As the emulated cluster does it: devices and links are slower by the same factor.
  const double slowness = scenario.emulation.slowness;
  for (sim::LayerTimes& times : made->times) {
    for (double& t : times.prompt) t *= slowness;
    for (double& t : times.decode) t *= slowness;
    for (double& t : times.head) t *= slowness;
    times.decode_context_seconds *= slowness;
    times.prompt_context_seconds *= slowness;
  }
  for (sim::HelixNode& node : made->nodes) node.rate /= slowness;
  if (scenario.emulation.plan_workers) {
    for (sim::HelixLink& link : made->links) {
      link.latency *= slowness;
      link.bandwidth /= slowness;
    }
  }
  if (scenario.emulation.full_floats) made->activation_bytes *= 2;
  return made;
}

Result<void> adopt_serving(const spec::Scenario& scenario, const SimulateOptions& o,
                           sim::StageOptions& options) {
  const spec::ScenarioServing& s = scenario.serving;
  if (s.async) {
    return Error(Code::kUnsupported,
                 "a scenario with [serving] async = true is not simulated: a step that is sent "
                 "before its tokens are known would have to wait for them at the first node");
  }
  ASSIGN_OR_RETURN(const policy::CoordinatorOptions limits, policy::coordinator_options(s));
  options.host = policy::host_options(limits);
  options.host->depth = o.depth;
  if (o.kv_high_water >= 0) options.host->estimator.high_water = o.kv_high_water;
  if (o.output_ratio >= 0) options.host->estimator.output_ratio = o.output_ratio;
  options.most_unfinished = int64_t{s.queue} + s.sequences;
  return {};
}

void adopt_workload(const spec::Scenario& scenario, SimulateOptions& o) {
  const spec::ScenarioWorkload& w = scenario.workload;
  const bool other = !o.arrivals_of.empty() || !o.servegen.empty();
  if (o.trace.empty() && o.lengths.empty() && !other) o.trace = w.trace;
  if (o.rate == 0 && o.arrivals_of.empty()) o.rate = w.rate;
  if (o.requests == 0) o.requests = w.requests;
  if (o.seed == 0) o.seed = w.seed;
  if (o.input == 0) o.input = w.input;
  if (o.output == 0) o.output = w.output;
  if (!o.mode.empty()) return;
  o.mode = !o.trace.empty() || o.rate > 0 || other ? "online" : "offline";
}

}  // namespace towline::cli
