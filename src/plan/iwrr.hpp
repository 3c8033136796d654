// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The weights of interleaved weighted round robin that a flow prescribes: at each vertex, requests
// leave by a link in proportion to the flow that the plan sends over it (Mei et al., ASPLOS'25,
// section 5.2). The router (policy/router.hpp) spends them.
#pragma once

#include <vector>

namespace towline::plan {

struct LinkFlow;

// Sets `share` of every link: its flow over all flow that leaves the same vertex. Shares of the
// links of a vertex add up to 1, or are all 0 where nothing leaves.
void set_shares(std::vector<LinkFlow>& links);

}  // namespace towline::plan
