// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// PlanProblem: a cluster, a model and the tables of speeds between them, ready to be planned for.
//
// What holds layers is a unit: a machine, or a tensor-parallel group of a machine with several
// devices. A machine with one device is one unit, so for clusters of such machines (all of Helix's)
// unit i is node i. A machine with d devices gives, for every group size g that the profile has a
// table for ("T4" for g = 1, "T4x2" for g = 2, ...), d/g units, of which those that hold layers may
// use at most d devices together (Instance::machines says so).
//
// Heuristics, the MILP and the search all take a PlanProblem (or the Instance made of it) and give
// a LinkedPlacement (or a Placement, for which valid_arcs() supplies the links).
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "plan/instance.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/helix_plan.hpp"
#include "spec/plan_desc.hpp"
#include "spec/profile.hpp"

namespace towline::plan {

struct PlanUnit {
  int32_t node = 0;     // in PlanProblem::cluster
  int32_t devices = 1;  // of the machine's
  int32_t table = 0;    // in PlanProblem::tables
};

// A directed link between units that tokens may take; kSource and kSink stand for the coordinator.
struct PlanArc {
  int32_t from = kSource;
  int32_t to = kSink;
  double bandwidth = 0;  // bytes/s
  double latency = 0;    // seconds

  friend bool operator==(const PlanArc&, const PlanArc&) = default;
};

struct PlanProblem {
  spec::ClusterDesc cluster;
  spec::ModelShape model;
  std::vector<spec::RateTable> tables;  // of the cluster's mix of machines
  std::vector<PlanUnit> units;
  std::vector<PlanArc> arcs;  // every link of the cluster, in its order, between units

  int32_t size() const { return static_cast<int32_t>(units.size()); }
  const spec::RateTable& table(int32_t unit) const { return tables[units[unit].table]; }
  const spec::MachineType& machine(int32_t unit) const { return cluster.type_of(units[unit].node); }
  // "compute_node_7"; a group is called "box#2.0" (two devices, the first such group).
  std::string unit_name(int32_t unit) const;
  // Layers that fit: the table's length, and weights in at most half of the memory (Helix's rule;
  // the other half is KV cache).
  int32_t max_layers(int32_t unit) const;
  // T(k) tokens/s, no more than the NICs carry; 1 <= layers <= max_layers(unit).
  double rate(int32_t unit, int32_t layers) const;
  // T(k) alone. Beyond the table (hand-made plans hold more) its last row stands.
  double table_rate(int32_t unit, int32_t layers) const;
  // KV capacity in layer-tokens when `layers` are held, clamped likewise.
  int64_t kv_capacity(int32_t unit, int32_t layers) const;
  // Tokens/s that an arc carries: bandwidth over the bytes of a token id (source, sink) or of an
  // activation.
  double arc_capacity(const PlanArc& arc) const;
};

// Fails if a machine type has no table.
Result<PlanProblem> make_problem(spec::ClusterDesc cluster, const spec::Profile& profile);
// Can the machines together hold the model? What every planner asks first; judging a given plan
// does not (published ones overfill their machines).
Result<void> check_capacity(const PlanProblem& problem);

// The problem as numbers; Instance node i is unit i.
Instance to_instance(const PlanProblem& problem);

// A placement and the links that its tokens take, in the order in which they are written.
struct LinkedPlacement {
  std::string method;   // "Petals", "ILP", ...
  Placement placement;  // [unit]
  std::vector<PlanArc> arcs;
  std::vector<int32_t> written;  // units that the simulator cluster lists, in its order
};

// Every arc of the problem between units whose ranges meet (usable()), from the source to units
// that begin at layer 0 and from those that end at the last layer to the sink; then, as Helix does,
// less the arcs into units that nothing leaves and out of units that nothing enters (one pass
// each).
std::vector<PlanArc> valid_arcs(const PlanProblem& problem, const Placement& placement,
                                bool partial);

// Helix's files of a plan.
spec::HelixSolution to_helix_solution(const Placement& placement);
spec::HelixSimCluster to_sim_cluster(const PlanProblem& problem, const LinkedPlacement& plan);
// A placement with exactly the arcs and nodes that a simulator cluster lists, in its order.
Result<LinkedPlacement> link_as_listed(const PlanProblem& problem, Placement placement,
                                       const spec::HelixSimCluster& sim);
// A native plan on this cluster, with the links that it lists. Fails if it was made for another.
Result<LinkedPlacement> link_as_planned(const PlanProblem& problem, const spec::PlanDesc& plan);
// A solution's ranges, checked against the problem: one range a unit, inside the model. A hand-made
// plan may hold more layers than the memory rule allows.
Result<Placement> placement_of(const spec::HelixSolution& solution, const PlanProblem& problem);

}  // namespace towline::plan
