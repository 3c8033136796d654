// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// replay: a run's decisions once more, from its journal.
//
// A fresh policy::Host is made as the journal says and told every event of it; wherever the journal
// holds a digest of the actions taken so far, that of the fresh host is compared.
// Equal digests mean the same decisions, bit for bit: routes, batches, KV blocks, evictions,
// refusals. It makes no difference whether the journal is a server's or a simulation's.
// Streams; safe against hostile journals.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/result.hpp"
#include "obs/journal.hpp"

namespace towline::sim {

struct ReplayReport {
  int64_t events = 0, actions = 0;  // of the host
  int64_t compared = 0;             // digests
  bool equal = true;
  int64_t difference_at = -1;       // ns on the run's clock, of the first digest that differs
  int64_t other_records = 0;        // of other machines, and notes
  bool torn = false;                // the journal stops in the middle of a record
  bool ended = false;               // the run ended in order
  int64_t span_ns = 0;              // from the first record to the last
  uint64_t digest = 0;
  bool interrupted = false;
};

// `machine`: the host's number in the journal.
Result<ReplayReport> replay(obs::JournalReader& journal, uint16_t machine = 0,
                            const std::atomic<bool>* stop = nullptr);

}  // namespace towline::sim
