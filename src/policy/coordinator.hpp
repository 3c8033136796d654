// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator: policy::Host (host.hpp) in the clothes of a cluster of real nodes. It holds no
// weights and computes nothing. The Host decides who is admitted, by which way, in which lane, what
// runs next, in which KV blocks, and what happens when a way breaks. The Coordinator knows what a
// Host does not: nodes by name and incarnation, their leases, the stream of messages that each one
// gets, slots, every token so far with its scores, and what became of each request.
//
//   hello, gone, beat, results, requests ...         node messages, updates, notes
//              |                                                 ^
//              v            HostEvent                            |
//         Coordinator  ------------------>  Host  ---------->  Coordinator
//                       (plan, arrival,            HostAction: launch -> one message of its own
//                        step done, ...)           stream for every node of the lane at once; ...
//
// The activations of a step travel from node to node, and the last one answers with the sampled
// tokens.
//
// When a node dies, the Host is told a plan without it: all lanes through it are closed, the steps
// in flight are void, blocks and slots on the surviving nodes are given back, and the driver is
// asked for a plan of what is left; the sequences are routed again and computed again from their
// tokens. The tokens are the same, because nothing in a token's value depends on who computed it. A
// sequence that no way is left for waits `wait_for_nodes`, then fails with the reason. It fails too
// after `most_routes` ways.
//
// Nodes say which others they cannot reach: such a link is not used, the nodes are. When nobody names
// it any more it is used again, by what is routed from then on; lanes over it stay closed. Links heal
// together, once a second at most, so that one that comes and goes does not make plans all the time.
// Where a lane's last node cannot reach its first, the coordinator passes sampled tokens on.
//
// Decisions are a function of the events alone. With `journal`, what the Host is told is given to
// the driver as records (host_journal.hpp); a replay of these gives the same decisions, bit for bit.
// Malformed input of nodes is an event to answer, never a CHECK.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/digest.hpp"
#include "policy/coordinator_events.hpp"
#include "policy/host.hpp"
#include "policy/membership.hpp"

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
  AdmissionLimits admission;
  bool journal = false;              // HostRecord actions
  bool iterations = false;           // IterationNote and WayNote actions
  std::vector<std::string> nodes;    // names of the plan, in NodeId order; others may join
  // Incarnations that belonged to earlier epochs: refused.
  std::vector<std::pair<std::string, uint64_t>> fenced;
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
  std::string state = "waiting";     // then "running"; at last "finished", "cancelled" or "failed"
  std::string failure;               // why it failed
};

// A node as the host sees it (towline status).
struct NodeView {
  NodeId node;
  std::string name;
  uint64_t incarnation = 0;
  std::string state;                 // "ready", "draining", "drained", "gone", "never seen"
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
  Batcher::Counters counters() const { return host_.batcher().counters(); }
  bool idle() const { return requests_.empty(); }
  bool can_route() const { return host_.open(); }
  double max_flow() const { return max_flow_; }
  Epoch epoch() const { return options_.epoch; }
  std::vector<NodeView> nodes() const;
  // A request that runs, or one of the last few hundred that ended; null if it is forgotten.
  const RequestTrace* trace(RequestId id) const;
  const Membership& membership() const { return membership_; }
  using Links = std::set<std::pair<NodeId, NodeId>>;
  const Links& broken_links() const { return broken_; }  // between nodes that are here; not used
  const Host& host() const { return host_; }
  // The Host's clock, by which requests wait for nodes, stands still while the driver does. Its records
  // are of this time.
  Instant host_time(Instant now) const { return now - stood_still_; }
  // With `journal`: the digest of all of the Host's actions so far, for the end of the journal.
  HostRecord seen_so_far() const;

  void check_invariants() const;     // for tests

 private:
  struct Node {                      // its number in the Host's plans is its NodeId
    LayerRange layers;
    int32_t kv_blocks = 0;
    int32_t max_rows = 0;
    int32_t stages = 1;
    int32_t incarnations = 0;        // so many welcomes; the Host's incarnation
    bool draining = false;
    std::optional<StepSender> sender;  // while it is here
    NodeStep draft;                  // sections that go with its next message
    bool resync = false;             // ...before which the full form has to go
    std::string lost;                // why the last incarnation was
    int64_t rows = 0;
    double planned_flow = 0;
    bool usable() const { return sender.has_value() && !draining; }
  };
  struct Way {
    NodeId node;
    LayerRange layers;
  };
  struct Flight {
    int32_t ticket = 0;              // of the Host
    std::vector<SlotGen> slots;      // of its entries
  };
  struct Lane {
    std::vector<Way> way;
    // What the nodes call it; negative: they do not know it yet. They must learn of lanes in this
    // order: one that they do not know, below the latest they do, is taken to have been closed.
    LaneId wire{-1};
    int64_t next_step = 0;
    std::map<int64_t, Flight> flights;
  };
  struct Request {
    CoordinatorRequest spec;         // its prompt moves to the Host
    SeqId seq;                       // and the Host's RequestId
    LaneId lane{-1};
    std::optional<SlotGen> slot;     // known to the nodes of its lane
    int32_t outputs = 0;
    int32_t known = 0;               // tokens when it was last evaluated from the beginning
    Instant submitted{}, first_step{-1};
    bool prompt_reported = false;
    std::vector<ScoredToken> prompt_scores;
    int32_t cached = 0;
    bool done = false, stopped = false;  // its last token was accepted; it was a stop token
    std::optional<std::string> failure;  // ends with kError instead of what the Host says
    Code failure_code = Code::kUnavailable;
  };

  // Events (coordinator.cpp).
  void on(const ClockTick&);
  void on(const StoodStill& still);
  void on(const NodeHello& hello);
  void on(const NodeGone& gone);
  void on(const NodeBeat& beat);
  void on(const LinkReport& report);
  void on(const PlanMade& plan);
  void on(const CoordinatorRequest& request);
  void on(const CancelRequest& cancel);
  void on(const StepResults& results);
  void on(const StepFailed& failed);
  void on(const SyncNeeded& sync);
  void on(const DrainNode& drain);
  void lose_node(NodeId node, const std::string& reason);
  void need_plan();
  void ask_plan();
  void note(CoordinatorNote::Level level, std::string text);
  Node* node_at(NodeId node);
  const std::string& name_of(NodeId node) const { return membership_.member(node).name; }

  void links_broke(const Links& links);
  void heal_links();
  void forget_links(NodeId node);

  // The Host (coordinator_host.cpp).
  static HostOptions host_options(const CoordinatorOptions& options);
  HostPlan host_plan() const;
  int32_t link_id(int32_t from, int32_t to);
  void settle();
  void tell(const HostEvent& event);
  void carry_out(const HostAction& action);
  void record(HostRecord::Kind kind, std::string bytes);
  void placed(Request& request, LaneId lane);
  void displaced(Request& request);
  void ended(Request& request, const HostAction& action);
  void explain_failure(Request& request, const HostAction& action) const;
  void lane_closed(LaneId lane);
  void end_attempt(const Request& request, const std::string& outcome);
  std::string why_broken(const Lane& lane) const;
  Request& request_of(RequestId host_id) { return requests_.at(SeqId(host_id.value)); }

  // Steps (coordinator_steps.cpp).
  void dispatch(int32_t ticket, LaneId id);
  void announce(Lane& lane, LaneId id, std::vector<NodeStep>& drafts);
  // A step that the nodes speak of, if it is in flight.
  Lane* lane_on_wire(LaneStep step);
  // The entry's part of the message for each of the lane's nodes.
  void add_entry(const Lane& lane, const StepEntry& entry, Request& request,
                 std::vector<NodeStep>& drafts);
  void drop_table(Request& request);
  void free_slot(Request& request);
  bool send(NodeId node, NodeStep draft);
  bool send_full(NodeId node);
  void flush_drafts();
  void learn(const Lane& lane, SlotGen slot, int32_t position, int32_t token);
  bool feeds_break(const Lane& lane) const;
  void note_iteration(Request& request, const StepEntry& entry, bool result);
  Sampled accept(Request& request, const StepEntry& entry, const RowResult* result);
  void note_prompt(Request& request, const StepEntry& entry, const RowResult* result);
  RequestUpdate& update_of(const Request& request);
  SlotGen take_slot();
  void begin_again(const std::vector<LaneId>& lanes, std::vector<RequestId> failed,
                   const std::string& reason);

  CoordinatorOptions options_;
  Membership membership_;
  std::vector<Node> nodes_;                     // [NodeId]
  Links broken_;                                // not used
  std::map<NodeId, Links> named_broken_;        // by whom; not empty. Others in broken_ heal soon
  bool links_may_heal_ = false;
  Instant heal_at_{};                           // not before
  Host host_;

  // The plan in force: links for newcomers, none while another is awaited after a loss.
  std::vector<HostLink> open_links_;            // in order of id
  std::map<std::pair<int32_t, int32_t>, int32_t> link_ids_;  // for ever
  double max_flow_ = 0;
  int64_t plans_asked_ = 0;
  bool plan_asked_ = false, awaiting_plan_ = false;
  bool plan_stale_ = false;                     // the Host has to be told another

  std::map<SeqId, Request> requests_;
  std::map<RequestId, SeqId> by_id_;
  std::map<LaneId, Lane> lanes_;                // of the Host
  std::map<LaneId, LaneId> on_wire_;            // Lane::wire to the Host's
  int32_t next_wire_ = 0;
  std::map<int32_t, LaneStep> tickets_;         // in the Host's lanes
  int64_t next_seq_ = 0;
  std::vector<uint16_t> slot_gens_;             // [slot]
  std::vector<uint32_t> free_slots_;

  std::map<RequestId, RequestTrace> traces_;
  std::deque<RequestId> ended_traces_;
  int64_t steps_ = 0, tokens_ = 0, prompt_tokens_ = 0, last_rows_ = 0, reroutes_ = 0;
  Digest digest_;                               // of the Host's actions, with `journal`
  int64_t told_ = 0, acted_ = 0;

  Duration stood_still_{};                      // the driver, in all

  // Of the event being handled.
  Instant now_{};
  std::vector<CoordinatorAction>* out_ = nullptr;
  std::map<SeqId, RequestUpdate> updates_;
  std::string break_reason_;                    // of lanes that begin again
};

}  // namespace towline::policy
