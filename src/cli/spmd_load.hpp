// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ScheduledLoad: a coordinator for measurements that schedules as the product does: a
// policy::Batcher of `batch` sequences that generate for ever decides every step, and the step's
// results go back to it. Both ways of running ranks (SPMD, driver mode) get the same one, so what
// scheduling costs is in both; SPMD lets it form a step before the results of the one before.
//
// With two nodes the sequences are divided over two lanes through both, so that both have work.
//
// Threading: one thread.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "cli/spmd_bench.hpp"
#include "policy/batcher.hpp"
#include "policy/step_delta.hpp"
#include "worker/ring_frame.hpp"

namespace towline::cli {

class ScheduledLoad {
 public:
  // `ahead`: a lane's step may be formed while its last one runs; tokens are then fed.
  // `nodes`: that the stages lie on, each with its own messages and blocks; 1: all on one.
  ScheduledLoad(const SpmdCell& cell, bool ahead, int nodes = 1);

  int lanes() const { return static_cast<int>(lanes_.size()); }
  // The node's first message: all sequences are new, nothing runs.
  policy::NodeStep admit(int node = 0);
  // The lane's next step, for every node: one more token of each of its sequences.
  std::vector<policy::NodeStep> next_of(int lane);
  policy::NodeStep next() { return std::move(next_of(0)[0]); }
  // What came of a lane's oldest step in flight.
  void finish(const worker::StepOutput& output);

 private:
  struct Lane {
    LaneId id;
    std::optional<policy::Step> first;     // formed to admit its sequences, not sent yet
    std::deque<policy::Step> flying;
    int64_t steps = 0;
  };
  // Of node `node`'s pool.
  std::vector<int32_t> blocks_of(const policy::StepEntry& entry, size_t node) const;

  SpmdCell cell_;
  int nodes_;
  bool ahead_;
  policy::Batcher batcher_;
  std::vector<policy::StepSender> senders_;  // by node
  std::vector<Lane> lanes_;
  std::vector<policy::Sampled> sampled_;     // empty between calls
  std::vector<policy::FedToken> fed_;
};

}  // namespace towline::cli
