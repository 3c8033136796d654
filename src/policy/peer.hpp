// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Peer: the decisions of one node of the cluster. It takes the coordinator's messages in order,
// holds what arrived from the nodes before it, and says what to evaluate next.
//
// A lane step is ready when its message is here and so is its input: the tokens where the node
// embeds, the hidden rows from the previous node elsewhere. One run is outstanding at a time; what
// is ready when it ends is gathered into the next: steps with the fewest rows first (generation
// before prompts), at most one step of each lane, up to `run_rows` rows. One step of each lane,
// because two steps of one pipeline that run together once would travel together for ever, and
// leave the other nodes idle. Steps of a lane run in the order in which they were sent.
//
// Inputs may come before the message that explains them; they wait, bounded in number. Inputs of
// lanes that are closed, duplicates and old epochs are dropped. Where one is dropped that may be
// needed (too many wait, or it has another number of rows than its step) the full form is asked for.
// Input data stays with the driver; here it is a number.
//
// A pure machine: no clock, no I/O; copyable.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "policy/step_delta.hpp"

namespace towline::policy {

using InputId = Id<struct InputTag, int64_t>;  // hidden rows that the driver keeps; negative: none

struct PeerLimits {
  MirrorLimits mirror;
  int32_t run_rows = 512;    // of one run, unless a single step has more
  int32_t held_inputs = 512; // that nothing explains yet, at most
  int32_t runs = 1;          // under way at a time: the node's stages
};

// One lane step of a run.
struct RunPiece {
  LaneStep step;
  LaneHop hop;
  std::vector<StepRow> rows;
  InputId input{-1};
  int32_t row_count() const {
    int32_t n = 0;
    for (const StepRow& row : rows) n += row.count;
    return n;
  }
};

// Actions.
struct ForwardStep {  // to the ranks, before anything that follows
  NodeStep message;
};
struct ForwardFeed {
  std::vector<FedToken> tokens;
};
struct RunSteps {
  std::vector<RunPiece> pieces;
};
struct DropInput {
  InputId input;
};
struct AskFullForm {  // tell the coordinator: SyncNeeded
  std::string reason;
};
using PeerAction = std::variant<ForwardStep, ForwardFeed, RunSteps, DropInput, AskFullForm>;

class Peer {
 public:
  explicit Peer(const PeerLimits& limits) : limits_(limits), mirror_(limits.mirror) {}

  void on_message(NodeStep message, std::vector<PeerAction>& out);
  // Hidden rows of a step from the previous node of its lane.
  void on_input(LaneStep step, int32_t rows, InputId input, std::vector<PeerAction>& out);
  // Tokens sampled by the last node of the lane, or here.
  void on_feed(std::vector<FedToken> tokens, std::vector<PeerAction>& out);
  // The oldest run under way ended, well or not; its outputs are the driver's business.
  void on_run_done(std::vector<PeerAction>& out);

  // What the ranks hold is not to be trusted: nothing is run and no message taken before the full
  // form, which is asked for.
  void on_state_lost(const std::string& reason, std::vector<PeerAction>& out);

  // Whether results of a run still matter: the lane is open.
  bool wanted(LaneId lane) const { return mirror_.lane(lane) != nullptr; }
  bool busy() const { return running_ > 0; }
  int64_t runs() const { return runs_; }
  size_t held() const { return inputs_.size(); }
  const StepMirror& mirror() const { return mirror_; }

 private:
  struct Input {
    InputId input;
    int32_t rows = 0;
    int64_t order = 0;
  };
  bool is_ready(LaneStep step) const;
  bool has_gone(LaneId lane) const;
  void drop_stale_inputs(std::vector<PeerAction>& out);
  void begin_anew(const std::string& reason, std::vector<PeerAction>& out);
  void run_next(std::vector<PeerAction>& out);
  bool start_run(std::vector<PeerAction>& out);  // false: nothing is ready

  PeerLimits limits_;
  StepMirror mirror_;
  struct Lane {
    std::deque<int64_t> waiting;  // steps not yet run, in the order sent
    int64_t taken = -1;           // the last one that was
  };
  std::map<LaneId, Lane> lanes_;  // those that ever had a step, while open
  std::map<LaneStep, Input> inputs_;
  int32_t running_ = 0;                            // runs under way
  int32_t latest_lane_ = -1;                       // the highest lane ever opened
  int64_t next_order_ = 0;
  int64_t runs_ = 0;
  bool asked_ = false;                             // for the full form
  bool halted_ = false;                            // until it comes
};

}  // namespace towline::policy
