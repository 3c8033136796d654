// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline plan --method milp`: the options of the MILP and one run of it.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "base/options.hpp"
#include "base/result.hpp"
#include "plan/milp.hpp"
#include "plan/problem.hpp"

namespace towline::cli {

struct MilpInputs {
  std::string start = "petals";  // petals, swarm, homogeneous, none
  double seconds = 36'000;
  double early_stop_seconds = 100;
  double early_stop_threshold = 0.95;
  bool keep_redundant = false;
  std::string from_solution;  // .sol to rebuild a plan from, instead of solving

  void add_to(OptionTable& table);
};

struct MilpPlan {
  plan::LinkedPlacement linked;
  double bound = 0;  // tokens/s
  bool optimal = false;
  std::string stopped_by;  // "optimal", "time", ..., "solution file"
  std::string lp, sol;     // texts of ilp_model.lp and ilp_solution.sol
};

using MilpProgress = std::function<void(const plan::MilpOptions::Progress&)>;

// Solves (or reads the solution file). `stop` ends the search with the incumbent; `progress` is
// called at each improvement. Links are those between ranges that meet, as Helix writes them.
Result<MilpPlan> plan_by_milp(const plan::PlanProblem& problem, const MilpInputs& inputs,
                              bool partial, const std::atomic<bool>* stop,
                              const MilpProgress& progress);
// The same for numbers alone; only `linked.placement` is set. `start` may be empty.
Result<MilpPlan> plan_by_milp(const plan::Instance& instance, std::optional<plan::Placement> start,
                              const MilpInputs& inputs, bool partial,
                              const std::atomic<bool>* stop, const MilpProgress& progress);

}  // namespace towline::cli
