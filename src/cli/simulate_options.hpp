// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The options of `towline simulate`, shared by its two policies (cmd_simulate.cpp: helix,
// simulate_stage.cpp: towline).
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/options.hpp"
#include "base/result.hpp"

namespace towline::cli {

// What a negative number stands for in the options below: the default of the mode and the router.
inline constexpr double kByMode = -1;

struct SimulateOptions {
  std::string policy = "helix";
  std::string model = "llama2-70b", simulator_cluster, solution, profile_dir, flows, machines;
  std::string lengths, arrivals;
  std::string mode, router = "maxflow";  // mode: empty until it is known
  int64_t seed = 0;
  int initial_queries = -1;
  double feed_high_water = 0.8, feed_rate = kByMode;
  double kv_high_water = kByMode, output_ratio = kByMode, usual_output = 240;
  double warm_up = kByMode, duration = kByMode;
  double watch = 0;
  std::string grain = "layer";
  double compute_factor = 1, hop_seconds = 0, batch_seconds = 0;
  double decode_context = 0, prompt_context = 0;
  bool shared_weights = false;
  bool json = false;
  std::string finished_csv;
  int64_t finished_limit = 2000;
  // --policy towline
  std::string trace;
  int64_t requests = 0, clients = 1000;
  double rate = 0, variation = 1;
  int input = 0, output = 0;
  std::string arrival_process = "poisson";
  int prompt_budget = 2048, chunk_tokens = 2048, depth = 0;
  int64_t queue_limit = 1'000'000;
  double slo_ttft = 0, slo_tpot = 0, detect = 1;
  std::vector<std::string> disturb;
  std::string out, journal, replay;
  bool find_max_rate = false;
  std::string slo;
  double think = 0;
  int64_t seeds = 1;
  int threads = 0;
  double attainment = 0.9;
  std::string scenario, profile;
  std::string cluster, plan;
  int prompt_machines = 0;
  std::string kv_stream = "layers";
  bool find_pd_ratio = false, replicate = false;
  double swap_bandwidth = 0, swap_memory = 0;  // GB/s, GB
  bool few_ways = false;
  bool no_fast_forward = false, prefix_cache = false;
  int spare_blocks = 1;
  std::string servegen, arrivals_of;
  double servegen_from = 0;
  double turns = 1, turn_think = 10;
  std::string churn;
  double churn_speed = 1, churn_from = 0, spot_warning = 0;
  std::vector<std::string> network;
  std::string regions, coordinator_region, prices;
};

// The rows of --policy towline.
void add_stage_options(OptionTable& table, SimulateOptions& o);
Result<int> run_stage(const SimulateOptions& o);
// --replay: a run's decisions once more, from its journal.
Result<int> run_replay(const SimulateOptions& o);

// Ctrl-C and SIGTERM set it; the run then reports what it has.
const std::atomic<bool>& stop_on_signals();

// CPU seconds and peak memory (MiB) of this process so far.
struct ProcessCost {
  double cpu_seconds = 0;
  double max_rss_mb = 0;
};
ProcessCost process_cost();

}  // namespace towline::cli
