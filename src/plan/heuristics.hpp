// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The placements that Helix is compared with, as its reference implementation makes them: the same
// cluster, model and options give the same solution and simulator-cluster files, byte for byte
// (tested on every shipped layout). They are baselines, and starting points for milp and search.
//
//   petals       each node in turn takes as many layers as fit where the throughput is least
//                (Borzunov et al., "Petals", ACL'23 demo, with the adaption to unequal machines)
//   swarm        equal stages; the fastest node left joins the weakest stage
//                (Ryabinin et al., "SWARM parallelism", ICML'23)
//   homogeneous  full nodes packed into pipelines, types in the order of their speed
//   separate     a pipeline for each machine type, layers spread evenly; as published it may exceed
//                the rule that weights take half of the memory, and then uses the speed of the most
//                layers that fit; types whose share would leave no memory for a KV cache stay idle
//   separate_plus  the same, and one more pipeline of all the machines that stayed idle, fast types
//                first
//
// All need every node to have one device. A cluster without a link that a method wants is an error.
#pragma once

#include "base/result.hpp"
#include "plan/problem.hpp"

namespace towline::plan {

struct HeuristicOptions {
  uint64_t seed = 0;
  int32_t max_out_links = 24;  // petals, swarm: links that leave a node
  int32_t stages = 0;          // swarm; 0: the fewest equal stages that fit on every node
};

Result<LinkedPlacement> petals(const PlanProblem& problem, const HeuristicOptions& options);
Result<LinkedPlacement> swarm(const PlanProblem& problem, const HeuristicOptions& options);
Result<LinkedPlacement> homogeneous(const PlanProblem& problem, const HeuristicOptions& options);
Result<LinkedPlacement> separate(const PlanProblem& problem, const HeuristicOptions& options);
Result<LinkedPlacement> separate_plus(const PlanProblem& problem, const HeuristicOptions& options);

// Shared by them: the problem's arc between two ends.
class ArcIndex {
 public:
  explicit ArcIndex(const PlanProblem& problem);
  Result<PlanArc> find(int32_t from, int32_t to) const;  // an error names the missing link

 private:
  const PlanProblem& problem_;
  std::vector<std::vector<std::pair<int32_t, size_t>>> by_from_;  // [from + 1], sorted by `to`
};

// Every node has one device and room for a layer.
Result<void> check_single_devices(const PlanProblem& problem);

}  // namespace towline::plan
