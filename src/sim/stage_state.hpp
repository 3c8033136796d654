// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The insides of StageEngine, shared by its .cpp files and nothing else. Requests and steps are in
// stage_engine.cpp; planning, disturbances and the report in stage_world.cpp.
#pragma once

#include <map>

#include "base/digest.hpp"
#include "sim/metrics.hpp"
#include "sim/stage_engine.hpp"

namespace towline::sim {

// The engine's own events in the cluster's queue.
enum class StageEvent : uint8_t {
  kArrival,      // the pending request of the source arrives
  kDisturbance,  // number: index
  kDetected,     // number: index; the coordinator learns of it
  kSample,
  kClient,       // a client has thought enough
  kTurn,         // number: index; the next turn of a session
  kKvThere,      // number: index of streams; they were of no bytes
};

// A request's slot is its RequestId and SeqId while it is not ended.
struct StageRequest {
  RequestRecord record;
  bool used = false;
};

// What every token touches, apart from the rest to keep it in the cache.
struct TokenCount {
  int64_t last = 0;        // ns, of the last token
  int32_t produced = 0;    // output tokens so far
  int32_t input = 0;       // of the prompt
};

// A step on its way, by its ticket. While it goes round and round with the same sequences, their
// TokenCounts are left as they were; what they missed is `rounds`.
struct StepOnWay {
  ParcelWork work;
  const policy::Pipeline* way = nullptr;  // of the host's lane
  bool again = false;
  int32_t rounds = 0;
  int64_t returned = 0;    // ns, the last time
  std::vector<uint32_t> slots;  // of its sequences that sample
};

// Of a request between a prompt node and a decode node.
struct KvMove {
  int32_t streams = 0;     // on their way
  uint32_t attempt = 0;    // streams of earlier ones do not count
  int64_t done_at = -1;    // ns, the prompt's end; -1: it goes on
  policy::Pipeline prompt_way;  // where it is computed
};

// A stream of KV under way: of a request, or of a replica.
struct KvStream {
  int32_t slot = -1;       // -1: a replica's
  uint32_t attempt = 0;
  int64_t since = 0;       // ns
};

struct StageEngine::State {
  State(HelixInput in, StageOptions opt, Source from, Sink to);

  // stage_engine.cpp
  Result<void> start();
  void handle(const VirtualCluster::Happening& h);
  void tell(const policy::HostEvent& event);
  void carry_out();
  void launch(int32_t ticket);
  void launch_again(int32_t ticket);
  void returned(int32_t ticket);
  int64_t count_tokens(int32_t ticket);
  void catch_up(StepOnWay& step);
  void first_token(uint32_t slot);
  int32_t token_of(uint32_t slot, int32_t number) const;
  void pull_arrival();
  void serve_clients();
  void arrive();
  void take_in(const spec::TraceRequest& request);
  void end_request(uint32_t slot, Outcome outcome, std::string_view reason);

  // stage_kv.cpp
  void find_kv_links();
  void stages_done();
  void stream(int32_t link, double bytes, double hidden, KvStream what);
  void stream_rows(uint32_t slot, const policy::Pipeline& decode_way, int32_t node,
                   LayerRange layers, int64_t rows, double seconds);
  void hand_over(uint32_t slot, LaneId lane);
  void streamed(uint32_t number);
  void kv_there(uint32_t slot);
  void kv_void(uint32_t slot);
  void kv_lost_with(int32_t node);

  // stage_world.cpp
  policy::HostPlan plan();
  void plan_roles();
  policy::HostOptions host_options() const;
  void replan();
  void await_disturbances();
  void disturb(const Disturbance& d, uint32_t number);
  void detected(const Disturbance& d);
  void count_time();
  void sample();
  void sample_nodes();
  void check_books() const;
  StageReport make_report(bool interrupted);

  static int64_t ns(double seconds) { return static_cast<int64_t>(seconds * 1e9 + 0.5); }
  double seconds() const { return static_cast<double>(cluster.now()) * 1e-9; }
  void call_at(int64_t when, StageEvent what, size_t number = 0) {
    cluster.call_at(when, static_cast<uint8_t>(what), static_cast<uint32_t>(number));
  }
  bool in_window() const { return cluster.now() >= window_begin && cluster.now() <= window_end; }

  HelixInput input;
  StageOptions options;
  Source source;
  Sink sink;
  VirtualCluster cluster;
  std::optional<policy::Host> host;
  std::vector<policy::HostAction> actions;
  Digest digest;
  int64_t told = 0, acted = 0;               // events, actions of the host
  std::optional<Error> fault;

  HelixInput left;                           // what was left of the cluster at the last plan

  // What the coordinator knows of the cluster.
  std::vector<bool> link_known_up, node_known_up, draining;
  std::vector<double> flow;                  // [link] of the last plan
  std::vector<FollowUp> turns;               // of clients that think
  std::vector<uint32_t> free_turns;
  std::vector<int32_t> incarnation;          // [node]
  double max_flow = 0;

  std::vector<StageRequest> requests;        // [slot]
  std::vector<TokenCount> counts;            // [slot]
  std::vector<uint32_t> free_requests;
  std::vector<std::shared_ptr<const spec::TraceTokens>> tokens;  // [slot], with a prefix cache
  std::vector<policy::Sampled> sampled;      // scratch: what a step gave, if there is one
  std::vector<StepOnWay> steps;              // [ticket]
  std::optional<spec::TraceRequest> pending;
  size_t next_disturbance = 0;               // that is not in the cluster's queue
  int64_t next_id = 0, in_system = 0;
  int64_t thinking = 0;                      // clients between two requests
  int64_t owed = 0;                          // requests that closed-loop clients will send

  int64_t window_begin = 0, window_end = INT64_MAX;  // ns
  int64_t last_count = 0;
  double system_time = 0;                    // request-nanoseconds
  int64_t window_output = 0, window_prompt = 0, sampled_output = 0;
  std::vector<int64_t> sampled_busy;         // [node] ns until the last sample
  int64_t within_goals = 0, needed_rows = 0;
  StageReport report;
  std::vector<double> ttft, tpot, e2e, queueing, first_tokens;
  LogHistogram itl;

  bool roles = false, replicas = false;
  std::map<std::pair<int32_t, int32_t>, int32_t> kv_links;  // (from, to)
  std::vector<KvMove> moves;                 // [slot]
  std::vector<KvStream> streams;             // by number
  std::vector<uint32_t> free_streams;
  std::vector<double> kv_waits;
  LogHistogram replica_lag;
};

}  // namespace towline::sim
