// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The workload of a recorded run: when its requests came, how long they were, and how much each one
// was given. So a real day can be simulated on other machines, with another plan or router.
//
// What is known of the outputs: of a request that got tokens, these are counted (a cancelled one's
// too). One that got none, because it was refused or failed at once, or because the journal is a
// simulation's (which has no tokens), counts with the most it asked for.
#pragma once

#include <vector>

#include "base/result.hpp"
#include "obs/journal.hpp"
#include "spec/workload.hpp"

namespace towline::sim {

// Requests in the order they came, the first at 0. `machine`: the host's number in the journal. A
// torn journal gives what it has. Safe against hostile journals.
Result<std::vector<spec::TraceRequest>> journal_workload(obs::JournalReader& journal,
                                                         uint16_t machine = 0);

}  // namespace towline::sim
