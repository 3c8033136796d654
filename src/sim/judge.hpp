// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// judge: what a plan really serves, by simulating it full of work; for planners.
//
// Maximum flow knows neither KV capacity nor hop latency nor real batch sizes: on Helix's 24-node
// example the plan with the highest possible flow (2045 tokens/s) decodes 10 % fewer
// tokens/s than a plan of 1290. So plans of comparable flow should be ranked by this figure.
// It is the Helix mode in offline operation (docs/simulator.md); 0.1 to 1 CPU second for 24 to
// 42 machines and the default window.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "plan/problem.hpp"
#include "spec/profile.hpp"

namespace towline::sim {

struct JudgeOptions {
  // (prompt, output) tokens to draw requests from; empty: typical_lengths().
  std::vector<std::pair<int32_t, int32_t>> lengths;
  double warm_up = 60;    // simulated seconds before the window
  double duration = 600;  // simulated seconds of the window
  uint64_t seed = 0;
};

struct Judgement {
  double decode_tps = 0;      // output tokens/s in the window: the figure to rank by
  double prompt_latency = 0;  // mean seconds from arrival to the first token
  double decode_latency = 0;  // mean seconds of a further token
  double max_flow = 0;        // tokens/s, prompt and output, of the plan
  int64_t in_flight = 0;      // requests at the end
};

// 4096 pairs like those of a chat service: log-normal, means near 760 and 230 tokens, prompts below
// 2048 and outputs up to 1000.
std::vector<std::pair<int32_t, int32_t>> typical_lengths();

// `profile` is the one that `problem` was made with. Pure; threads may judge at the same time.
// Deterministic in its arguments. Fails if the plan cannot serve: no way through, a KV overflow.
Result<Judgement> judge(const plan::PlanProblem& problem, const plan::LinkedPlacement& plan,
                        const spec::Profile& profile, const JudgeOptions& options = {});

}  // namespace towline::sim
