// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// DriverGroup: the other way to run a node's ranks, kept for comparison. Rank 0 lives in the
// process, and on the thread, of whoever schedules: step() applies the step to the one mirror there
// is, prepares the inputs of the run (tokens, positions, block tables), pushes them to the other
// ranks, and computes. Its caller is busy until the step is done; the others keep no state.
//
// This is how vLLM's driver worker works. What SPMD ranks are measured against (docs/spmd.md) is
// this executor, with the same scheduler, the same ring and the same model.
//
// Threading: one owner thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/rank_group.hpp"

namespace towline::worker {

class DriverGroup {
 public:
  // `options.team.factory` makes rank 0's executor here; `notify` is not used.
  static Result<std::unique_ptr<DriverGroup>> start(RankGroupOptions options);
  ~DriverGroup();

  const Geometry& geometry() const { return geometry_; }
  // Applies and runs; returns when all ranks are done. `hidden` as in RankCommand. An error of any
  // rank is the step's.
  Result<std::vector<StepOutput>> step(const policy::NodeStep& message,
                                       std::span<const float> hidden = {});
  // The same registry as the SPMD ranks': rank 0 here, the others through the ring.
  Result<Json> call(Method method, const Json& args);
  const RankTeam& team() const { return *team_; }
  const policy::StepMirror& mirror() const { return *local_.mirror; }

 private:
  DriverGroup() = default;
  Result<void> await(uint64_t sequence, std::vector<RankReply>* replies);
  std::vector<StepOutput> outputs();

  RankContext local_;
  std::unique_ptr<RankTeam> team_;   // ranks 1..; none with one rank
  Geometry geometry_;
  FrameDraft draft_;
  std::vector<uint8_t> prepared_;
  std::vector<Row> rows_;
  std::vector<RunItem> items_;
  std::vector<float> hidden_;
  std::vector<RowResult> results_;
  std::vector<policy::FedToken> sampled_;
};

}  // namespace towline::worker
