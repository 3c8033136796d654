// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Prompt and decode roles: which machines process prompts and which decode, as two commodities
// (Patel et al., "Splitwise", ISCA'24; Strati et al., "DejaVu", ICML'24). For a split of the nodes
// the two flows are independent:
//   requests/s = min(F_P / input, F_D / output, KV transfer)
// where F_P (F_D) is the flow of a placement of the whole model on the prompt (decode) nodes with
// the rates of prompts alone (of decode batches as large as the KV cache allows), and a request's
// KV cache crosses from the ones to the others once. Splits by number of nodes of each type are
// tried on the stage plans (plan/stage_ip.hpp), the best is polished by the search of `auto`.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "plan/problem.hpp"
#include "plan/serving.hpp"

namespace towline::plan {

struct RolePlan {
  double requests = 0;        // a second
  double prompt_flow = 0;     // prompt tokens/s of the prompt nodes
  double decode_flow = 0;     // output tokens/s of the decode nodes
  double transfer = 0;        // requests/s whose KV cache the links carry across
  std::vector<bool> decodes;  // [node]; false: processes prompts (or is idle)
  Placement prompt, decode;   // [node], of the whole model each
};

struct RoleOptions {
  uint64_t seed = 1;
  int64_t steps = 100'000;  // of each of the two polishing searches
  int32_t threads = 1;
  double kv_bytes_per_token_layer = 0;  // 0: transfers are for nothing
  int32_t most_splits = 3000;           // tried
};

// The instances of the two roles: prompt tokens/s, and output tokens/s. Nodes and links are the
// problem's.
Instance prompt_instance(const PlanProblem& problem, const ServingModel& model);
Instance decode_instance(const PlanProblem& problem, const ServingModel& model);

// Fails if no split serves any request: then the cluster cannot hold the model twice.
Result<RolePlan> plan_roles(const PlanProblem& problem, const ServingModel& model,
                            const RoleOptions& options);

}  // namespace towline::plan
