// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator: the decisions of the coordinator. It holds no weights and computes nothing; it knows which
// nodes are there, which way each request takes, whose turn it is in every lane, which KV blocks of
// which node each sequence has, and every token so far.
//
//   requests --> router (way) --> batcher (lanes, steps, blocks) --> one delta stream a node
//                                                     ^                        |
//                                                     +------ StepResults -----+
//
// A lane is the set of sequences that share a way: hops (node, layers). For each step of a lane
// every node of it gets one message of its own stream at once; activations then travel from node to
// node, and the last one answers with the sampled tokens. A lane of h hops keeps up to
// h + `extra_steps` steps in flight, each with its share of the lane's sequences.
//
// When a node dies, all lanes through it are closed: the steps in flight are void, blocks and slots
// on the surviving nodes are given back, the driver is asked for a plan of what is left, and the
// sequences are routed again and computed again from their tokens. The tokens are the same,
// because nothing in a token's value depends on who computed it. A sequence that no way is left for
// waits `wait_for_nodes`, then fails with the reason. It fails too after `most_routes` ways.
//
// Decisions are a function of the events alone (the driver journals them; replay gives the same
// actions). Malformed input of nodes is an event to answer, never a CHECK.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "policy/batcher.hpp"
#include "policy/coordinator_events.hpp"
#include "policy/membership.hpp"
#include "policy/route_chooser.hpp"

namespace towline::policy {

struct CoordinatorOptions {
  Epoch epoch{1};                    // of this coordinator's life; grows with every restart
  int32_t total_layers = 0;
  int32_t context = 8192;            // tokens of a sequence
  int32_t vocab = 1 << 20;
  // With `ahead` = 1 and `placeholders`, nodes must feed sampled tokens to a lane's first node
  // themselves; a sequence's next step is then sent before its token is known.
  BatcherLimits batch;
  int32_t slots = 4096;              // sequences that nodes know at the same time, at most
  int32_t extra_steps = 1;           // steps of a lane in flight, beyond one for each hop
  RouterKind router = RouterKind::kFlow;
  KvEstimator kv{.high_water = 1.0, .usual_output = 128, .output_ratio = 1.0};
  MembershipLimits membership;
  Duration wait_for_nodes = seconds(0);
  int32_t most_routes = 16;          // ways tried for one sequence
  DeltaForm form = DeltaForm::kImplied;  // not kFull: that forgets steps in flight
  uint64_t seed = 1;
  std::vector<std::string> nodes;    // names of the plan, in NodeId order; others may join
};

// What is known of a request's way, for people (GET /v1/requests/{id}).
struct RequestTrace {
  RequestId id;
  struct Attempt {
    std::vector<std::pair<std::string, LayerRange>> hops;
    Instant routed{}, ended{};       // ended.ns == 0: it goes on
    int64_t from_token = 0;          // tokens known when it began; before these, recomputed
    std::string outcome;             // "finished", or why it was left
  };
  std::vector<Attempt> attempts;
  Instant submitted{}, first_step{}, first_token{}, finished{};
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::string state;                 // "waiting", "running", "finished"
};

// A node as the host sees it (towline status).
struct NodeView {
  NodeId node;
  std::string name;
  uint64_t incarnation = 0;
  std::string state;                 // "ready", "draining", "gone", "never seen"
  LayerRange layers;
  int32_t kv_blocks = 0, kv_blocks_used = 0;
  int64_t sequences = 0, steps_in_flight = 0, runs = 0;
  int64_t tokens = 0;                // rows evaluated there, since start
  double planned_flow = 0;           // tokens/s through it in the plan
};

class Coordinator {
 public:
  explicit Coordinator(const CoordinatorOptions& options);

  // Appends its answers to `out`.
  void step(Instant now, const CoordinatorEvent& event, std::vector<CoordinatorAction>& out);
  Instant next_deadline() const;

  struct Load {
    int64_t waiting = 0, running = 0;          // requests without and with a way
    int64_t kv_blocks = 0, kv_blocks_used = 0; // of the fullest pool
    int64_t steps = 0, tokens = 0, prompt_tokens = 0;
    int64_t last_step_rows = 0;
    int64_t reroutes = 0;
  };
  Load load() const;
  Batcher::Counters counters() const { return batcher_.counters(); }
  bool idle() const { return requests_.empty(); }
  bool can_route() const { return chooser_.has_value(); }
  double max_flow() const { return max_flow_; }
  Epoch epoch() const { return options_.epoch; }
  std::vector<NodeView> nodes() const;
  // A request that runs, or one of the last few hundred that ended; null if it is forgotten.
  const RequestTrace* trace(RequestId id) const;
  const Membership& membership() const { return membership_; }

 private:
  struct Node {
    LayerRange layers;
    int32_t kv_blocks = 0;
    int32_t max_rows = 0;
    int32_t pool = -1;               // of the batcher
    bool draining = false;
    std::optional<StepSender> sender;
    NodeStep draft;                  // sections that go with its next message
    int64_t outstanding = 0;         // steps in flight through it
    int64_t rows = 0;
    int64_t requests = 0;            // routed through it
    double planned_flow = 0;
    bool usable() const { return sender.has_value() && !draining; }
  };
  struct LaneHopAt {
    NodeId node;
    LayerRange layers;
    friend auto operator<=>(const LaneHopAt&, const LaneHopAt&) = default;
  };
  using Way = std::vector<LaneHopAt>;
  struct Flight {
    Step step;
    std::vector<SlotGen> slots;      // of its entries
    Instant began{};
  };
  struct Lane {
    Way way;
    Pipeline pipeline;               // links are of the plan it was opened under
    int64_t plan = 0;
    bool announced = false;          // the nodes know it
    int64_t next_step = 0;
    std::map<int64_t, Flight> flights;
  };
  struct Request {
    CoordinatorRequest spec;
    SeqId seq;
    LaneId lane{-1};
    std::optional<SlotGen> slot;     // known to the nodes of its lane
    bool known_to_batcher = false;
    Pipeline booked;                 // what the chooser charged, under plan `plan`
    int64_t plan = -1;
    int64_t booked_tokens = 0;
    int32_t outputs = 0;
    int32_t routes = 0;
    Instant submitted{}, first_step{-1}, stranded{-1};
    bool prompt_reported = false;
    std::vector<ScoredToken> prompt_scores;
    std::vector<double> pooled;
    int32_t pooled_rows = 0;
    int32_t cached = 0;
    bool done = false;                   // its last token was accepted
    std::optional<std::string> failure;  // ends with kError instead of what the batcher says
    Code failure_code = Code::kUnavailable;
  };

  // Events (host.cpp).
  void on(const ClockTick&) {}
  void on(const NodeHello& hello);
  void on(const NodeGone& gone);
  void on(const NodeBeat& beat);
  void on(const LinkBroken& broken);
  void on(const PlanMade& plan);
  void on(const CoordinatorRequest& request);
  void on(const CancelRequest& cancel);
  void on(const StepResults& results);
  void on(const StepFailed& failed);
  void on(const SyncNeeded& sync);
  void on(const DrainNode& drain);
  void lose_node(NodeId node, const std::string& reason);
  void need_plan(bool old_is_void);
  void ask_plan();
  void note(CoordinatorNote::Level level, std::string text);
  Node* node_at(NodeId node);

  // Ways and lanes (host_routes.cpp).
  void route_waiting();
  bool route(Request& request);
  LaneId lane_for(const Pipeline& pipeline);
  void lose_lane(LaneId lane, const std::string& reason);
  void land(Lane& lane, int64_t step);
  void give_back_route(Request& request);
  void end_attempt(const Request& request, const std::string& outcome);
  void fail(Request& request, Code code, std::string reason);
  Way way_of(const Pipeline& pipeline) const;

  // Steps (host_steps.cpp).
  void form_steps();
  bool form_step(LaneId id, Lane& lane);
  void dispatch(LaneId id, Lane& lane, Step step);
  // The entry's part of the message for each of the lane's nodes.
  void add_entry(const Lane& lane, LaneId id, const StepEntry& entry, Request& request,
                 std::vector<NodeStep>& drafts);
  void drop_tables(std::span<const SeqId> dropped);
  void free_slot(Request& request);
  bool send(NodeId node, NodeStep draft);
  void flush_drafts();
  void learn(const Lane& lane, SlotGen slot, int32_t position, int32_t token);
  Sampled accept(Request& request, const StepEntry& entry, const RowResult* result);
  void note_prompt(Request& request, const StepEntry& entry, const RowResult* result);
  void report_prompt(Request& request);
  void report_ends();
  void report_end(Request& request, EndReason reason);
  RequestUpdate& update_of(const Request& request);
  SlotGen take_slot();

  CoordinatorOptions options_;
  Membership membership_;
  std::vector<Node> nodes_;                     // [NodeId]
  std::set<std::pair<NodeId, NodeId>> broken_;  // links
  Batcher batcher_;
  std::optional<RouteChooser> chooser_;
  std::vector<RouteLink> links_;                // of the plan
  double max_flow_ = 0;
  int64_t plan_ = 0;                            // counts plans
  int64_t plans_asked_ = 0;
  bool plan_asked_ = false, awaiting_plan_ = false;

  std::map<SeqId, Request> requests_;
  std::map<RequestId, SeqId> by_id_;
  std::set<std::pair<int32_t, SeqId>> queue_;   // (priority, seq): without a way
  std::map<LaneId, Lane> lanes_;
  std::map<Way, LaneId> lane_of_way_;
  int64_t next_seq_ = 0;
  std::vector<uint16_t> slot_gens_;             // [slot]
  std::vector<uint32_t> free_slots_;
  std::vector<std::pair<SeqId, EndReason>> doomed_;  // end, and the batcher does not know them
  bool retry_routes_ = false;

  std::map<RequestId, RequestTrace> traces_;
  std::deque<RequestId> ended_traces_;
  int64_t steps_ = 0, tokens_ = 0, prompt_tokens_ = 0, last_rows_ = 0, reroutes_ = 0;

  // Of the event being handled.
  Instant now_{};
  std::vector<CoordinatorAction>* out_ = nullptr;
  std::map<SeqId, RequestUpdate> updates_;
};

}  // namespace towline::policy
