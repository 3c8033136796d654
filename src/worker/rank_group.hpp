// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RankGroup: a node's ranks as its agent sees them. Commands go in, events come out, in order; none
// of it blocks but wait() and start().
//
//   submit(command) -> kStep event      messages, feeds and runs, in one order on all ranks
//   call(method)    -> kCall event      a collective call (worker/rpc.hpp), all ranks' answers
//   load_adapter()  -> kCall event      both phases: all ranks have it afterwards, or none
//
// Several commands may be in flight (a ring's slots). A run may use tokens that the run before it
// samples: every rank feeds them to its own mirror, so the next step can be sent before the results
// of this one are read (scheduling one step ahead). No rank is special but for who writes outputs.
//
// A failure on any rank is an event at once, whatever the other ranks do. What it means:
//   kNeedSync  the messages did not fit; nothing ran; send the full form and go on
//   kFailed    the run failed; usable() says whether the group can go on (a rank that died, or ranks
//              torn out of a collective, end the group: start another one)
// All ranks' hashes are compared at every step; ranks that disagree are a failure.
//
// With `notify` the caller sleeps elsewhere (a node's Inbox) and calls take() when told; without, it
// sleeps in wait(). Ranks that are processes do not wake it for a command without runs that went
// well: that one is told of with the next.
//
// Threading: one owner thread calls everything; `notify` is called from threads of the group.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "worker/rank_team.hpp"
#include "worker/ring_frame.hpp"
#include "worker/rpc.hpp"

namespace towline::worker {

struct RankGroupOptions {
  RankTeamOptions team;        // collective_floats is found out here
  Json executor;               // description, the same for all ranks
  policy::MirrorLimits limits; // blocks and layers are taken from the ranks
  Duration start_within = seconds(3600);  // loading weights included
};

struct GroupEvent {
  enum class Kind { kStep, kCall };
  Kind kind = Kind::kStep;
  uint64_t id = 0;                     // what submit(), call() or load_adapter() returned
  RankStatus status = RankStatus::kOk;
  int32_t rank = -1;                   // the first that failed
  std::string error;
  uint64_t hash = 0;                   // of the mirrors, tokens fed included
  uint32_t work_us = 0;                // what the slowest rank's executor took
  std::vector<StepOutput> outputs;     // of the runs, in order
  Code code = Code::kInternal;         // of a call that failed
  Json answer;                         // of a call that did not: reduced over the ranks
  bool ok() const { return status == RankStatus::kOk; }
};

class RankGroup {
 public:
  using Deadline = net::Deadline;
  // Starts the ranks and loads the model on all of them; an error of one ends all.
  static Result<std::unique_ptr<RankGroup>> start(RankGroupOptions options);
  ~RankGroup();

  // Of the group: the least blocks and rows of its ranks.
  const Geometry& geometry() const { return geometry_; }
  // Never blocks. kExhausted: as many are in flight as the ring has slots. kUnavailable: not usable.
  Result<uint64_t> submit(const RankCommand& command);
  Result<uint64_t> call(Method method, const Json& args);
  // Phase 1 on the ranks' second threads while steps go on, then commit on all or discard on all.
  Result<uint64_t> load_adapter(int32_t id, const std::string& path);

  std::optional<GroupEvent> take();
  // Empty at the deadline. Only without `notify`.
  std::optional<GroupEvent> wait(Deadline deadline);
  // call() and wait() for it; other events are kept for take(). Only without `notify`.
  Result<Json> call_now(Method method, const Json& args, Duration within);
  // Ids of what was submitted and not yet taken.
  size_t in_flight() const { return steps_.size() + calls_.size(); }
  bool usable() const { return broken_.empty(); }
  const std::string& broken() const { return broken_; }
  RankTeam& team() { return *team_; }
  // Waits up to `drain` for what is in flight, then ends the ranks.
  void stop(Duration drain = seconds(2));

 private:
  // One frame of either ring.
  struct InFlight {
    uint64_t sequence = 0;
    uint64_t id = 0;
    const MethodRow* method = nullptr;       // null: a step
    bool quiet = false;                      // a step that runs nothing
    std::vector<std::optional<RankReply>> replies;  // by reader
    bool told = false;                       // its failure, before all had acknowledged
    std::optional<uint64_t> adapter;         // a phase of load_adapter(): its id
  };
  struct AdapterLoad {
    AdapterArgs args;
    std::string error;                       // of phase 1
    Code code = Code::kInternal;
    int32_t rank = -1;
  };
  explicit RankGroup(RankGroupOptions options) : options_(std::move(options)) {}
  Result<void> load_model();
  Result<void> take_geometry(const Json& answers);
  Result<void> check_usable() const;
  Result<uint64_t> send_call(Method method, const Json& args, uint64_t id);
  void start_collectors();
  void collect(net::RingWriter& ring, std::atomic<uint64_t>& awaited);
  uint64_t next_awaited() const;
  void harvest(net::RingWriter& ring, std::deque<InFlight>& flight);
  void take_replies(net::RingWriter& ring, std::deque<InFlight>& flight);
  void take_failures(net::RingWriter& ring, std::deque<InFlight>& flight);
  void finish(net::RingWriter& ring, InFlight& frame);
  void finish_step(net::RingWriter& ring, InFlight& frame);
  void finish_call(InFlight& frame);
  void finish_adapter_phase(uint64_t id, Method phase, const GroupEvent& event);
  void send_waiting_phases();
  void look_for_deaths();
  bool left_as_told() const;
  void fail_all(const std::string& why);
  void fail_at(InFlight& frame, int reader, uint32_t status);
  void fail(InFlight& frame, RankStatus status, int32_t rank, std::string error);

  RankGroupOptions options_;
  std::unique_ptr<RankTeam> team_;
  Geometry geometry_;
  FrameDraft draft_;
  uint64_t next_id_ = 1;
  std::deque<InFlight> steps_, calls_;       // by ring, in order
  std::map<uint64_t, AdapterLoad> adapters_;
  std::deque<std::pair<uint64_t, Method>> waiting_phases_;  // for a slot of the ring
  std::deque<GroupEvent> ready_;
  std::string broken_;
  bool stopped_ = false;
  std::optional<Instant> stuck_since_;       // a rank failed, others have not acknowledged

  // Between the owner and the collector threads.
  std::atomic<uint64_t> awaited_step_{0}, awaited_call_{0};  // sequence waited for; 0: none
  std::atomic<uint32_t> takes_{0};
  std::atomic<bool> stop_collecting_{false};
  std::vector<std::thread> collectors_;
};

}  // namespace towline::worker
