// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// HelixEngine: the published Helix simulator (Mei et al., ASPLOS'25), repeated bit for bit on
// Towline's own routers, ledger, batching policy and event queue.
//
// Its grain is one layer of one batch. Time is double seconds, because every sum must round as the
// reference's does; each expression on time below is written in the reference's order of operations
// on purpose. Events at one instant run in the order they were pushed. docs/simulator.md tells what
// is equal and how it was checked.
//
//   ASSIGN_OR_RETURN(HelixEngine engine, HelixEngine::make(input, options, traffic));
//   ASSIGN_OR_RETURN(HelixReport report, engine.run(watcher, stop));
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/mt19937_py.hpp"
#include "base/result.hpp"
#include "policy/kv_ledger.hpp"
#include "policy/router.hpp"
#include "policy/stage_batcher.hpp"
#include "sim/event_queue.hpp"
#include "sim/helix_input.hpp"

namespace towline::sim {

// What a look at the running simulation shows; valid during the call only.
struct HelixView {
  double last_event = 0, next_event = 0;
  int64_t active = 0, finished = 0;
  const HelixInput& input;
  const policy::KvLedger& ledger;
  bool estimates = false;  // the router books expected KV
  bool begun = true;       // an event has happened since the models were loaded
};

class HelixEngine {
 public:
  using Watcher = std::function<void(const HelixView&)>;

  // Checks the input against what the simulator takes for granted.
  static Result<HelixEngine> make(HelixInput input, HelixOptions options, HelixTraffic traffic);
  ~HelixEngine();
  HelixEngine(HelixEngine&&) noexcept;
  HelixEngine& operator=(HelixEngine&&) noexcept;

  // Simulates to the end. Fails where the reference would stop with an assertion about the workload
  // (a node's KV cache overflows, a batch is outside the profile). `watcher` may be empty; when
  // `stop` becomes true the report covers the time until then and says so. Call once.
  Result<HelixReport> run(const Watcher& watcher, const std::atomic<bool>* stop);

 private:
  struct State;
  explicit HelixEngine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace towline::sim
