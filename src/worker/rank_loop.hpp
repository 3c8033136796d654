// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RankLoop: the whole program of a rank, the same for every rank of every node.
//
//   for each frame of the ring:
//     READ -> APPLY messages and feeds to the mirror -> COMPUTE the runs -> WRITE results -> ACK
//
// Rank 0 writes the outputs; every rank acknowledges {status, hash}, so a failure of a rank that
// outputs nothing is seen as soon as one that does. A message that does not fit the mirror is
// answered with kNeedSync and nothing of the frame is run: all ranks see the same bytes, so all
// refuse alike, before any collective has begun. If a rank fails alone, the node sees its ack and
// aborts the collective that the others are in.
//
// Tokens that the run sampled are fed to the mirror here, on every rank from its own results: a step
// that needs them may already lie in the ring (scheduling one step ahead), and finds them.
//
// A second thread serves the calls that are out of band (worker/rpc.hpp) from a ring of its own.
//
// Threading: run() and serve_calls() are each called by one thread and return when the ring closes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/broadcast_ring.hpp"
#include "worker/ring_frame.hpp"
#include "worker/rpc.hpp"
#include "worker/stage_link.hpp"

namespace towline::worker {

struct RankRings {
  std::unique_ptr<net::RingReader> steps, calls;
  StageLink link;   // to the stages before and after
};

class RankLoop {
 public:
  // `acked` is called, if given, after each ack that is a frame's last of all ranks or tells of a
  // failure.
  RankLoop(RankRings rings, RankPlace place, ExecutorFactory factory,
           std::function<void()> acked = {});

  void run();
  void serve_calls();
  // Ends serve_calls(), for all ranks of the node: when this one leaves, they all do.
  void end_calls() { calls_->close(); }
  // Makes a run() that waits for its siblings return. Any thread.
  void abort();
  RankContext& context() { return rank_; }  // for tests

 private:
  struct Failure {
    RankStatus status;
    Error error;
  };
  void handle(std::span<const uint8_t> bytes);
  void handle_steps();
  void handle_call(net::RingReader& ring, const FrameHead& head, std::string_view args);
  void handle_prepared(std::span<const uint8_t> bytes);
  std::optional<Failure> apply();
  std::optional<Failure> run_steps();
  bool first_stage() const { return rank_.place.stage == 0; }
  bool last_stage() const { return rank_.place.stage + 1 == rank_.place.stages; }
  policy::LaneHop hop_of_stage(const policy::LaneHop& hop) const;
  Result<std::span<const float>> input_rows();
  Result<void> hand_on();
  Result<void> learn_tokens();
  Result<void> evaluate();
  Result<void> gather_runs();
  Result<void> compute();
  void reply_outputs();
  void reply_failure(const Failure& failure);
  void finish(RankStatus status);

  std::unique_ptr<net::RingReader> steps_, calls_;
  StageLink link_;
  std::function<void()> acked_;
  RankContext rank_;

  // Working memory, used again every frame.
  FrameView frame_;
  policy::NodeStep message_;
  std::vector<Row> rows_;
  std::vector<RunItem> items_;
  std::vector<float> hidden_;
  std::vector<RowResult> results_;
  std::vector<policy::FedToken> sampled_;
  std::vector<policy::LaneStep> embedded_;
  std::vector<uint8_t> reply_;
  std::vector<OutputHead> output_heads_;
  std::vector<std::vector<uint8_t>> encoded_;
  std::vector<std::span<const uint8_t>> parts_;
  uint32_t work_us_ = 0;  // of the executor, in this frame
  std::vector<policy::SlotState> prepared_slots_;  // driver mode, by row
};

}  // namespace towline::worker
