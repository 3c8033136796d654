// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The insides of StageEngine, shared by its .cpp files and nothing else. Requests, batches and
// messages are in stage_engine.cpp; planning, disturbances and the report in stage_world.cpp.
#pragma once

#include <deque>

#include "policy/kv_ledger.hpp"
#include "policy/router.hpp"
#include "sim/event_queue.hpp"
#include "sim/fair_network.hpp"
#include "sim/metrics.hpp"
#include "sim/stage_engine.hpp"

namespace towline::sim {

enum class StageEventKind : uint8_t {
  kArrival,      // the pending request of the source arrives
  kMessage,      // number: message
  kNetwork,      // number: generation of the fair network's plan
  kBatchDone,    // where: node, number: its generation
  kDisturbance,  // number: index
  kDetected,     // number: index; the coordinator learns of it
  kReady,        // where: node, number: its generation; layers are loaded
  kSample,
};

struct StageEvent {
  StageEventKind kind = StageEventKind::kArrival;
  int32_t where = 0;
  uint32_t number = 0;
};

// A piece of work of a request: a chunk of its prompt, or one decode step.
struct StageItem {
  uint32_t request = 0;
  uint32_t generation = 0;  // stale if the request was restarted since
  int32_t hop = 0;          // index of the hop it is on
  int32_t tokens = 0;       // of a prompt chunk; 0: a decode
  bool last = false;        // yields a token: a decode, or the last chunk
};

struct StageMessage {
  std::vector<StageItem> items;
  int32_t link = 0;
  uint32_t link_generation = 0;
};

struct StageRequest {
  RequestRecord record;
  uint32_t generation = 0;
  bool used = false, admitted = false;
  int32_t prompt = 0;      // tokens to be computed first: the prompt, after a restart also output
  int32_t produced = 0;    // output tokens so far
  int64_t last_token = 0;  // ns
  int64_t epoch = 0;       // of the plan its pipeline is from
  policy::Pipeline pipeline;         // links by the engine's numbers
  policy::Pipeline routed;           // as the router gave it
  std::vector<int32_t> kv;           // [hop] tokens held in each layer there
};

struct StageNode {
  std::deque<StageItem> decodes, prompts;
  std::vector<StageItem> batch;
  int32_t batch_prompt_tokens = 0, batch_decodes = 0;
  int64_t batch_begin = 0, busy_ns = 0;
  uint32_t generation = 0;   // of crashes
  double slowness = 1;
  bool up = true, ready = false, busy = false;
};

struct StageEngine::State {
  State(HelixInput in, StageOptions opt, Source from, Sink to);

  using Kind = StageEventKind;
  using Event = StageEvent;

  // stage_engine.cpp
  void handle(const Event& event);
  void pull_arrival();
  void arrive();
  void admit_waiting();
  bool try_admit(uint32_t slot);
  void send_prompt(uint32_t slot);
  void end_request(uint32_t slot, Outcome outcome, std::string_view reason);
  void restart(uint32_t slot);
  void release(StageRequest& r);
  void token_done(uint32_t slot);
  bool stale(const StageItem& item) const {
    return requests[item.request].generation != item.generation;
  }
  void take_batch(StageNode& n, const HelixNode& spec);
  void start_batch(int32_t node);
  void finish_batch(int32_t node);
  bool grow_kv(const StageItem& item, int32_t node);
  int64_t batch_ns(int32_t node);
  void post(int32_t link, const StageItem& item);
  void send_posted();
  void serve_clients();
  void send(int32_t link, std::vector<StageItem>&& items);
  void deliver(uint32_t message);
  void network_changed();

  // stage_world.cpp
  void plan();
  void disturb(const Disturbance& d);
  void detected(const Disturbance& d);
  void node_ready(int32_t node);
  void count_time();
  void sample();
  void check_books() const;
  StageReport make_report(bool interrupted);

  static int64_t ns(double seconds) { return static_cast<int64_t>(seconds * 1e9 + 0.5); }
  double seconds() const { return static_cast<double>(events.now()) * 1e-9; }
  bool in_window() const {
    const double t = seconds() - report.started;
    return t >= options.window_begin && (options.window_end <= 0 || t <= options.window_end);
  }

  HelixInput input;
  StageOptions options;
  Source source;
  Sink sink;
  policy::KvLedger ledger;
  std::optional<policy::FlowRouter> router;  // absent: nothing can be served now
  std::vector<int32_t> planned_links;        // router's link -> the engine's
  int64_t epoch = 0;
  double max_flow = 0;

  EventQueue<int64_t, Event> events;
  std::vector<StageRequest> requests;
  std::vector<uint32_t> free_requests;
  std::deque<uint32_t> waiting;              // not admitted, in order
  std::vector<StageNode> nodes;
  std::vector<bool> link_up, link_known_up, node_known_up;
  std::vector<uint32_t> link_generation;
  FairNetwork network;
  uint32_t network_generation = 0;
  std::vector<StageMessage> messages;
  std::vector<uint32_t> free_messages;
  std::optional<spec::TraceRequest> pending;
  int64_t next_id = 0, active = 0, in_system = 0;
  int64_t last_count = 0;
  double system_time = 0;                    // request-nanoseconds
  int64_t window_output = 0, window_prompt = 0, sampled_output = 0;
  int64_t within_goals = 0;

  std::optional<Error> fault;
  StageReport report;
  std::vector<double> ttft, tpot, e2e, queueing;
  LogHistogram itl;
  std::vector<std::vector<StageItem>> outbox;  // [link] to be sent together
  std::vector<int32_t> posted;                 // links with something in the outbox
  int64_t owed = 0;                            // requests that closed-loop clients will send
  std::vector<uint64_t> tags;
};

}  // namespace towline::sim
