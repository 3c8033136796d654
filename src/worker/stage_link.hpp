// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageLink: how the stages of one node's ranks hand a step on, rank to rank, without their node.
//
// A node may hold its layers as several stages, each of one or more tensor-parallel ranks;
// all ranks read the same broadcast of steps (worker/rank_group.hpp) and take
// its frames in the same order.
// Stage s gives what it has to stage s + 1, the last one to the first, over a ring in shared memory
// whose one writer is the giving stage's rank 0 and whose readers are all ranks of the stage after:
//
//   stage 0 --rows--> stage 1 --rows--> ... --rows--> last stage --sampled tokens--> stage 0
//
// Every frame that has runs leaves exactly one message on every edge, in the order of the frames:
// its rows or tokens, or that the stage failed it. So nobody chooses what to run next, and nobody
// waits for what will not come: a frame that fails in one stage fails in those after it.
//
// Tokens are learnt when the first stage's ranks need them, and, so that they need not be kept for
// ever, when they are as old as a frame of which nobody can be at work any more. Both are the same
// on every rank, so that the ranks' hashes are.
//
// Threading: the rank's own thread. A wait ends when the rings are closed or the writer dies.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.hpp"
#include "net/broadcast_ring.hpp"
#include "policy/step_delta.hpp"

namespace towline::worker {

class StageLink {
 public:
  StageLink() = default;  // of a node with one stage
  // `output`: of the stage's rank 0; null on the others. Frames more than `in_flight` before
  // another are done by all ranks when that one is read.
  StageLink(std::unique_ptr<net::RingReader> input, std::shared_ptr<net::RingWriter> output,
            uint32_t in_flight)
      : input_(std::move(input)), output_(std::move(output)), in_flight_(in_flight) {}
  bool joined() const { return input_ != nullptr; }

  // Not of the first stage: what the stage before made of frame `sequence`, in place until the next
  // call. kUnavailable: it failed the frame, or is gone.
  Result<std::span<const float>> rows_of(uint64_t sequence);

  // Of the first stage: feeds to `mirror` what the steps that frame `sequence` runs need to know of
  // tokens sampled in earlier frames. Not an error if that is not all of them; the caller looks.
  Result<void> learn_tokens(policy::StepMirror& mirror, uint64_t sequence,
                            std::span<const policy::LaneStep> steps);
  // Frame `sequence` made the mirror anew: tokens of the frames before it say nothing any more.
  void forget_tokens_before(uint64_t sequence) { first_valid_ = sequence; }

  // What this stage made of frame `sequence`; nothing where this rank does not write.
  Result<void> give_rows(uint64_t sequence, std::span<const float> rows);
  Result<void> give_tokens(uint64_t sequence, std::span<const policy::FedToken> tokens);
  void give_failure(uint64_t sequence);

 private:
  struct Head;
  Result<void> give(Head head, std::span<const uint8_t> body);
  Result<bool> look(net::Deadline deadline);
  Result<void> feed_held(policy::StepMirror& mirror);

  std::unique_ptr<net::RingReader> input_;
  std::shared_ptr<net::RingWriter> output_;
  uint64_t in_flight_ = 0;
  std::span<const uint8_t> held_;   // a message that was read and is not used yet
  uint64_t held_frame_ = 0;         // whose it is
  uint64_t last_run_ = 0;           // the frame with runs before this one
  uint64_t last_learnt_ = 0;        // the frame whose tokens were taken last
  uint64_t first_valid_ = 0;
  uint64_t given_ = 0;              // the frame that was given last
};

}  // namespace towline::worker
