// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline plan --objective roles`: prompt nodes and decode nodes.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "cli/plan_inputs.hpp"

namespace towline::cli {

struct RoleRequest {
  std::string lengths;  // CSV of requests; empty: a chat service's
  double replicas = 0;  // further copies of every KV cache
  uint64_t seed = 0;
  int64_t steps = 0;    // 0: the default
  int threads = 1;
  std::string out;      // folder; gets prompt/ and decode/, each with plan.toml and a .helix file
  bool json = false;
};

// Plans and prints.
Result<void> plan_and_print_roles(const ProblemAndProfile& loaded, const RoleRequest& request);

}  // namespace towline::cli
