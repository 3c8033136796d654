// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the Helix mode of the simulator takes and gives, as plain data (sim/helix_engine.hpp).
//
// Everything that changes the published simulator's numbers is here, in its units: seconds,
// bytes/s, layer-tokens. sim/helix_load.hpp fills the input from files.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "policy/host.hpp"
#include "policy/kv_ledger.hpp"
#include "policy/pipeline.hpp"
#include "policy/stage_batcher.hpp"

namespace towline::sim {

// Seconds that one layer takes on one kind of machine, for every batch size of the profile's grid.
struct LayerTimes {
  std::vector<double> prompt;  // [tokens in the batch]
  std::vector<double> decode;  // [requests in the batch]
  std::vector<double> head;    // [tokens drawn], after the model's last layer; empty: not counted
  // Seconds more for each token of context that a decode, or each prompt token, looks back on,
  // beyond what the tables hold (spec::context_beyond). Helix's tables were measured at a usual
  // context and have 0; the Helix mode does not use them.
  double decode_context_seconds = 0, prompt_context_seconds = 0;
  int32_t table_context = 0;          // of each sequence of the decode table
  bool table_prompts_context = false; // the prompt table holds that of a prompt from its beginning
  // A mixed batch reads the weights once: it costs prompt[all rows]. Otherwise, as in Helix's
  // model, prompt[tokens] + decode[requests], with the cost of a single decode doubled (its tables
  // begin with an empty batch of no cost, so that interpolation halves it).
  bool shared_weights = false;
};

struct HelixNode {
  std::string name;
  LayerRange layers;           // empty: not used
  int32_t machine = 0;         // index into HelixInput::times
  double nic_in = 0, nic_out = 0, disk = 0;  // bytes/s
  int64_t kv_capacity = 0;     // layer-tokens
  double price = 0;            // of an hour, in any currency; 0: not known
  double rate = 0;             // T(k): planned tokens/s with these layers
  policy::NodeRole role = policy::NodeRole::kBoth;
  // Bytes/s at which KV is fetched from the host's memory, where all sequences' caches are; every
  // step fetches those of its decodes. 0: they are on the device.
  double swap_bandwidth = 0;
  int32_t replica = -1;        // node that gets a copy of the KV computed here; -1: none
  policy::StageLimits limits;
  // Rows of a run that a worker gathers as policy::Peer does: fewest rows first, one step of each
  // lane. 0: steps are taken in the order of their coming (policy::NodeBatch).
  int32_t run_rows = 0;
};

struct HelixLink {
  int32_t from = policy::kSourceNode;
  int32_t to = policy::kSinkNode;
  double latency = 0;          // seconds
  double bandwidth = 0;        // bytes/s
  double price = 0;            // of a GB (10^9 bytes) that leaves over it
  bool kv_only = false;        // carries KV caches; no way leads over it
};

struct HelixInput {
  int32_t total_layers = 0;
  double token_bytes = 0;
  double activation_bytes = 0; // of one token
  double layer_bytes = 0;      // weights of one layer
  double kv_bytes = 0;         // K and V of one token in one layer; 0: not known
  double coordinator_nic_in = 0, coordinator_nic_out = 0;
  std::vector<HelixNode> nodes;
  std::vector<HelixLink> links;
  std::vector<LayerTimes> times;
  std::vector<std::string> machines;  // [as times] their types' names
  std::vector<double> flow;    // [link] planned tokens/s; only the max-flow router needs it
  double max_flow = 0;
  double max_compute = 0;      // upper bound of the flow
};

enum class HelixRouter { kMaxFlow, kSwarm, kRandom, kShortestQueue };

struct HelixOptions {
  bool online = false;
  HelixRouter router = HelixRouter::kMaxFlow;
  // Grain of a stage: a batch runs through all layers before which nothing waits as one event, and
  // with max flow so does a request over its link. The results are those of single layers.
  bool stage_grain = false;
  double compute = 1;            // calibration: all table times are multiplied by this,
  double hop_seconds = 0;        // and every message costs its end this much of software
  uint64_t seed = 0;
  policy::KvEstimator estimator;
  int32_t initial_queries = 20;  // offline
  double feed_high_water = 0.8;  // offline: a new query while the bottleneck is not above this
  double feed_rate = 700;        // online: tokens/s, prompt and output together
  double warm_up = 60;           // seconds, before the window of the statistics
  double duration = 600;         // seconds, the window
  double watch_interval = 0;     // simulated seconds between two looks; 0: none
  int64_t finished_limit = 0;    // how many finished iterations to keep for the caller
};

// The workload the feeders draw from.
struct HelixTraffic {
  std::vector<std::pair<int32_t, int32_t>> lengths;  // (input, output) tokens, both at least 1
  std::vector<double> arrivals;                      // requests in each bin of 3 s (online)
};

struct FinishedIteration {
  int64_t request = 0, query = 0;
  bool prompt = false;
  int32_t tokens = 0, previous_tokens = 0;
  double finish_time = 0, latency = 0;
};

struct HelixEventCounts {
  int64_t new_request = 0, load_model = 0, start_transmission = 0, finish_sending = 0,
          finish_transmission = 0, gather_finished = 0, start_execution = 0, finish_execution = 0,
          start_loading = 0, finish_loading = 0;
  int64_t total() const {
    return new_request + load_model + start_transmission + finish_sending + finish_transmission +
           gather_finished + start_execution + finish_execution + start_loading + finish_loading;
  }
};

struct LatencySummary {
  int64_t count = 0;
  double mean = 0, p5 = 0, p50 = 0, p95 = 0, p99 = 0;  // seconds; 0 if count is 0
};

struct HelixReport {
  bool interrupted = false;      // stopped before its end; what follows covers the time until then
  double started = 0;            // T0: all models are loaded
  double window_begin = 0, window_end = 0;
  double decode_tps = 0;
  LatencySummary prompt, decode;          // iterations that ended in the window
  double decode_compute = 0, decode_network = 0;  // mean seconds a decode spent so, whole run
  double last_finished = 0;
  int64_t total_tokens = 0;
  double total_tps = 0;
  int64_t finished_queries = 0, active = 0, rejected = 0;
  int64_t rejected_by_kv = 0, rejected_by_length = 0, rejected_by_flow = 0;
  double fed_tokens_per_second = 0;       // online: what the feeder really offers
  HelixEventCounts events;
  std::vector<FinishedIteration> finished;
};

}  // namespace towline::sim
