// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/iwrr.hpp"

#include <map>

#include "plan/flow_report.hpp"

namespace towline::plan {

void set_shares(std::vector<LinkFlow>& links) {
  std::map<int32_t, double> leaving;
  for (const LinkFlow& link : links) leaving[link.from] += link.flow;
  for (LinkFlow& link : links) {
    const double total = leaving[link.from];
    link.share = total > 0 ? link.flow / total : 0;
  }
}

}  // namespace towline::plan
