// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline plan --objective ... --judge ...`: what to maximise, and the simulator as the judge.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/options.hpp"
#include "base/result.hpp"
#include "cli/plan_inputs.hpp"
#include "plan/judged_search.hpp"
#include "plan/objectives.hpp"

namespace towline::cli {

struct ObjectiveInputs {
  std::string objective = "flow";  // flow, served, goodput, n1, roles
  std::string slo;                 // "ttft=2,tpot=0.25"
  double least_n1 = 0;             // tokens/s
  std::string minimise;            // "cost", or empty
  double target_rate = 0;          // tokens/s, with minimise
  double replicas = 0;             // further copies of every KV cache
  std::string lengths;             // CSV of requests; empty: a chat service's
  int finalists = 0;               // --judge; 0: the simulator is not asked
  int rounds = 12;                 // --judge-rounds

  void add_to(OptionTable& table);
  // Refuses options that contradict one another or would count for nothing.
  Result<void> check() const;
};

// The objective with what it needs; must outlive the searches that use worth().
struct PreparedObjective {
  plan::Objective objective;
  plan::LatencyGoals goals;
  std::vector<std::pair<int32_t, int32_t>> lengths;
  std::optional<plan::ServingModel> model;

  plan::WorthMaker worth() const;
};

// `loaded` is null for an instance, which has neither KV nor latency: only flow and n1 apply.
// With --judge the closed form that finds candidates is `served`, whatever --objective says.
Result<PreparedObjective> prepare_objective(const ObjectiveInputs& inputs,
                                            const ProblemAndProfile* loaded);

// Simulates `candidates` and variants of them; fails if none can be simulated.
Result<plan::JudgedResult> judge_placements(
    const ProblemAndProfile& loaded, const plan::Instance& instance,
    const ObjectiveInputs& inputs, const PreparedObjective& prepared,
    const std::vector<plan::Placement>& candidates, plan::JudgedOptions options);

}  // namespace towline::cli
