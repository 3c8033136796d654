// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// judged_search: the placement that a simulator likes best. Candidates come from a search under a
// closed-form objective; here they are simulated over a short window, the best few are varied (a
// short annealing run each, so that a variant is sound under the closed form too) and simulated
// again, round after round; the best by the short window are then simulated in full.
//
// The simulator is a callback, because this folder may not know it. Deterministic for a seed,
// whatever the threads: rounds have a fixed size and are merged in order.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/instance.hpp"
#include "plan/serving.hpp"
#include "plan/worth.hpp"

namespace towline::plan {

struct Verdict {
  bool served = false;        // false: the plan could not be simulated
  double decode_tps = 0;      // output tokens/s
  double decode_latency = 0;  // seconds a token
  double prompt_latency = 0;  // seconds to the first token
};

struct JudgedProgress {
  int32_t simulations = 0;
  Verdict best;
  bool in_full = false;  // by the full window
};

struct JudgedOptions {
  uint64_t seed = 1;
  int32_t threads = 1;
  int32_t finalists = 8;     // simulated in full
  int32_t rounds = 12;       // of kJudgedPerRound variants each
  bool partial = false;
  LatencyGoals goals;        // plans that miss them lose to all that meet them
  WorthMaker worth;          // the closed form that variants are made with
  double worth_per_flow = 1;
  double bound = 0;          // of the flow, > 0
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const JudgedProgress&)> progress;
  // (placement, in full?) -> verdict; called from several threads at a time.
  std::function<Verdict(const Placement&, bool)> judge;
};

struct JudgedPlacement {
  Placement placement;
  Verdict verdict;     // by the full window
  std::string origin;  // "candidate 3", "round 7"
};

struct JudgedResult {
  std::vector<JudgedPlacement> finalists;  // best first; empty if nothing could be simulated
  int32_t simulations = 0;                 // short and full
};

inline constexpr int32_t kJudgedPerRound = 8;

// `candidates`: valid placements, most promising first.
JudgedResult judged_search(const Instance& instance, const std::vector<Placement>& candidates,
                           const JudgedOptions& options);

// Does `a` beat `b`? Meeting the goals counts first, then tokens/s (for plans that miss the goals,
// lower latency).
bool better(const Verdict& a, const Verdict& b, const LatencyGoals& goals);

}  // namespace towline::plan
