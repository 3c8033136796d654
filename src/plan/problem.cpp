// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/problem.hpp"

#include <algorithm>
#include <map>

#include "base/fmt.hpp"

namespace towline::plan {
namespace {

// The name of the table for `devices` of a type working as one group.
std::string table_name(const std::string& type, int32_t devices) {
  return devices == 1 ? type : format("{}x{}", type, devices);
}

// Group sizes of a machine with `devices` that the profile knows, largest first.
std::vector<int32_t> group_sizes(const spec::Profile& profile, const std::string& type,
                                 int32_t devices) {
  std::vector<int32_t> sizes;
  for (int32_t g = devices; g >= 1; --g) {
    if (profile.find(table_name(type, g)) != nullptr) sizes.push_back(g);
  }
  return sizes;
}

// The whole cluster as machine counts; a machine with several devices counts as its largest group.
spec::MachineMix mix_of(const spec::ClusterDesc& cluster, const spec::Profile& profile) {
  std::map<std::string, int32_t> counts;
  for (const spec::ClusterNode& node : cluster.nodes) {
    const std::string& type = cluster.types[node.type].name;
    const std::vector<int32_t> sizes = group_sizes(profile, type, node.devices);
    const int32_t size = sizes.empty() ? 1 : sizes.front();
    counts[table_name(type, size)] += node.devices / size;
  }
  return {counts.begin(), counts.end()};
}

// Adds the units of one machine; the tables of group sizes that the mix lacks are derived alone.
void add_units(PlanProblem& problem, const std::map<std::string, int32_t>& table_index,
               const spec::Profile& profile, int32_t node) {
  const int32_t devices = problem.cluster.nodes[node].devices;
  const std::string& type = problem.cluster.type_of(node).name;
  for (const int32_t g : group_sizes(profile, type, devices)) {
    const auto table = table_index.find(table_name(type, g));
    if (table == table_index.end()) continue;
    for (int32_t i = 0; i < devices / g; ++i) {
      problem.units.push_back({node, g, table->second});
    }
  }
}

// The cluster's links between all units of their ends, and links inside a machine.
void add_arcs(PlanProblem& problem) {
  std::vector<std::vector<int32_t>> units_of(problem.cluster.nodes.size());
  for (int32_t u = 0; u < problem.size(); ++u) units_of[problem.units[u].node].push_back(u);
  const auto ends = [&](int32_t endpoint) {
    return endpoint < 0 ? std::vector<int32_t>{endpoint} : units_of[endpoint];
  };
  for (const spec::ClusterLink& link : problem.cluster.links) {
    for (const int32_t from : ends(link.from)) {
      for (const int32_t to : ends(link.to)) {
        problem.arcs.push_back({from, to, link.bandwidth.value, link.latency.value});
      }
    }
  }
  for (size_t node = 0; node < units_of.size(); ++node) {
    const spec::MachineType& type = problem.cluster.type_of(static_cast<int32_t>(node));
    const double bandwidth = std::max(type.nic_in.value, type.nic_out.value);
    for (const int32_t from : units_of[node]) {
      for (const int32_t to : units_of[node]) {
        if (from != to) problem.arcs.push_back({from, to, bandwidth, 0});
      }
    }
  }
}

}  // namespace

std::string PlanProblem::unit_name(int32_t unit) const {
  const PlanUnit& self = units[unit];
  const spec::ClusterNode& node = cluster.nodes[self.node];
  if (node.devices == 1) return node.name;
  int32_t before = 0;
  for (int32_t u = unit - 1; u >= 0 && units[u].node == self.node; --u) {
    before += units[u].devices == self.devices ? 1 : 0;
  }
  return format("{}#{}.{}", node.name, self.devices, before);
}

int32_t PlanProblem::max_layers(int32_t unit) const {
  const int64_t memory = machine(unit).memory.value * units[unit].devices;
  const int64_t by_memory = (memory + 1) / (2 * model.layer_bytes.value);
  return static_cast<int32_t>(
      std::min<int64_t>({by_memory, table(unit).max_layers(), model.layers}));
}

double PlanProblem::table_rate(int32_t unit, int32_t layers) const {
  const spec::RateTable& rates = table(unit);
  return rates.points[std::min(layers, rates.max_layers()) - 1].rate.value;
}

double PlanProblem::rate(int32_t unit, int32_t layers) const {
  const spec::MachineType& type = machine(unit);
  const double nic = std::min(type.nic_in.value, type.nic_out.value) /
                     static_cast<double>(model.activation_bytes.value);
  return std::min(table_rate(unit, layers), nic);
}

int64_t PlanProblem::kv_capacity(int32_t unit, int32_t layers) const {
  if (layers <= 0) return 0;
  const spec::RateTable& rates = table(unit);
  return rates.points[std::min(layers, rates.max_layers()) - 1].kv_layer_tokens;
}

double PlanProblem::arc_capacity(const PlanArc& arc) const {
  const bool outer = arc.from == kSource || arc.to == kSink;
  return arc.bandwidth /
         static_cast<double>(outer ? model.token_bytes.value : model.activation_bytes.value);
}

Result<PlanProblem> make_problem(spec::ClusterDesc cluster, const spec::Profile& profile) {
  PlanProblem problem;
  problem.cluster = std::move(cluster);
  problem.model = profile.model;
  const spec::MachineMix mix = mix_of(problem.cluster, profile);
  ASSIGN_OR_RETURN(problem.tables, spec::derive_rates(profile, mix));
  // Groups smaller than the largest: derived beside the mix, one machine each, so that they do not
  // change the tables of the mix.
  for (const spec::ClusterNode& node : problem.cluster.nodes) {
    const std::string& type = problem.cluster.types[node.type].name;
    for (const int32_t g : group_sizes(profile, type, node.devices)) {
      const std::string name = table_name(type, g);
      if (spec::find_table(problem.tables, name) != nullptr) continue;
      spec::MachineMix extended = mix;
      extended.emplace_back(name, 1);
      ASSIGN_OR_RETURN(const auto tables, spec::derive_rates(profile, extended));
      problem.tables.push_back(*spec::find_table(tables, name));
    }
  }
  std::map<std::string, int32_t> table_index;
  for (size_t t = 0; t < problem.tables.size(); ++t) {
    table_index.emplace(problem.tables[t].type, static_cast<int32_t>(t));
  }
  for (int32_t node = 0; node < problem.cluster.size(); ++node) {
    add_units(problem, table_index, profile, node);
  }
  add_arcs(problem);
  return problem;
}

Result<void> check_capacity(const PlanProblem& problem) {
  std::vector<int32_t> layers(problem.cluster.nodes.size());  // most that a machine can hold
  for (int32_t u = 0; u < problem.size(); ++u) {
    int32_t& most = layers[problem.units[u].node];
    const int32_t groups =
        problem.cluster.nodes[problem.units[u].node].devices / problem.units[u].devices;
    most = std::max(most, problem.max_layers(u) * groups);
  }
  int64_t total = 0;
  for (const int32_t most : layers) total += most;
  if (total < problem.model.layers) {
    return errorf(Code::kInvalidArgument,
                  "the cluster is too small: its machines hold at most {} layers together and '{}' "
                  "has {}; add machines or choose a smaller model",
                  total, problem.model.name, problem.model.layers);
  }
  return {};
}

Instance to_instance(const PlanProblem& problem) {
  Instance instance;
  instance.layers = problem.model.layers;
  for (int32_t u = 0; u < problem.size(); ++u) {
    std::vector<double> rates;
    for (int32_t k = 1; k <= problem.max_layers(u); ++k) rates.push_back(problem.rate(u, k));
    instance.rates.push_back(std::move(rates));
    instance.names.push_back(problem.unit_name(u));
  }
  for (const PlanArc& arc : problem.arcs) {
    instance.links.push_back({arc.from, arc.to, problem.arc_capacity(arc)});
  }
  std::vector<SharedMachine> machines(problem.cluster.nodes.size());
  for (int32_t u = 0; u < problem.size(); ++u) {
    SharedMachine& machine = machines[problem.units[u].node];
    machine.devices = problem.cluster.nodes[problem.units[u].node].devices;
    machine.nodes.push_back(u);
    machine.node_devices.push_back(problem.units[u].devices);
  }
  for (SharedMachine& machine : machines) {
    if (machine.nodes.size() > 1) instance.machines.push_back(std::move(machine));
  }
  return instance;
}

std::vector<PlanArc> valid_arcs(const PlanProblem& problem, const Placement& placement,
                                bool partial) {
  const auto fits = [&](const PlanArc& arc) {
    if (arc.from == kSource) {
      return !placement.nodes[arc.to].empty() && placement.nodes[arc.to].begin == 0;
    }
    const LayerRange from = placement.nodes[arc.from];
    if (from.empty()) return false;
    if (arc.to == kSink) return from.end == problem.model.layers;
    const LayerRange to = placement.nodes[arc.to];
    return !to.empty() && usable(from, to, partial);
  };
  std::vector<PlanArc> arcs;
  std::copy_if(problem.arcs.begin(), problem.arcs.end(), std::back_inserter(arcs), fits);
  std::vector<bool> left(problem.units.size());
  for (const PlanArc& arc : arcs) {
    if (arc.from != kSource) left[arc.from] = true;
  }
  std::erase_if(arcs, [&](const PlanArc& arc) { return arc.to != kSink && !left[arc.to]; });
  std::vector<bool> entered(problem.units.size());
  for (const PlanArc& arc : arcs) {
    if (arc.to != kSink) entered[arc.to] = true;
  }
  std::erase_if(arcs,
                [&](const PlanArc& arc) { return arc.from != kSource && !entered[arc.from]; });
  return arcs;
}

spec::HelixSolution to_helix_solution(const Placement& placement) { return {placement.nodes}; }

spec::HelixSimCluster to_sim_cluster(const PlanProblem& problem, const LinkedPlacement& plan) {
  spec::HelixSimCluster sim;
  sim.heading = {
      format("# Simulator cluster file generated by {} layout synthesizer.", plan.method)};
  sim.coordinator_nic_in = spec::helix_speed(problem.cluster.coordinator_nic_in.value);
  sim.coordinator_nic_out = spec::helix_speed(problem.cluster.coordinator_nic_out.value);
  for (const spec::MachineType& type : problem.cluster.types) {
    sim.machine_types.push_back(type.name);
  }
  std::vector<int32_t> index(problem.units.size(), -1);
  for (const int32_t unit : plan.written) {
    index[unit] = static_cast<int32_t>(sim.nodes.size());
    const spec::MachineType& type = problem.machine(unit);
    const double memory = static_cast<double>(type.memory.value) * problem.units[unit].devices;
    sim.nodes.push_back({problem.unit_name(unit), spec::helix_memory(memory),
                         spec::helix_speed(type.nic_in.value),
                         spec::helix_speed(type.nic_out.value), spec::helix_speed(type.disk.value),
                         problem.table(unit).type,
                         problem.kv_capacity(unit, plan.placement.nodes[unit].size()), 0});
  }
  for (const PlanArc& arc : plan.arcs) {
    sim.links.push_back({arc.from < 0 ? arc.from : index[arc.from],
                         arc.to < 0 ? arc.to : index[arc.to], spec::helix_latency(arc.latency),
                         spec::helix_speed(arc.bandwidth)});
  }
  return sim;
}

Result<LinkedPlacement> link_as_listed(const PlanProblem& problem, Placement placement,
                                       const spec::HelixSimCluster& sim) {
  LinkedPlacement plan;
  plan.placement = std::move(placement);
  std::map<std::string, int32_t> units;
  for (int32_t u = 0; u < problem.size(); ++u) units.emplace(problem.unit_name(u), u);
  for (const spec::HelixSimCluster::Node& node : sim.nodes) {
    const auto found = units.find(node.name);
    if (found == units.end()) {
      return errorf(Code::kInvalidArgument,
                    "the simulator cluster has a node '{}' that the cluster does not have; give "
                    "the files of one cluster",
                    node.name);
    }
    plan.written.push_back(found->second);
  }
  for (const spec::HelixSimCluster::Link& link : sim.links) {
    plan.arcs.push_back({link.from < 0 ? link.from : plan.written[link.from],
                         link.to < 0 ? link.to : plan.written[link.to], link.bandwidth.value,
                         link.latency.value});
  }
  return plan;
}

Result<LinkedPlacement> link_as_planned(const PlanProblem& problem, const spec::PlanDesc& plan) {
  if (plan.layers != problem.model.layers) {
    return errorf(Code::kInvalidArgument,
                  "the plan has {} layers and '{}' has {}; choose the model it was made for",
                  plan.layers, problem.model.name, problem.model.layers);
  }
  std::map<std::string, int32_t> units;
  for (int32_t u = 0; u < problem.size(); ++u) units.emplace(problem.unit_name(u), u);
  LinkedPlacement linked;
  linked.method = plan.method;
  linked.placement.nodes.resize(problem.units.size());
  for (const spec::PlannedNode& node : plan.nodes) {
    const auto found = units.find(node.name);
    if (found == units.end()) {
      return errorf(Code::kInvalidArgument,
                    "the plan has a node '{}' that the cluster does not have; give the cluster it "
                    "was made for",
                    node.name);
    }
    linked.placement.nodes[found->second] = node.layers;
    if (!node.layers.empty()) linked.written.push_back(found->second);
  }
  std::sort(linked.written.begin(), linked.written.end());
  std::map<std::pair<int32_t, int32_t>, const PlanArc*> arcs;
  for (const PlanArc& arc : problem.arcs) arcs.emplace(std::pair(arc.from, arc.to), &arc);
  for (const spec::PlannedLink& link : plan.links) {
    const int32_t from = link.from == "source" ? kSource : units.at(link.from);
    const int32_t to = link.to == "sink" ? kSink : units.at(link.to);
    const auto arc = arcs.find({from, to});
    if (arc == arcs.end()) {
      return errorf(Code::kInvalidArgument,
                    "the plan uses a link from '{}' to '{}' that the cluster does not have; give "
                    "the cluster it was made for",
                    link.from, link.to);
    }
    linked.arcs.push_back(*arc->second);
  }
  return linked;
}

Result<Placement> placement_of(const spec::HelixSolution& solution, const PlanProblem& problem) {
  if (solution.nodes.size() != problem.units.size()) {
    return errorf(Code::kInvalidArgument,
                  "the solution places {} nodes but the cluster has {}; give the files of one "
                  "cluster",
                  solution.nodes.size(), problem.units.size());
  }
  for (int32_t u = 0; u < problem.size(); ++u) {
    if (solution.nodes[u].end > problem.model.layers) {
      return errorf(Code::kInvalidArgument,
                    "the solution gives '{}' layer {}, but '{}' has layers 0 to {}; choose the "
                    "model that the solution was made for",
                    problem.unit_name(u), solution.nodes[u].end - 1, problem.model.name,
                    problem.model.layers - 1);
    }
  }
  return Placement{solution.nodes};
}

}  // namespace towline::plan
