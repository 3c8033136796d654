// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Host: a coordinator's decisions, whole, as the simulator drives them. The running cluster is driven
// by Coordinator (policy/coordinator.hpp), made of the same parts; the two are to become one.
//
// It composes, by value, the machines that each decide one thing:
//   Admission   who is let in, who waits, who is turned away
//   FlowRouter  which nodes a request passes through, by the planned flow
//   KvLedger    what they are expected to hold then
//   Batcher     which tokens of which sequences run next, and in which KV blocks
// and adds what lies between them. All requests on one pipeline form a lane. A lane's sequences are
// divided over up to `depth` steps on their way at a time (as many as the lane has nodes, unless
// told otherwise), so that every node of it can be busy. A new plan (nodes or links lost, regained,
// other weights) displaces the requests whose way it breaks: their steps are abandoned, and they
// are placed anew by their old rank and computed again from their tokens.
//
// Guarantees (property-tested): every request that arrives ends exactly once, with an outcome; the
// same events give the same actions, bit for bit (host_journal.hpp); while a request is placed, a
// step is on its way or could be formed when one ends.
//
// A pure machine: no clock, no I/O; copyable. The driver calls step() for each event, carries out
// the actions, and reports each launched step's end with StepDone unless it was abandoned.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "policy/admission.hpp"
#include "policy/batcher.hpp"
#include "policy/kv_ledger.hpp"
#include "policy/router.hpp"

namespace towline::policy {

struct HostOptions {
  int32_t total_layers = 0;
  KvEstimator estimator;
  AdmissionLimits admission;
  BatcherLimits batching;
  int32_t depth = 0;             // steps of a lane on their way at a time; 0: the lane's nodes
  double minimum_share = 1e-6;   // links with less of their origin's flow are never used
};

struct HostNode {
  LayerRange layers;             // empty: idle, or gone
  int64_t kv_capacity = 0;       // layer-tokens
  int32_t longest_prompt = std::numeric_limits<int32_t>::max();
  int32_t incarnation = 0;       // another one: its memory is new, nothing that it held is left
  friend bool operator==(const HostNode&, const HostNode&) = default;
};

struct HostLink {
  int32_t id = 0;                // the driver's number; in the pipelines of actions
  int32_t from = kSourceNode, to = kSinkNode;
  double flow = 0;               // planned tokens/s
  friend bool operator==(const HostLink&, const HostLink&) = default;
};

// The usable part of the cluster. The number of nodes never changes.
struct HostPlan {
  std::vector<HostNode> nodes;   // [node]
  std::vector<HostLink> links;   // in order of id
  friend bool operator==(const HostPlan&, const HostPlan&) = default;
};

// --- events -------------------------------------------------------------------------------------

struct Arrive {
  RequestId id;                  // not that of a request that has not ended
  std::vector<int32_t> prompt;   // tokens...
  int32_t prompt_length = 0;     // ...or empty, and only their number (simulation)
  int32_t max_tokens = 16;
  int32_t priority = 0;          // lower first
  uint64_t cache_salt = 0;
};
struct Cancel {
  RequestId id;                  // unknown ids are ignored
};
struct StepDone {
  int32_t ticket = 0;            // of kLaunch
  // One for each entry that samples. Empty where only lengths are known: every one goes on.
  std::span<const Sampled> sampled;
};
using HostEvent = std::variant<Arrive, Cancel, StepDone, HostPlan>;

// --- actions ------------------------------------------------------------------------------------

enum class Outcome : uint8_t { kFinished, kCancelled, kRejected, kFailed };

struct HostAction {
  enum class Kind : uint8_t {
    kLaunch,     // ticket: send this step on its lane's way
    kAbandon,    // ticket: this step's results do not count any more; the ticket is void
    kPlaced,     // id has a lane
    kDisplaced,  // id lost its lane and waits again
    kPreempted,  // id lost its KV blocks and waits in its lane
    kEnded,      // id, outcome, reason
  };
  Kind kind = Kind::kLaunch;
  int32_t ticket = 0;
  RequestId id;
  Outcome outcome = Outcome::kFinished;
  std::string_view reason;       // of a rejection or failure; a literal
};

class Host {
 public:
  struct Lane {
    LaneId id;
    Pipeline pipeline;           // links by the driver's numbers; the last hop is the sink
    Pipeline routed;             // links by the router's numbers of `epoch`
    int64_t epoch = 0;
    int32_t depth = 1, in_flight = 0;
  };

  // Fails if a link leads nowhere, or nothing leads through.
  static Result<Host> make(HostOptions options, HostPlan plan);

  // Appends to `out`. `now` is not used by today's machines; it is recorded with the event.
  // A plan that is not valid is a bug of the driver (it made the first one pass make()).
  void step(Instant now, const HostEvent& event, std::vector<HostAction>& out);

  // A step on its way; valid until the event that ends it, or its kAbandon, has been handled.
  const Step& flight(int32_t ticket) const { return flights_[ticket].step; }
  bool is_flying(int32_t ticket) const {
    return ticket >= 0 && ticket < static_cast<int32_t>(flights_.size()) &&
           flights_[ticket].lane.value >= 0;
  }
  bool knows(RequestId id) const { return requests_.contains(id); }
  // Whether a plan could be told now; for plans that come from a file.
  Result<void> check_plan(const HostPlan& plan) const;
  const Lane& lane(LaneId id) const { return lanes_.at(id); }
  // Are there routes at all? Without, requests wait for a plan.
  bool open() const { return router_.has_value(); }
  // Offline: should another request arrive now?
  bool wants_more() const { return open() && admission_.wants_more(ledger_.expected_bottleneck()); }
  // Turns away everybody who waits for a place (nothing will change any more).
  void fail_waiting(std::string_view reason, std::vector<HostAction>& out);

  const Admission& admission() const { return admission_; }
  const KvLedger& ledger() const { return ledger_; }
  const Batcher& batcher() const { return batcher_; }
  int64_t unfinished() const { return static_cast<int64_t>(requests_.size()); }
  int32_t in_flight() const { return in_flight_; }
  // Share of the fullest node's KV blocks that are held, 0..1.
  double real_pressure() const;

  void check_invariants() const;  // for tests

 private:
  struct Request {
    Arrive spec;                 // its prompt moves to the batcher when it is first placed
    LaneId lane{-1};
    bool in_batcher = false;
    int64_t booked = 0;          // prompt tokens the ledger was charged for
  };
  struct Flight {
    Step step;
    LaneId lane{-1};             // negative: free
  };
  using Out = std::vector<HostAction>;

  Host(HostOptions options, const HostPlan& plan);
  Result<void> adopt(const HostPlan& plan);
  static Result<std::optional<FlowRouter>> router_of(const HostOptions& options,
                                                     const HostPlan& plan);
  void arrive(const Arrive& event, Out& out);
  void cancel(RequestId id, Out& out);
  void step_done(const StepDone& event, Out& out);
  void replan(const HostPlan& plan, Out& out);
  void admit(Out& out);
  bool place(RequestId id, Request& r, Out& out);
  Lane& lane_for(const Pipeline& routed);
  void pump(LaneId id, Out& out);
  void pump_hungry(const Pipeline& freed, Out& out);
  void collect_ended(Out& out);
  void leave_lane(Request& r);
  void close_if_empty(LaneId id);
  void end(std::map<RequestId, Request>::iterator at, Outcome outcome, std::string_view reason,
           Out& out);
  bool survives(const Lane& lane, const HostPlan& plan) const;
  void abandon(const std::set<LaneId>& broken, Out& out);
  void break_lane(LaneId id, Out& out);

  HostOptions options_;
  HostPlan plan_;
  int64_t epoch_ = 0;
  Admission admission_;
  KvLedger ledger_;
  std::optional<FlowRouter> router_;
  Batcher batcher_;
  std::map<RequestId, Request> requests_;
  std::map<LaneId, Lane> lanes_;
  std::map<std::vector<int32_t>, LaneId> lane_of_links_;  // by the links of its pipeline
  std::vector<std::set<LaneId>> hungry_;                  // [node] lanes that found no room
  std::vector<Flight> flights_;
  std::vector<int32_t> free_tickets_;
  std::vector<SeqId> dropped_;   // not yet told in a step
  std::vector<LaneId> left_;     // lanes that somebody left during this event
  int32_t in_flight_ = 0;
  std::vector<Sampled> sampled_;  // scratch
  Pipeline routed_;               // scratch
};

}  // namespace towline::policy
