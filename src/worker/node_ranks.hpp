// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeRanks: the ranks of a node as its agent drives them, however many there are.
//
//   one rank      worker/solo_rank.hpp    a thread of the node's process, no copies
//   several       worker/group_ranks.hpp  on a broadcast ring: child processes (tensor parallelism),
//                                         or a thread for each stage of one rank
//
// Both evaluate the same bits (docs/engine.md, "Exact bits") and answer the same calls
// (worker/rpc.hpp). Everything given is done in the order given, but for calls that are out of
// band.
//
// Threading: the agent's thread alone. `wake` is called on other threads whenever take() may have
// something. Nothing blocks but the start and the end.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "policy/peer.hpp"
#include "worker/rpc.hpp"

namespace towline::worker {

// A run with its input: the hidden rows of all pieces, piece after piece. Rows of pieces that embed
// are not read.
struct RankRun {
  std::vector<policy::RunPiece> pieces;
  std::vector<float> hidden;         // [rows of all pieces][width]
};

// Events.
struct RunEnded {
  RankRun run;                       // `hidden` is the output now, where a piece does not sample
  std::vector<RowResult> results;
  std::optional<Error> error;        // nothing in `run` counts
  bool state_lost = false;           // with an error: ranks may differ until a full form is given
};
struct CallEnded {
  uint64_t id = 0;                   // the caller's
  Result<Json> answer;               // the ranks' answers, reduced as the method's row says
};
struct RanksLost {                   // once, and nothing follows: the node must end
  std::string reason;
};
using RankEvent = std::variant<RunEnded, CallEnded, RanksLost>;

class NodeRanks {
 public:
  virtual ~NodeRanks() = default;    // ends the ranks; a run under way is given up

  virtual const Geometry& geometry() const = 0;
  // `bytes` is the message as it came. The agent's mirror has taken it.
  virtual void step(policy::NodeStep message, std::vector<uint8_t> bytes) = 0;
  // Tokens sampled elsewhere; what a run here samples, the ranks know. Nobody wakes for it: it is
  // for what comes next.
  virtual void feed(std::vector<policy::FedToken> tokens) = 0;
  virtual void run(RankRun run) = 0;
  virtual void call(uint64_t id, Method method, const Json& args) = 0;
  virtual std::optional<RankEvent> take() = 0;
};

struct NodeRanksOptions {
  // Tensor-parallel ranks of each stage: one is a thread, more are processes of the program that
  // runs this.
  int32_t ranks = 1, stages = 1;
  Json executor;                     // description, the same for all ranks
  policy::MirrorLimits limits;       // blocks and layers are taken from the ranks
  std::function<void()> wake;
};
// Loads the model on all ranks; an error of one ends all.
Result<std::unique_ptr<NodeRanks>> start_ranks(NodeRanksOptions options);

}  // namespace towline::worker
