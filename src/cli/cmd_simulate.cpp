// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/simulate_options.hpp"
#include "sim/helix_load.hpp"
#include "sim/helix_report.hpp"

namespace towline::cli {
namespace {

OptionTable table(SimulateOptions& o) {
  OptionTable t("simulate", "Simulate a cluster serving a workload.");
  t.describe(
      "The routers, the KV ledger and the batching policy are the objects that serve in "
      "production, under a virtual clock. '--policy helix' repeats the published Helix simulator "
      "bit for bit. docs/simulator.md explains the figures.");
  t.value("policy", &o.policy,
          "helix: the published simulator, layer by layer; towline: our own rules, batch by batch")
      .one_of({"helix", "towline"});
  t.value("model", &o.model, "llama2-70b, llama1-30b, or a profile file");
  t.value("simulator-cluster", &o.simulator_cluster, "Helix's simulator_cluster.ini")
      .metavar("FILE");
  t.value("solution", &o.solution, "Helix's *_sol.ini: the layers of each node").metavar("FILE");
  t.value("profile-dir", &o.profile_dir,
          "DIR/<model>/<gpu>/{prompt,decode}_bs2time.csv instead of the built-in tables")
      .metavar("DIR");
  t.value("flows", &o.flows, "JSON with the arc flows to use where the optimum is not unique")
      .metavar("FILE");
  t.value("machines", &o.machines,
          "machines that T(k) is derived for, as A100=4,L4=8; default: those of the cluster file");
  t.value("lengths", &o.lengths, "CSV of input_tokens,output_tokens to draw from").metavar("FILE");
  t.value("arrivals", &o.arrivals, "CSV of requests in each bin of 3 s (online)").metavar("FILE");
  t.value("mode", &o.mode,
          "offline keeps the cluster full, online plays arrivals; default: online if a scenario is "
          "given and something says the times, else offline")
      .one_of({"offline", "online"});
  t.value("router", &o.router, "how a request finds its nodes")
      .one_of({"maxflow", "swarm", "random", "shortest_queue"});
  t.value("seed", &o.seed, "of the random numbers").range(0, 1e15);
  t.value("initial-queries", &o.initial_queries,
          "offline: queries at the start; -1: 20 for maxflow, else 240")
      .range(-1, 1e6);
  t.value("feed-high-water", &o.feed_high_water,
          "offline, maxflow: feed while the expected bottleneck is not above this").range(0, 1);
  t.value("feed-rate", &o.feed_rate,
          "online: prompt and output tokens/s to offer; -1: 700 for maxflow, else 400")
      .range(-1, 1e12);
  t.value("kv-high-water", &o.kv_high_water,
          "share of a node's KV that may be booked; -1: 0.85 offline, 0.9 online").range(-1, 1);
  t.value("output-ratio", &o.output_ratio,
          "share of the usual output that is booked; -1: 1 offline, 0.6 online").range(-1, 100);
  t.value("usual-output", &o.usual_output, "tokens a request usually produces").range(0, 1e6);
  t.value("warm-up", &o.warm_up, "seconds before the window; -1: 60 offline, 0 online")
      .range(-1, 1e9);
  t.value("duration", &o.duration, "seconds of the window; -1: 600 offline, 1800 online")
      .range(-1, 1e9);
  t.value("watch", &o.watch, "print a live view every so many simulated seconds; 0: none")
      .range(0, 1e9);
  t.value("grain", &o.grain,
          "helix: layer has every event of the published simulator; stage takes a batch through "
          "all layers of a node at once: the same results in less time")
      .one_of({"layer", "stage"});
  t.value("compute-factor", &o.compute_factor,
          "calibration: the tables' times are multiplied by this").range(0.01, 100);
  t.value("hop-seconds", &o.hop_seconds, "calibration: software time of a message")
      .range(0, 10);
  t.flag("json", &o.json, "print the results as JSON");
  t.value("finished-csv", &o.finished_csv, "write the first finished iterations to this file")
      .metavar("FILE");
  t.value("finished-limit", &o.finished_limit, "how many of them").range(0, 1e8);
  add_stage_options(t, o);
  t.example(
      "towline simulate --policy helix --simulator-cluster simulator_cluster.ini --solution "
      "ilp_sol.ini --lengths lengths.csv --mode offline --router maxflow --json");
  t.example(
      "towline simulate --policy towline --simulator-cluster simulator_cluster.ini --solution "
      "ilp_sol.ini --trace azure.csv --disturb crash:3@60,rejoin:3@180 --slo-ttft 5 --out report");
  t.example(
      "towline simulate --cluster two-rooms.toml --model qwen2.5-7b --lengths lengths.csv --mode "
      "online --rate 2 --requests 500 --out report");
  t.example("towline simulate --scenario cluster.toml --profile desktop.toml --json");
  return t;
}

sim::HelixRouter router_of(const std::string& name) {
  if (name == "swarm") return sim::HelixRouter::kSwarm;
  if (name == "random") return sim::HelixRouter::kRandom;
  if (name == "shortest_queue") return sim::HelixRouter::kShortestQueue;
  return sim::HelixRouter::kMaxFlow;
}

sim::HelixOptions helix_options(const SimulateOptions& o) {
  const auto either = [](double given, double fallback) { return given < 0 ? fallback : given; };
  sim::HelixOptions h;
  h.online = o.mode == "online";
  h.router = router_of(o.router);
  h.stage_grain = o.grain == "stage";
  h.compute = o.compute_factor;
  h.hop_seconds = o.hop_seconds;
  const bool flow = h.router == sim::HelixRouter::kMaxFlow;
  h.seed = static_cast<uint64_t>(o.seed);
  h.estimator.high_water = either(o.kv_high_water, h.online ? 0.9 : 0.85);
  h.estimator.output_ratio = either(o.output_ratio, h.online ? 0.6 : 1.0);
  h.estimator.usual_output = o.usual_output;
  h.initial_queries = o.initial_queries >= 0 ? o.initial_queries : flow ? 20 : 240;
  h.feed_high_water = o.feed_high_water;
  h.feed_rate = either(o.feed_rate, flow ? 700 : 400);
  h.warm_up = either(o.warm_up, h.online ? 0 : 60);
  h.duration = either(o.duration, h.online ? 1800 : 600);
  h.watch_interval = o.watch;
  h.finished_limit = o.finished_csv.empty() ? 0 : o.finished_limit;
  return h;
}

Result<void> check_required(const SimulateOptions& o) {
  const auto need = [](const std::string& value, std::string_view name) -> Result<void> {
    if (!value.empty()) return {};
    return errorf(Code::kInvalidArgument, "--policy helix needs --{}", name);
  };
  TRY(need(o.simulator_cluster, "simulator-cluster"));
  TRY(need(o.solution, "solution"));
  TRY(need(o.lengths, "lengths"));
  if (o.mode == "online") TRY(need(o.arrivals, "arrivals"));
  return {};
}

// What the published simulator does not have is refused: left out silently, it would seem to be of
// no effect.
Result<void> check_meant(std::span<const std::string> args) {
  static constexpr std::string_view kOfHelix[] = {
      "policy", "model", "simulator-cluster", "solution", "profile-dir", "flows", "machines",
      "lengths", "arrivals", "mode", "router", "seed", "initial-queries", "feed-high-water", "feed-rate",
      "kv-high-water", "output-ratio", "usual-output", "warm-up", "duration", "watch", "grain",
      "compute-factor", "hop-seconds", "json", "finished-csv", "finished-limit", "config"};
  for (const std::string_view word : args) {
    if (!word.starts_with("--")) continue;
    const std::string_view name = word.substr(2, word.find('=') - 2);
    if (std::ranges::find(kOfHelix, name) != std::end(kOfHelix)) continue;
    return errorf(Code::kInvalidArgument,
                  "--{} is not of the published simulator (--policy helix, the default); give "
                  "--policy towline",
                  name);
  }
  return {};
}

Result<int> run_helix(const SimulateOptions& o, std::span<const std::string> args) {
  TRY(check_meant(args));
  TRY(check_required(o));
  const sim::HelixOptions options = helix_options(o);
  if (!(options.duration >= 1)) {
    return Error(Code::kInvalidArgument, "--duration must be at least one second");
  }
  ASSIGN_OR_RETURN(const sim::HelixInput input,
                   sim::load_helix_input({o.simulator_cluster, o.solution, o.model, o.profile_dir,
                                          o.flows, o.machines},
                                         options.router == sim::HelixRouter::kMaxFlow));
  sim::HelixTraffic traffic;
  ASSIGN_OR_RETURN(traffic.lengths, sim::load_lengths(o.lengths));
  if (options.online) {
    ASSIGN_OR_RETURN(traffic.arrivals, sim::load_arrival_bins(o.arrivals));
  }
  ASSIGN_OR_RETURN(sim::HelixEngine engine,
                   sim::HelixEngine::make(input, options, std::move(traffic)));
  const std::atomic<bool>& stop = stop_on_signals();
  std::FILE* const look_at = o.json ? stderr : stdout;
  const auto watcher = [look_at](const sim::HelixView& view) {
    std::fputs(sim::watch_text(view).c_str(), look_at);
    std::fflush(look_at);
  };
  ASSIGN_OR_RETURN(const sim::HelixReport report,
                   engine.run(o.watch > 0 ? sim::HelixEngine::Watcher(watcher) : nullptr, &stop));
  if (!o.finished_csv.empty()) TRY(write_file_atomic(o.finished_csv, finished_csv(report)));
  const auto [cpu, memory] = process_cost();
  if (o.json) {
    Json json = helix_report_json(input, options, report);
    json.set("cpu_seconds", cpu);
    json.set("max_rss_mb", memory);
    std::puts(json.dump(2).c_str());
  } else {
    std::fputs(helix_report_text(input, options, report).c_str(), stdout);
    std::puts(format("{:<22}{:.2f} CPU s, {:.0f} MB", "cost", cpu, memory).c_str());
  }
  return report.interrupted ? exit_code(Code::kCancelled) : 0;
}

Result<int> run(std::span<const std::string> args) {
  SimulateOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (!o.replay.empty()) return run_replay(o);
  if (o.mode.empty() && o.scenario.empty()) o.mode = "offline";
  return o.policy == "helix" && o.scenario.empty() && o.cluster.empty() ? run_helix(o, args)
                                                                        : run_stage(o);
}

std::atomic<bool> g_stop{false};

}  // namespace

const std::atomic<bool>& stop_on_signals() {
  const auto stop = [](int) { g_stop.store(true); };
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
  return g_stop;
}

ProcessCost process_cost() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return {seconds(u.ru_utime) + seconds(u.ru_stime), static_cast<double>(u.ru_maxrss) / 1024};
}

const Command kSimulate = {"simulate", "simulate a cluster serving a workload", run,
                           [](void (*sink)(const OptionTable&)) {
                             SimulateOptions o;
                             sink(table(o));
                           }};

}  // namespace towline::cli
