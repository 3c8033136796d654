// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// GroupRanks: a RankGroup as the ranks of a node. The agent's messages, feeds and runs become
// frames of the ring, in the agent's order, messages byte for byte as the coordinator sent them. A
// run takes along what came just before it; a message whose run is not due yet goes to the ranks at
// the agent's next take(), and is applied when the run comes: what is left to do between a step's
// input and its computation is next to nothing. Tokens wait for what follows them. What the ring
// has no room for waits here; it is bounded, because a node has one run outstanding and the
// coordinator a few steps for each lane.
//
// A run that fails on one rank alone leaves that rank without the tokens that the others sampled:
// what is in flight then is void, and a full form puts all in the same state again. The loss of a
// rank, or ranks that disagree at any other time, is RanksLost: a node is all of its ranks or none.
//
// Threading: worker/node_ranks.hpp.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/node_ranks.hpp"
#include "worker/rank_group.hpp"

namespace towline::worker {

class GroupRanks final : public NodeRanks {
 public:
  // `team` says how the ranks are started (a test starts threads); ranks, the model's description,
  // limits and wake are taken from `options`.
  static Result<std::unique_ptr<GroupRanks>> start(NodeRanksOptions options, RankTeamOptions team);

  const Geometry& geometry() const override { return group_->geometry(); }
  void step(policy::NodeStep message, std::vector<uint8_t> bytes) override;
  void feed(std::vector<policy::FedToken> tokens) override;
  void run(RankRun run) override;
  void call(uint64_t id, Method method, const Json& args) override;
  std::optional<RankEvent> take() override;
  RankGroup& group() { return *group_; }

 private:
  struct Call {
    uint64_t id;
    Method method;
    Json args;
  };
  // One frame. Messages come before feeds, and both before the run.
  struct Frame {
    std::vector<std::vector<uint8_t>> messages;
    std::vector<policy::FedToken> feeds;
    std::optional<RankRun> run;
    std::optional<Call> call;          // then nothing else
    bool full = false;                 // a message says everything anew
    bool open() const { return !run && !call; }
  };
  GroupRanks() = default;
  Frame& open_frame(bool for_message);
  void send();
  Result<uint64_t> submit(const Frame& frame);
  void on_step(GroupEvent& event);
  void on_call(GroupEvent& event);
  void lose(std::string reason);

  std::unique_ptr<RankGroup> group_;
  std::deque<Frame> waiting_;
  std::map<uint64_t, std::optional<RankRun>> steps_;  // in flight, by the group's id
  std::map<uint64_t, uint64_t> calls_;                // the group's id -> the caller's
  std::deque<RankEvent> events_;
  // The ranks agree in frames from this one on; none: not before the next full form.
  std::optional<uint64_t> agree_from_ = 0;
  bool lost_ = false;
};

}  // namespace towline::worker
