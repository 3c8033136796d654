// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Stands in for milp_cbc.cpp in a build without CBC.
#include "plan/milp.hpp"

namespace towline::plan {

Result<MilpOutcome> solve_milp(const MilpModel&, const Instance&, const MilpOptions&) {
  return Error(Code::kUnsupported,
               "this build has no MILP solver; install coinor-libcbc-dev and build again, or use "
               "the method auto");
}

}  // namespace towline::plan
