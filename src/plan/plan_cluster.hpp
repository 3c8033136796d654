// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// plan_cluster: from a cluster and a profile to a finished plan in one call; for programmes that
// want a plan and no command line (`towline up`, a coordinator that plans anew).
//
//   spec::Profile profile;                        // how fast each type of machine is
//   profile.model = spec::shape_of(model);        // of a GGUF file or a Hugging Face directory
//   for (const auto& type : cluster.types) {
//     // Without a measured profile: tables from the type's memory, arithmetic and bandwidth.
//     ASSIGN_OR_RETURN(auto device, spec::roofline_device(model, speed_of(type)));
//     profile.devices.push_back(std::move(device));
//   }
//   ASSIGN_OR_RETURN(plan::ClusterPlan planned, plan::plan_cluster(cluster, profile));
//   planned.desc;    // spec::PlanDesc: layers of every node, flow and share of every link
//   planned.report;  // bound, bottleneck, flow after each failure
//
// A machine whose T(k) has been measured needs no tables: DeviceProfile{.type, .kv_blocks, .rates}
// is enough, a value for each number of layers that fits.
//
// Thread-compatible; deterministic in its arguments (plan/auto.hpp). With the default steps a
// cluster of ten machines takes some tens of milliseconds.
#pragma once

#include "base/result.hpp"
#include "plan/auto.hpp"
#include "plan/flow_report.hpp"
#include "plan/problem.hpp"
#include "spec/plan_desc.hpp"

namespace towline::plan {

struct ClusterPlanOptions {
  uint64_t seed = 1;
  int64_t steps = 40'000;  // search moves; 0: as many as `towline plan` makes
  int32_t threads = 1;
  bool partial = false;    // partial inference
  const std::atomic<bool>* stop = nullptr;
};

struct ClusterPlan {
  PlanProblem problem;
  SearchResult search;
  LinkedPlacement linked;
  FlowReport report;
  spec::PlanDesc desc;
};

// Fails, in a sentence, if a machine type has no tables, the machines cannot hold the model, or no
// placement was found that passes any flow.
Result<ClusterPlan> plan_cluster(spec::ClusterDesc cluster, const spec::Profile& profile,
                                 const ClusterPlanOptions& options = {});

// The placement with every link that its tokens may take.
LinkedPlacement link_all(const PlanProblem& problem, Placement placement, bool partial,
                         std::string method);

// The baselines that apply to this cluster and respect the memory rule, as starts of a search.
std::vector<LinkedPlacement> baseline_plans(const PlanProblem& problem, const Instance& instance,
                                            uint64_t seed);

}  // namespace towline::plan
