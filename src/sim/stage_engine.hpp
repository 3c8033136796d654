// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageEngine: Towline's own simulator of one model over unequal, distant and failing machines.
//
// Every decision is made by policy::Host, which decides for the running cluster too: who is
// admitted, by which pipeline, in which steps, with which KV blocks, what happens when a node is
// lost. This engine supplies what is not a decision: time, arrivals, machines and links
// (sim/virtual_cluster.hpp), and counts. Its grain is a microbatch through all layers of a node.
//   disturbance nodes crash, are reclaimed with a warning, hang, slow down and come back (loading
//               their layers from disk); links fail and change. The flow is planned anew on what is
//               left; requests that lost KV are computed again from their tokens, on another way.
//
// Every request ends once: finished, rejected or failed, with the reason (checked at the end
// of every run). With a journal, every event that the host was told is written down and can be
// replayed (sim/replay.hpp). Deterministic in its input. Memory: a record per request in flight,
// eight bytes a finished request and metric, no events kept.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "obs/journal.hpp"
#include "policy/host.hpp"
#include "sim/helix_input.hpp"
#include "sim/node_timeline.hpp"
#include "sim/stage_cost.hpp"
#include "sim/virtual_cluster.hpp"
#include "spec/workload.hpp"

namespace towline::sim {

enum class DisturbanceKind {
  kCrash,      // gone, with its KV; noticed after detect_seconds
  kReclaim,    // the same, but announced: noticed at once
  kRejoin,     // after a crash: loads its layers from disk, then takes part
  kDrain,      // no new requests on it; those it has go on
  kHang,       // stops computing and answering; noticed like a crash, and what it held is void then
  kResume,     // after a hang: takes part again, its layers are still loaded
  kSlow,       // batches take `factor` times as long from now on
  kLinkDown,   // messages on it are lost; noticed after detect_seconds
  kLinkUp,
  kBandwidth,  // of a link: `factor` times that of the file
  kLatency,
};

struct Disturbance {
  double at = 0;       // seconds
  DisturbanceKind kind = DisturbanceKind::kCrash;
  int32_t target = 0;  // node or link
  double factor = 1;   // kSlow, kBandwidth, kLatency; 1: as before
};

struct StageProgress {
  double seconds = 0;  // simulated
  int64_t arrived = 0, ended = 0;
};

// What a client asks next in a session, `think` seconds after the answer.
struct FollowUp {
  double think = 0;
  int32_t input = 0, output = 0;  // tokens; the input holds all that was said before
};

struct RequestRecord;

// A look at everything, for time series. Sums since the start.
struct StageLook {
  double seconds = 0;
  const HelixInput& input;
  const VirtualCluster& cluster;
  const policy::Host& host;
};

struct StageOptions {
  // The coordinator's limits whole, as a running cluster has them (policy/serving_limits.hpp);
  // layers and prefix cache are the engine's. Router, estimator, depth, sequences, budget, chunk,
  // queue and places below do not count then.
  std::optional<policy::HostOptions> host;
  int64_t most_unfinished = 0;      // an arrival beyond so many is rejected, as by the API; 0: none
  policy::RouterKind router = policy::RouterKind::kFlow;
  uint64_t seed = 1;                // of the routers that draw
  bool fast_forward = true;         // of policy::Host; without, the same is decided more slowly
  bool few_ways = false;            // of all maximum flows one along few ways (sim/path_flow.hpp)
  bool prefix_cache = false;        // requests whose tokens are known use it; others never do
  int32_t spare_blocks = 1;         // as policy::BatcherLimits
  int32_t sequences = 0;            // running at a time, at most; 0: no such limit
  policy::KvEstimator estimator;
  Calibration calibration;
  int32_t prompt_budget = 2048;     // tokens a step
  int32_t chunk_tokens = 2048;      // of one prompt in one step
  int32_t depth = 0;                // steps of a pipeline on their way; 0: as many as it has nodes
  int64_t clients = 0;              // closed loop: so many clients, each sends when answered
                                    // (and leaves if refused); times are ignored. 0: open
  int64_t queue_limit = 1'000'000;  // waiting requests; beyond this they are rejected
  double think_seconds = 0;         // closed loop: a client waits so long before it sends again
  int64_t places = 0;               // requests admitted at a time; 0: as many as there is room for
  // With roles: KV leaves a node layer by layer as it is computed; else all
  // of it when the prompt is done.
  bool stream_layers = true;
  double detect_seconds = 1;        // from a crash to its being known
  double horizon = 0;               // seconds after the start to stop at; 0: when all have ended
  double window_begin = 0;          // tokens/s are counted from here, seconds after the start,
  double window_end = 0;            // to here; 0: to the end of the run
  double slo_ttft = 0, slo_tpot = 0;  // seconds; 0: no such goal
  std::vector<Disturbance> disturbances;  // in order of time
  double sample_seconds = 0;        // of the time series; 0: none
  int64_t trace_limit = 0;          // batches kept for the Chrome trace
  // Sessions: asked once for every request that finishes.
  std::function<std::optional<FollowUp>(const RequestRecord&)> follow_up;
  std::function<void(const StageLook&)> on_sample;        // every sample_seconds; may be empty
  std::function<void(const StageProgress&)> on_progress;  // now and then; may be empty
  obs::JournalWriter* journal = nullptr;  // of the host's events; outlives the engine
};

using policy::Outcome;

struct RequestRecord {
  int64_t id = 0;
  Outcome outcome = Outcome::kFinished;
  std::string_view reason;    // of a rejection or failure
  int32_t input = 0, output = 0;
  int64_t arrival = 0, admitted = -1, first_token = -1, end = 0;  // ns; -1: never
  int32_t restarts = 0;       // computed again after an eviction or a failure
};

struct Percentiles {
  int64_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

struct StageSample {
  double at = 0;              // seconds
  int64_t active = 0, queued = 0;
  double output_tps = 0;      // since the sample before
  double kv = 0;              // real bottleneck, 0..1
};

struct StageReport {
  bool interrupted = false;
  double started = 0;           // seconds until the models were loaded
  double first_arrival = -1;    // seconds; -1: nothing came
  double ended = 0;             // seconds, of the last event
  double max_flow = 0;
  int64_t arrived = 0, finished = 0, rejected = 0, failed = 0, unfinished = 0;
  int64_t restarts = 0, evictions = 0, replans = 0;
  int64_t prompt_tokens = 0, output_tokens = 0, recomputed_tokens = 0;
  int64_t cached_tokens = 0;                  // found in the prefix cache instead of being computed
  double output_tps = 0, prompt_tps = 0;      // in the window
  double goodput = 0;                         // requests/s within the goals
  double attainment = 0;                      // share of finished requests within the goals
  Percentiles ttft, tpot, itl, e2e, queueing; // seconds
  Percentiles first_token;                    // as ttft, but of all that got one, ended or not
  // Of those that finished: values that a share of i / (size - 1) does
  // not exceed; empty if none did.
  std::vector<double> ttft_curve, tpot_curve, e2e_curve;
  double mean_in_system = 0;                  // requests, time average (Little's law holds)
  std::vector<double> node_busy;              // [node] share of time
  // KV caches moved from prompt to decode nodes, and from a prompt's end
  // to the arrival of the last.
  int64_t kv_moves = 0;
  double kv_moved_bytes = 0;
  Percentiles kv_wait;
  // Copies of KV to other nodes, and from the computing of tokens to their copy's arrival.
  double replica_bytes = 0;
  Percentiles replica_lag;
  double machine_cost = 0, egress_cost = 0;   // in the currency of the prices
  std::vector<double> link_bytes;             // [link]
  std::vector<double> link_kv_bytes;          // [link] of these, KV caches
  std::vector<StageSample> samples;           // with sample_seconds, as is the next
  NodeTimeline timeline;
  std::vector<BatchTrace> batches;
  int64_t events = 0;
  int64_t steps = 0;
  int64_t forwarded = 0;                      // of these, decided in one move (fast_forward)
  int64_t out_of_profile = 0;                 // batches beyond the cost tables
  uint64_t digest = 0;                        // of all actions, if there is a journal
};

class StageEngine {
 public:
  // The next request, nothing at the end; times must not decrease. Called as time goes on, so that
  // no trace is ever held whole.
  using Source = std::function<Result<std::optional<spec::TraceRequest>>()>;
  // Called once for every request, when it ends.
  using Sink = std::function<void(const RequestRecord&)>;

  static Result<StageEngine> make(HelixInput input, StageOptions options, Source source,
                                  Sink sink = nullptr);
  ~StageEngine();
  StageEngine(StageEngine&&) noexcept;
  StageEngine& operator=(StageEngine&&) noexcept;

  // Call once. When `stop` becomes true, the report covers the time until then and says so.
  Result<StageReport> run(const std::atomic<bool>* stop = nullptr);

 private:
  struct State;
  explicit StageEngine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace towline::sim
