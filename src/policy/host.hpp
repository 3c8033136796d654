// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Host: the decisions of a coordinator, whole. The simulator drives it bare (sim/stage_engine.hpp);
// the running cluster drives it in the clothes of real nodes (policy/coordinator.hpp). There is one.
//
// It composes, by value, the machines that each decide one thing:
//   Admission     who is let in, who waits, who is turned away
//   RouteChooser  which nodes a request passes through, by one of four routers
//   KvLedger      what they are expected to hold then
//   Batcher       which tokens of which sequences run next, and in which KV blocks
// and adds what lies between them. All requests on one pipeline form a lane. A lane's sequences are
// divided over several steps on their way at a time, so that every node of it can be busy. A new
// plan (nodes or links lost, regained, closed to newcomers, other weights) displaces the requests
// whose way it breaks: their steps are abandoned, and they are placed anew by their old rank and
// computed again from their tokens. While no way leads through, requests wait, as long as allowed.
//
// Guarantees (property-tested): every request that arrives ends exactly once, with an outcome; the
// same events give the same actions, bit for bit (host_journal.hpp); while a request is placed, a
// step is on its way or could be formed when one ends.
//
// Roles. A plan may say which nodes process prompts and which decode (Patel et al., "Splitwise",
// ISCA'24; Strati et al., "DejaVu", ICML'24). A request then gets two ways at once. Its prompt runs on
// the first, which ends with its first token; kHandOver asks the driver to move its KV cache, and
// KvArrived lets it decode on the second, where it takes blocks when it is admitted (until then the
// cache waits in the memory of the hosts). If its nodes are lost, it begins again from its tokens.
//
// A pure machine: no clock, no I/O; copyable. The driver calls step() for each event and when
// next_deadline() has come, carries out the actions in order, and reports each launched step's end
// with StepDone unless it was abandoned.
#pragma once

#include <cstdint>
#include <limits>
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
#include "policy/lane_table.hpp"
#include "policy/route_chooser.hpp"

namespace towline::policy {

inline constexpr Duration kForever{std::numeric_limits<int64_t>::max()};

struct HostOptions {
  int32_t total_layers = 0;
  RouterKind router = RouterKind::kFlow;
  uint64_t seed = 1;             // of the routers that draw
  double minimum_share = 1e-6;   // links with less of their origin's flow are never used (flow)
  KvEstimator estimator;
  AdmissionLimits admission;
  BatcherLimits batching;
  // Steps of a lane on their way at a time: `depth`, or if that is 0, one for each stage of its nodes
  // and, if there are several, `extra_steps` more. (One stage has nothing to overlap with and is fastest
  // with everything in one step; with batching.placeholders the next step is there before it ends.)
  int32_t depth = 0;
  int32_t extra_steps = 0;
  int32_t most_outstanding = std::numeric_limits<int32_t>::max();  // steps through one node
  int32_t most_routes = std::numeric_limits<int32_t>::max();       // ways tried for one request
  Duration wait_for_way = kForever;  // how long a request waits while no way leads through
  // Steps of nothing but decodes that go on go round again in one move (Batcher::advance) where that
  // decides the same; false: every step is taken apart and formed anew, for comparison.
  bool fast_forward = true;
};

enum class NodeRole : uint8_t { kBoth, kPrompt, kDecode };

struct HostNode {
  LayerRange layers;             // empty: idle, or gone
  int64_t kv_capacity = 0;       // layer-tokens: 16 * layers for each KV block
  int32_t longest_prompt = std::numeric_limits<int32_t>::max();
  int32_t incarnation = 0;       // another one: its memory is new, nothing that it held is left
  NodeRole role = NodeRole::kBoth;  // if any node has one, all that hold layers must
  int32_t stages = 1;            // that its layers are divided into; it works at so many steps at once
  friend bool operator==(const HostNode&, const HostNode&) = default;
};

struct HostLink {
  int32_t id = 0;                // the driver's number; in the pipelines of actions
  int32_t from = kSourceNode, to = kSinkNode;
  double flow = 0;               // planned tokens/s
  bool closed = false;           // who uses it goes on; nobody new does (a node is drained)
  friend bool operator==(const HostLink&, const HostLink&) = default;
};

// The usable part of the cluster.
struct HostPlan {
  std::vector<HostNode> nodes;   // [node]; never fewer than before
  std::vector<HostLink> links;   // in order of id
  bool provisional = false;      // another follows: nobody fails for want of a way meanwhile
  friend bool operator==(const HostPlan&, const HostPlan&) = default;
};

// --- events -------------------------------------------------------------------------------------

struct Arrive {
  RequestId id;                  // not that of a request that has not ended
  std::vector<int32_t> prompt;   // tokens...
  int32_t prompt_length = 0;     // ...or empty, and only their number (simulation)
  int32_t max_tokens = 16;
  int32_t priority = 0;          // lower first
  bool every_row = false;        // as SequenceSpec
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
// What is on its way in these lanes is lost: they begin again, on these or other nodes. The requests
// named fail instead (a step of theirs cannot be evaluated). Unknown ones are ignored.
struct BreakLanes {
  std::vector<LaneId> lanes;
  std::vector<RequestId> failed;
};
struct Tick {};                  // time has passed
// After kHandOver: the KV cache is where it is wanted, or (lost) will never be: then the request begins
// again from its tokens. Ignored if that is not awaited any more.
struct KvArrived {
  RequestId id;
  bool lost = false;
};
using HostEvent = std::variant<Arrive, Cancel, StepDone, HostPlan, BreakLanes, Tick, KvArrived>;

// --- actions ------------------------------------------------------------------------------------

enum class Outcome : uint8_t { kFinished, kCancelled, kRejected, kFailed };

// Reasons of rejections and failures, besides kQueueFull.
inline constexpr std::string_view kTooLarge = "larger than the KV cache";
inline constexpr std::string_view kNoWay = "no way through the cluster";
inline constexpr std::string_view kNoToken = "no token could be drawn";
inline constexpr std::string_view kStranded = "no way through the cluster came in time";
inline constexpr std::string_view kManyRoutes = "its ways broke too often";
inline constexpr std::string_view kBadStep = "a step of it could not be evaluated";

struct HostAction {
  enum class Kind : uint8_t {
    kLaunch,      // ticket: send this step on its lane's way
    kAbandon,     // ticket: this step's results do not count any more; the ticket is void
    kPlaced,      // id has a lane
    kDisplaced,   // id lost its lane and waits again
    kPreempted,   // id lost its KV blocks and waits in its lane
    kEnded,       // id, outcome, reason
    kLaneClosed,  // lane: nobody is in it any more, and its number is never used again
    kHandOver,    // id: its KV cache shall go from prompt_way(id) to the nodes of lane; until
                  // KvArrived, or an action that takes the lane from it
  };
  Kind kind = Kind::kLaunch;
  Outcome outcome = Outcome::kFinished;
  bool again = false;            // kLaunch: the step just done, every entry one token further
  int32_t ticket = 0;
  LaneId lane{-1};               // of kLaunch, kAbandon, kPlaced, kDisplaced and kLaneClosed
  RequestId id;
  std::string_view reason;       // of a rejection or failure; a literal
};

class Host {
 public:
  struct Lane {
    LaneId id;
    Pipeline pipeline;           // links by the driver's numbers; the last hop is the sink
    Pipeline routed;             // links by the chooser's numbers of `epoch`
    int64_t epoch = 0;
    int32_t depth = 1, in_flight = 0;
    int32_t parts = 1;           // its sequences are divided over so many steps
    bool hungry = false, stalled = false, placeless = false;  // in the sets of these names
    bool decodes = false;        // of decode nodes
    int32_t awaited = 0;         // requests that will come with their KV
  };

  // Fails if a link leads nowhere. Where nothing leads through, requests wait for a plan.
  static Result<Host> make(HostOptions options, HostPlan plan);

  // Appends to `out`. `now` never decreases.
  // A plan that is not valid is a bug of the driver (it made the first one pass make()).
  void step(Instant now, const HostEvent& event, std::vector<HostAction>& out);
  // When a Tick is due at the latest; kNever if none is.
  Instant next_deadline() const;

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
  bool has_lane(LaneId id) const { return lanes_.contains(id); }
  // The lane that a request on a prompt lane will decode on; negative: none.
  LaneId decode_lane(RequestId id) const { return requests_.at(id).decode_lane; }
  // After kHandOver: where the KV cache comes from.
  const Pipeline& prompt_way(RequestId id) const { return requests_.at(id).prompt_way; }
  // Are there routes at all? Without, requests wait for a plan.
  bool open() const { return routes_.chooser.has_value(); }
  // Offline: should another request arrive now?
  bool wants_more() const { return open() && admission_.wants_more(ledger_.expected_bottleneck()); }
  // Turns away everybody who waits for a place (nothing will change any more).
  void fail_waiting(std::string_view reason, std::vector<HostAction>& out);

  const Admission& admission() const { return admission_; }
  const KvLedger& ledger() const { return ledger_; }
  const Batcher& batcher() const { return batcher_; }
  int64_t unfinished() const { return static_cast<int64_t>(requests_.size()); }
  int32_t in_flight() const { return in_flight_; }
  int32_t nodes() const { return static_cast<int32_t>(plan_.nodes.size()); }
  int32_t steps_through(int32_t node) const { return outstanding_[static_cast<size_t>(node)]; }
  int64_t placed_at(int32_t node) const { return placed_at_[static_cast<size_t>(node)]; }
  // Share of the fullest node's KV blocks that are held, 0..1.
  double real_pressure() const;

  void check_invariants() const;  // for tests

 private:
  struct Request {
    Arrive spec;                 // its prompt moves to the batcher when it is first placed
    LaneId lane{-1};
    bool in_batcher = false;
    int32_t routes = 0;          // ways it had
    int64_t booked = 0;          // tokens the ledger was charged for
    Instant gives_up{-1};        // waits no longer for a way; negative: it does not wait for one
    std::string_view failing;    // ends with kFailed, for this
    // With roles.
    LaneId decode_lane{-1};      // where it will decode; booked
    bool prompting = false;      // the batcher knows of one token of it alone
    bool moving = false;         // its KV is on its way to `lane`
    bool decoding = false;       // on a decode lane, or displaced from one
    Pipeline prompt_way;         // while moving
  };
  struct Flight {
    Step step;
    LaneId lane{-1};             // negative: free
    Instant began{};
  };
  using Out = std::vector<HostAction>;
  using Requests = std::map<RequestId, Request>;
  struct Routes {
    std::optional<RouteChooser> chooser;  // none: no way leads through
    std::vector<int32_t> link_ids;        // [link of the chooser] the driver's number
  };

  Host(HostOptions options, const HostPlan& plan);
  Result<void> adopt(const HostPlan& plan);
  Result<Routes> routes_of(const HostPlan& plan, int64_t epoch, NodeRole role) const;

  // Requests (host.cpp).
  void arrive(const Arrive& event, Out& out);
  void cancel(RequestId id, Out& out);
  void admit(Out& out);
  RouteChooser::Verdict choose_route(const Request& r, int64_t tokens);
  RouteChooser::Verdict choose_with(RouteChooser& chooser, RouteChooser::Ask ask, Pipeline& way);
  bool place(RequestId id, Request& r, Out& out);
  void collect_ended(Out& out);
  void end(Requests::iterator at, Outcome outcome, std::string_view reason, Out& out);
  void strand(RequestId id, Request& r);
  void unstrand(RequestId id, Request& r);
  void give_up_stranded(Out& out);

  // Lanes, steps and plans (host_lanes.cpp).
  Lane& lane_for(const Pipeline& routed, const Routes& routes);
  int32_t depth_of(int32_t stages) const;
  void leave_lane(Request& r);
  // Roles (host_roles.cpp).
  bool split() const { return decode_routes_.chooser.has_value(); }
  // Of a lane of this epoch, while there are routes.
  RouteChooser& chooser_of(const Lane& lane) {
    return *(lane.decodes ? decode_routes_ : routes_).chooser;
  }
  bool add_sequence(RequestId id, Request& r, LaneId lane);
  void await_on_decode_lane(Request& r);
  void leave_decode_lane(Request& r);
  void stop_moving(Request& r);
  bool after_prompt(RequestId id, Request& r, EndReason reason, Out& out);
  void note_first_tokens(const Step& step, std::span<const Sampled> sampled);
  void kv_arrived(const KvArrived& event, Out& out);
  void displace_awaited(LaneId id, Out& out);
  void close_if_empty(LaneId id, Out& out);
  void close(LaneId id, Out& out);
  bool has_turn(const Lane& lane) const;
  void pump(LaneId id, Out& out);
  void mark(Lane& lane, bool starved);
  void pump_hungry(const Pipeline& freed, Out& out);
  void pump_stalled(LaneId landed, Out& out);
  void launch(Lane& lane, Step step, Out& out);
  void land(int32_t ticket);
  void step_done(const StepDone& event, Out& out);
  bool go_round(const StepDone& event, Out& out);
  bool survives(const Lane& lane, const HostPlan& plan, std::span<const int32_t> lost) const;
  Pipeline break_lanes(const std::set<LaneId>& broken, Out& out);
  void abandon(const std::set<LaneId>& broken, Out& out);
  void displace(LaneId id, Out& out);
  void on_break(const BreakLanes& event, Out& out);
  void replan(const HostPlan& plan, Out& out);

  HostOptions options_;
  HostPlan plan_;
  int64_t epoch_ = 0;
  Instant now_{};
  Admission admission_;
  KvLedger ledger_;
  Routes routes_, decode_routes_;   // the second only if the plan has roles
  Batcher batcher_;
  Requests requests_;
  std::set<std::pair<Instant, RequestId>> stranded_;      // by Request::gives_up
  LaneTable<Lane> lanes_;
  std::map<std::vector<int32_t>, LaneId> lane_of_links_;  // by the links of its pipeline
  std::vector<std::set<LaneId>> hungry_;                  // [node] lanes that found no room
  std::vector<std::set<LaneId>> stalled_;                 // ...and may take it when a step lands
  int32_t stalled_lanes_ = 0;
  std::set<LaneId> placeless_;                            // ...because too many sequences run
  std::vector<int32_t> outstanding_;                      // [node] steps on their way through it
  std::vector<int64_t> placed_at_;                        // [node] requests whose lane has it
  std::vector<Flight> flights_;
  std::vector<int32_t> free_tickets_;
  std::vector<SeqId> dropped_;      // not yet told in a step
  std::vector<SeqId> displaced_;    // since the last step: they are told as that, not as preempted
  std::vector<LaneId> left_;        // lanes that somebody left during this event
  int32_t in_flight_ = 0;
  std::vector<Sampled> sampled_;    // scratch
  Pipeline routed_, decode_way_;    // scratch
};

}  // namespace towline::policy
