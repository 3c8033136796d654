// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The insides of HelixEngine, shared by its .cpp files and nothing else: what a query, a link and a
// node carry while they are simulated. The event handlers are in helix_engine.cpp (queries,
// execution) and helix_transmit.cpp (links and routers); the feeders in helix_feed.cpp.
#pragma once

#include <deque>
#include <optional>
#include <variant>

#include "sim/helix_engine.hpp"

namespace towline::sim {

enum class HelixEventKind : uint8_t {
  kNewRequest,          // query: an iteration arrives at the coordinator
  kLoadModel,           // where: node
  kStartLoading,        // where: node
  kFinishLoading,       // where: node
  kStartTransmission,   // where: node or kSourceNode
  kFinishSending,       // where: link, query
  kFinishTransmission,  // where: link, query
  kGather,              // the coordinator looks at what came back
  kStartExecution,      // where: node
  kFinishExecution,     // where: node, query: generation of its batch
};

struct HelixEvent {
  HelixEventKind kind = HelixEventKind::kGather;
  int32_t where = 0;
  uint32_t query = 0;
};

using HelixCauses = EventQueue<double, HelixEvent>::Causes;

// A query and its iteration under way (there is one at a time). Slots are reused.
struct HelixQuery {
  int64_t uid = 0, request = 0;   // numbers as in the reference, for the caller's record
  int32_t input = 0, output = 0;  // tokens
  int32_t iteration = 0;          // 0: the prompt; then one decode per output token
  int32_t context = 0;            // tokens of the iterations before this one
  int32_t stage = -1;             // index of the last hop taken; -1: at the coordinator
  double created = 0;             // when this iteration was issued
  double moved = 0;               // when it came to the place where it is
  double sent = 0;                // when it was last put on a link
  double bandwidth = 0;           // reserved on that link
  double compute = 0, network = 0;
  policy::Pipeline route;

  bool prompt() const { return iteration == 0; }
  int32_t tokens() const { return prompt() ? input : 1; }
};

struct Waiting {
  uint32_t query = 0;
  uint64_t order = 0;  // of arrival in the sender's outbound buffer
};

struct HelixLinkState {
  std::deque<Waiting> queue;  // requests that will take this link
  double free = 0;            // bytes/s not reserved
  double planned = 0;         // max flow: what every transmission gets
  bool busy = false;          // max flow: one at a time
  // Stage grain, max flow: when the last one queued has left, and the causes of that event.
  double free_at = 0;
  HelixCauses causes{};
};

// The outbound side of a node or of the source.
struct HelixSender {
  std::vector<int32_t> links;      // in the order of the file
  double nic = 0, free = 0;        // bytes/s
  std::vector<Waiting> unrouted;   // no link chosen yet (heuristic routers)
  std::vector<Waiting> unreported; // not yet measured (swarm)
  uint64_t arrivals = 0;
};

struct HelixNodeState {
  std::vector<std::vector<policy::StageWork>> queues;  // [layer - first layer] waiting before it
  policy::StageBatch batch;
  int64_t waiting = 0;       // in all queues
  int64_t buffered_tokens = 0;  // received since the first layer last ran: still to be copied
  int32_t current = 0;       // layer - first layer
  double nic_in_free = 0;    // bytes/s
  bool busy = false;
  uint32_t generation = 0;   // of the batch that is running
  // Stage grain: layers [first, stop) of the running batch, by their place in the node.
  int32_t first = 0, stop = 0;
  double began = 0, first_seconds = 0, layer_seconds = 0;
  double ends = 0;             // of the last of them
  HelixCauses causes{};        // of what was pushed when it began
  uint32_t order = 0;          // then, or when an earlier part of this round of the layers began
  struct LastLayer {
    double begin = 0;
    HelixCauses causes{};
  };
};

struct HelixEngine::State {
  State(HelixInput in, HelixOptions opt, HelixTraffic work);

  using Kind = HelixEventKind;
  using Event = HelixEvent;

  // helix_feed.cpp
  void generate_trace();                   // online
  void feed_initial();                     // offline
  void consider_feeding(bool was_prompt);  // offline
  bool feed_online();                      // issues and simulates the trace; false: stopped
  std::pair<int32_t, int32_t> sample_length();
  void issue_query(double when, int32_t input, int32_t output);

  // Stage grain, max flow: when a request will have left is known when it is queued on a link.
  bool sends_ahead() const {
    return options.stage_grain && options.router == HelixRouter::kMaxFlow;
  }

  // helix_engine.cpp
  double load_models();
  bool simulate(double until);             // false: stopped, or fault is set
  void handle(const Event& event);
  void new_request(uint32_t query);
  void gather();
  void finish_iteration(uint32_t query);
  void record(const HelixQuery& q);
  void start_execution(int32_t node);
  void finish_execution(int32_t node);
  double batch_seconds(int32_t node);
  void start_stage(int32_t node);
  HelixNodeState::LastLayer last_layer(const HelixNodeState& n) const;
  double begin_of_layer(const HelixNodeState& n, int32_t layer) const;
  void push_end_of_stage(int32_t node);
  void stop_batch_before(int32_t node, int32_t layer);
  void look(double next_event);

  // helix_transmit.cpp
  void enter_outbound(int32_t place, uint32_t query);
  void start_transmission(int32_t place);
  void send_planned(int32_t place, uint32_t query);
  void finish_sending(int32_t link, uint32_t query);
  void finish_transmission(int32_t link, uint32_t query);
  double seconds_on_link(int32_t place, const HelixLink& link, const HelixQuery& q,
                         double bandwidth) const;
  void send(int32_t place, int32_t link, uint32_t query, double bandwidth);
  void transmit_planned(int32_t place);
  void transmit_picked(int32_t place);     // random, shortest queue
  void transmit_swarm(int32_t place);
  void pick_link(const Waiting& prompt, int32_t place);
  void find_free_links(const HelixSender& sender);
  void report_swarm(int32_t place);
  void plan_bandwidth();
  void take_hop(HelixQuery& q, int32_t place, int32_t link);

  HelixSender& sender(int32_t place) { return senders[place + 1]; }
  double& sink_or_node_nic(int32_t end) {
    return end == policy::kSinkNode ? sink_free : nodes[end].nic_in_free;
  }
  void push(double when, Kind kind, int32_t where, uint32_t query = 0) {
    events.push(when, {kind, where, query});
  }
  void push_now(Kind kind, int32_t where, uint32_t query = 0) {
    push(events.now(), kind, where, query);
  }

  HelixInput input;
  HelixOptions options;
  HelixTraffic traffic;
  policy::RouteMap map;
  policy::KvLedger ledger;
  std::optional<policy::FlowRouter> flow_router;
  std::optional<policy::SwarmRouter<double>> swarm_router;
  PyRandom random;

  EventQueue<double, Event> events;
  std::vector<HelixQuery> queries;
  std::vector<uint32_t> free_queries;
  std::vector<HelixLinkState> links;
  std::vector<HelixSender> senders;  // [place + 1]
  std::vector<HelixNodeState> nodes;
  std::vector<uint32_t> at_sink;
  double sink_free = 0;

  struct Arrival {
    double when;
    int32_t input, output;
  };
  std::vector<Arrival> trace;  // online
  int64_t next_query_uid = 30'000'000;
  int64_t next_request_uid = 10'000'000;
  int64_t active = 0;

  std::optional<Error> fault;
  const Watcher* watcher = nullptr;
  const std::atomic<bool>* stop = nullptr;
  double last_look = -1;
  HelixReport report;
  std::vector<double> prompt_latencies, decode_latencies;  // in the window, in order of finishing
  double sum_compute = 0, sum_network = 0;
  int64_t all_decodes = 0;

  // Scratch space of the transmission handlers.
  struct FreeLink {
    int32_t link;
    double bandwidth;
    int64_t query;  // assigned in this round; -1: none
  };
  std::vector<FreeLink> free_links;
  std::vector<Waiting> chosen;
  std::vector<int32_t> order_scratch, retransmit;
  std::vector<uint8_t> usable, shortest;
  std::vector<int64_t> queue_lengths;
};

}  // namespace towline::sim
