// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline simulate --policy towline`.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/simulate_roles.hpp"
#include "cli/simulate_scenario.hpp"
#include "cli/simulate_search.hpp"
#include "cli/simulate_workload.hpp"
#include "cli/simulate_world.hpp"
#include "serve/cluster_plan.hpp"
#include "sim/helix_load.hpp"
#include "sim/html_report.hpp"
#include "sim/replay.hpp"
#include "sim/stage_engine.hpp"
#include "sim/stage_report.hpp"
#include "spec/model_shapes.hpp"

namespace towline::cli {

void add_stage_options(OptionTable& t, SimulateOptions& o) {
  t.value("scenario", &o.scenario,
          "the scenario file of `towline up`: model, workers, links, serving limits and workload "
          "(of which --trace, --lengths, --rate, --requests and --seed count more)")
      .metavar("FILE");
  t.value("profile", &o.profile,
          "with --scenario or --cluster: times of a layer on each type of machine, "
          "as `towline profile` writes them")
      .metavar("FILE");
  t.value("cluster", &o.cluster,
          "towline: a cluster of `towline plan`, without a scenario; with --model (a GGUF file, "
          "a Hugging Face directory or a known name; without measured times: by each "
          "machine's arithmetic and bandwidth)")
      .metavar("FILE");
  t.value("plan", &o.plan, "with --cluster: a plan of `towline plan`; default: planned anew")
      .metavar("FILE");
  t.flag("few-ways", &o.few_ways,
         "towline: of all maximum flows, plan one along few pipelines; "
         "for clusters of hundreds of nodes");
  t.flag("no-fast-forward", &o.no_fast_forward,
         "towline: take every step apart and form it anew, also where it only goes round again; "
         "the same results, more slowly");
  add_workload_options(t, o);
  add_world_options(t, o);
  add_roles_options(t, o);
  t.value("prompt-budget", &o.prompt_budget, "towline: prompt tokens a batch").range(1, 1e6);
  t.value("chunk", &o.chunk_tokens, "towline: tokens of one prompt at a time").range(1, 1e6);
  t.flag("prefix-cache", &o.prefix_cache,
         "towline: requests of a trace with tokens (input_tok_ids, hash_ids) find what others, "
         "or they themselves before a preemption, left in the prefix cache");
  t.value("spare-blocks", &o.spare_blocks,
          "towline: KV blocks that admission leaves free for each running sequence; "
          "0 is vLLM's rule (not with --scenario)")
      .range(0, 1000);
  t.value("depth", &o.depth,
          "towline: steps of a pipeline on their way at a time; 0: as many as it has nodes")
      .range(0, 1e6);
  t.value("queue-limit", &o.queue_limit, "towline: waiting requests beyond which new ones are "
                                         "rejected").range(0, 1e9);
  t.value("slo-ttft", &o.slo_ttft, "towline: goal for the first token, seconds; 0: none")
      .range(0, 1e6);
  t.value("slo-tpot", &o.slo_tpot, "towline: goal for the mean of further tokens, seconds; 0: none")
      .range(0, 1e6);
  t.value("slo", &o.slo, "towline: both goals, as ttft=SECONDS,tpot=SECONDS");
  t.value("think", &o.think, "towline, offline: seconds a client waits before it asks again")
      .range(0, 1e6);
  t.value("seeds", &o.seeds, "towline: so many runs, from --seed on, with means and their spread")
      .range(1, 1e5);
  t.value("threads", &o.threads, "towline: runs at a time with --seeds or --find-max-rate; 0: the "
                                 "processors").range(0, 1024);
  t.value("batch-seconds", &o.batch_seconds, "towline, calibration: host time of a node's batch")
      .range(0, 10);
  t.value("decode-context", &o.decode_context,
          "towline: seconds a layer takes more for each token that a decode looks back on")
      .range(0, 1);
  t.value("prompt-context", &o.prompt_context,
          "towline: the same for each pair of a prompt token and a token before it").range(0, 1);
  t.flag("shared-weights", &o.shared_weights,
         "towline: prompts and decodes of a batch read the weights once");
  t.value("out", &o.out,
          "towline: folder for summary.json, requests.csv, nodes.csv, links.csv, trace.json, "
          "report.html")
      .metavar("DIR");
  t.value("journal", &o.journal, "towline: write every event the coordinator's policy was told")
      .metavar("FILE");
  t.value("replay", &o.replay,
          "repeat the decisions of a journal (a server's or a simulation's) and compare them "
          "bit for bit; nothing else is simulated; exit code 1 if they differ, or if the journal "
          "holds no digest to compare with")
      .metavar("FILE");
  t.flag("find-max-rate", &o.find_max_rate,
         "towline: the greatest --rate at which the share --attainment meets the goals");
  t.value("attainment", &o.attainment, "towline: share of requests for --find-max-rate")
      .range(0.01, 1);
}

namespace {

// "ttft=5,tpot=0.5"
Result<void> parse_goals(const std::string& text, sim::StageOptions& s) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view word = std::string_view(text).substr(begin, comma - begin);
    double* const goal = word.starts_with("ttft=")   ? &s.slo_ttft
                         : word.starts_with("tpot=") ? &s.slo_tpot
                                                     : nullptr;
    const char* const end = text.data() + comma;
    const bool good = goal != nullptr &&
                      std::from_chars(word.data() + 5, end, *goal).ptr == end && *goal > 0;
    if (!good) {
      return errorf(Code::kInvalidArgument, "--slo '{}': write ttft=SECONDS,tpot=SECONDS", text);
    }
    begin = comma + 1;
  }
  return {};
}

// A line on the terminal: simulated time, how much faster than real, requests.
std::function<void(const sim::StageProgress&)> progress_line() {
  if (::isatty(2) == 0) return nullptr;
  const auto begin = std::chrono::steady_clock::now();
  return [begin, last = begin](const sim::StageProgress& p) mutable {
    const auto now = std::chrono::steady_clock::now();
    if (now - last < std::chrono::milliseconds(200)) return;
    last = now;
    const double real = std::chrono::duration<double>(now - begin).count();
    std::fputs(format("\r\x1b[K{:.0f} s simulated, {:.0f}x real time, {} of {} requests ended",
                      p.seconds, p.seconds / real, p.ended, p.arrived)
                   .c_str(),
               stderr);
  };
}

policy::RouterKind router_of(const std::string& name) {
  if (name == "swarm") return policy::RouterKind::kSwarm;
  if (name == "random") return policy::RouterKind::kRandom;
  if (name == "shortest_queue") return policy::RouterKind::kShortestQueue;
  return policy::RouterKind::kFlow;
}

Result<sim::StageOptions> stage_options(const SimulateOptions& o) {
  sim::StageOptions s;
  s.router = router_of(o.router);
  s.seed = static_cast<uint64_t>(o.seed) + 1;
  s.few_ways = o.few_ways;
  s.prefix_cache = o.prefix_cache;
  s.spare_blocks = o.spare_blocks;
  s.fast_forward = !o.no_fast_forward;
  s.estimator.high_water = o.kv_high_water < 0 ? 0.9 : o.kv_high_water;
  s.estimator.output_ratio = o.output_ratio < 0 ? 1.0 : o.output_ratio;
  s.estimator.usual_output = o.usual_output;
  s.prompt_budget = o.prompt_budget;
  s.chunk_tokens = o.chunk_tokens;
  s.depth = o.depth;
  s.queue_limit = o.queue_limit;
  s.detect_seconds = o.detect;
  s.slo_ttft = o.slo_ttft;
  s.slo_tpot = o.slo_tpot;
  TRY(parse_goals(o.slo, s));
  s.calibration = {o.compute_factor, o.batch_seconds, o.hop_seconds};
  s.think_seconds = o.think;
  if (o.mode == "offline") {
    const double warm_up = o.warm_up < 0 ? 60 : o.warm_up;
    s.clients = o.clients;
    s.horizon = warm_up + (o.duration < 0 ? 600 : o.duration);
    s.window_begin = warm_up;
  } else {
    s.window_begin = std::max(o.warm_up, 0.0);
    s.horizon = o.duration < 0 ? 0 : s.window_begin + o.duration;
  }
  if (!o.out.empty()) {
    s.sample_seconds = 1;
    s.trace_limit = 200'000;
  }
  return s;
}

// Rows as they come; the file appears under its name only when it is complete.
class RowFile {
 public:
  Result<void> open(const std::string& path, const std::string& header) {
    path_ = path;
    file_ = std::fopen((path + ".tmp").c_str(), "wb");
    if (file_ == nullptr) return errorf(Code::kIo, "cannot write '{}'", path);
    add(header);
    return {};
  }
  ~RowFile() {
    if (file_ == nullptr) return;
    std::fclose(file_);
    std::remove((path_ + ".tmp").c_str());
  }
  void add(const std::string& row) {
    if (file_ != nullptr) std::fputs(row.c_str(), file_);
  }
  Result<void> close() {
    if (file_ == nullptr) return {};
    const bool good = std::ferror(file_) == 0;
    const bool closed = std::fclose(file_) == 0;
    file_ = nullptr;
    std::error_code error;
    std::filesystem::rename(path_ + ".tmp", path_, error);
    if (!good || !closed || error) return errorf(Code::kIo, "writing '{}' failed", path_);
    return {};
  }

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
};

// What every node and link did since the sample before; those that did nothing are left out.
class SeriesLog {
 public:
  Result<void> open(const std::string& dir) {
    TRY(nodes_.open(dir + "/nodes.csv", "seconds,node,busy,kv\n"));
    return links_.open(dir + "/links.csv", "seconds,from,to,bytes_per_s,utilisation\n");
  }
  void add(const sim::StageLook& look) {
    busy_.resize(look.input.nodes.size(), 0);
    bytes_.resize(look.input.links.size(), 0);
    const double span = look.seconds - last_;
    for (size_t i = 0; i < busy_.size() && span > 0; ++i) {
      const auto node = static_cast<int32_t>(i);
      const int64_t busy = look.cluster.times(node).busy_ns;
      const int64_t did = busy - std::exchange(busy_[i], busy);
      const policy::BlockLedger& kv = look.host.batcher().ledger(node);
      if (did == 0 && kv.held() == 0) continue;
      const double held = kv.total() > 0 ? static_cast<double>(kv.held()) / kv.total() : 0;
      nodes_.add(format("{:.3f},{},{:.4f},{:.4f}\n", look.seconds, look.input.nodes[i].name,
                        static_cast<double>(did) * 1e-9 / span, held));
    }
    for (size_t i = 0; i < bytes_.size() && span > 0; ++i) {
      const double bytes = look.cluster.link_bytes(static_cast<int32_t>(i));
      const double sent = bytes - std::exchange(bytes_[i], bytes);
      if (sent <= 0) continue;
      const sim::HelixLink& link = look.input.links[i];
      const auto name = [&](int32_t place) {
        return place < 0 ? std::string("coordinator") : look.input.nodes[place].name;
      };
      links_.add(format("{:.3f},{},{},{:.0f},{:.4f}\n", look.seconds, name(link.from),
                        name(link.to), sent / span, sent / span / link.bandwidth));
    }
    last_ = look.seconds;
  }
  Result<void> close() {
    TRY(nodes_.close());
    return links_.close();
  }

 private:
  RowFile nodes_, links_;
  std::vector<int64_t> busy_;
  std::vector<double> bytes_;
  double last_ = 0;
};

Result<void> write_outputs(const std::string& dir, const sim::HelixInput& input,
                           const sim::StageOptions& options, const sim::StageReport& report,
                           const Json& summary) {
  TRY(write_file_atomic(dir + "/summary.json", summary.dump(2) + "\n"));
  TRY(write_file_atomic(dir + "/trace.json", sim::chrome_trace(input, report)));
  return write_file_atomic(dir + "/report.html", sim::html_report(input, options, report));
}

// --cluster without a scenario.
spec::Scenario cluster_scenario(const SimulateOptions& o) {
  spec::Scenario s;
  s.model = o.model;
  s.cluster = o.cluster;
  s.plan = o.plan;
  s.emulation.plan_workers = true;
  return s;
}

// The machines, and the scenario if they are of one, whose workload counts where `o` gives none.
Result<sim::HelixInput> load_input(SimulateOptions& o, std::optional<spec::Scenario>& scenario) {
  if (o.cluster.empty() && (o.prompt_machines > 0 || o.find_pd_ratio)) {
    return Error(Code::kInvalidArgument, "--prompt-machines and --find-pd-ratio need --cluster");
  }
  if (!o.scenario.empty()) {
    ASSIGN_OR_RETURN(scenario, spec::load_scenario(o.scenario));
    adopt_workload(*scenario, o);
    ASSIGN_OR_RETURN(sim::HelixInput input, scenario_input(*scenario, o.profile));
    // Runs are gathered as the workers of `towline up` gather them.
    const bool emulated = scenario->emulation.plan_workers ||
                          std::ranges::any_of(scenario->workers, &spec::ScenarioWorker::emulate);
    for (sim::HelixNode& node : input.nodes) {
      node.run_rows = serve::run_rows_of(scenario->serving, emulated);
    }
    return input;
  }
  if (!o.cluster.empty()) return scenario_input(cluster_scenario(o), o.profile, o.prompt_machines);
  if (o.simulator_cluster.empty() || o.solution.empty()) {
    return Error(Code::kInvalidArgument,
                 "--policy towline needs --scenario, --cluster, or --simulator-cluster "
                 "and --solution");
  }
  ASSIGN_OR_RETURN(sim::HelixInput input,
                   sim::load_helix_input({o.simulator_cluster, o.solution, o.model, o.profile_dir,
                                          o.flows, o.machines}, false));
  if (const auto known = spec::model_shape(o.model)) {
    input.kv_bytes = static_cast<double>(known->kv_bytes_per_token_layer().value);
  }
  return input;
}

Result<int> search_pd_ratio(const SimulateOptions& o, const sim::StageOptions& options,
                            const Workload& work) {
  if (!options.disturbances.empty()) {
    return Error(Code::kInvalidArgument,
                 "--find-pd-ratio takes no --disturb and no --churn: nodes are "
                 "others for each ratio");
  }
  ASSIGN_OR_RETURN(const spec::ClusterDesc cluster, spec::load_cluster(o.cluster));
  return find_pd_ratio(o, options, work, cluster.size(),
                       [&](int prompts) -> Result<sim::HelixInput> {
                         ASSIGN_OR_RETURN(sim::HelixInput input,
                                          scenario_input(cluster_scenario(o), o.profile, prompts));
                         TRY(apply_world(o, input));
                         TRY(apply_kv(o, input));
                         return input;
                       });
}

}  // namespace

Result<int> run_stage(const SimulateOptions& given) {
  SimulateOptions o = given;
  std::optional<spec::Scenario> scenario;
  ASSIGN_OR_RETURN(sim::HelixInput input, load_input(o, scenario));
  ASSIGN_OR_RETURN(sim::StageOptions options, stage_options(o));
  if (scenario) TRY(adopt_serving(*scenario, o, options));
  options.stream_layers = o.kv_stream == "layers";
  TRY(apply_world(o, input));
  TRY(apply_kv(o, input));
  ASSIGN_OR_RETURN(options.disturbances, load_disturbances(o, input));
  for (sim::LayerTimes& times : input.times) {
    if (o.decode_context > 0) times.decode_context_seconds = o.decode_context;
    if (o.prompt_context > 0) times.prompt_context_seconds = o.prompt_context;
    times.shared_weights |= o.shared_weights;
  }
  ASSIGN_OR_RETURN(const Workload work, load_workload(o));
  options.follow_up = follow_up_of(work, o);
  if (o.find_pd_ratio) return search_pd_ratio(o, options, work);
  if (o.find_max_rate) return find_max_rate(o, input, options, work);
  if (o.seeds > 1) return sweep_seeds(o, input, options, work);
  RowFile log;
  SeriesLog series;
  if (!o.out.empty()) {
    std::error_code error;
    std::filesystem::create_directories(o.out, error);
    if (error) return errorf(Code::kIo, "cannot make the folder '{}'", o.out);
    TRY(log.open(o.out + "/requests.csv", sim::request_csv_header()));
    TRY(series.open(o.out));
    options.on_sample = [&](const sim::StageLook& look) { series.add(look); };
  }
  std::optional<obs::JournalWriter> journal;
  if (!o.journal.empty()) {
    ASSIGN_OR_RETURN(journal, obs::JournalWriter::create(o.journal));
    options.journal = &*journal;
  }
  ASSIGN_OR_RETURN(auto source, open_source(work, o, o.rate, static_cast<uint64_t>(o.seed)));
  options.on_progress = progress_line();
  ASSIGN_OR_RETURN(sim::StageEngine engine,
                   sim::StageEngine::make(input, options, std::move(source),
                                          [&](const sim::RequestRecord& r) {
                                            if (!o.out.empty()) log.add(sim::request_csv_row(r));
                                          }));
  const auto outcome = engine.run(&stop_on_signals());
  if (options.on_progress) std::fputs("\r\x1b[K", stderr);
  if (!outcome) return outcome.error();
  const sim::StageReport& report = *outcome;
  if (journal) TRY(journal->close());
  const ProcessCost cost = process_cost();
  Json summary = stage_summary(input, report);
  summary.set("seed", o.seed);
  if (!o.out.empty()) {
    TRY(log.close());
    TRY(series.close());
    TRY(write_outputs(o.out, input, options, report, summary));
  }
  if (o.json) {
    summary.set("cpu_seconds", cost.cpu_seconds);
    summary.set("max_rss_mb", cost.max_rss_mb);
    std::puts(summary.dump(2).c_str());
  } else {
    std::fputs(stage_text(input, report).c_str(), stdout);
    std::puts(format("{:<22}{:.2f} CPU s, {:.0f} MB", "cost", cost.cpu_seconds,
                     cost.max_rss_mb).c_str());
  }
  return report.interrupted ? exit_code(Code::kCancelled) : 0;
}

Result<int> run_replay(const SimulateOptions& o) {
  ASSIGN_OR_RETURN(obs::JournalReader journal, obs::JournalReader::open(o.replay));
  ASSIGN_OR_RETURN(const sim::ReplayReport r, sim::replay(journal, 0, &stop_on_signals()));
  const ProcessCost cost = process_cost();
  if (o.json) {
    std::puts(Json::object(
                  {{"equal", r.equal},
                   {"events", r.events},
                   {"actions", r.actions},
                   {"digests_compared", r.compared},
                   {"difference_at", r.equal ? Json() : Json(to_seconds(Instant{r.difference_at}))},
                   {"digest", format("{:016x}", r.digest)},
                   {"ended", r.ended},
                   {"torn", r.torn},
                   {"interrupted", r.interrupted},
                   {"seconds", static_cast<double>(r.span_ns) * 1e-9},
                   {"cpu_seconds", cost.cpu_seconds},
                   {"max_rss_mb", cost.max_rss_mb}})
                  .dump(2)
                  .c_str());
  } else {
    const std::string verdict =
        !r.equal ? format("decisions differ before {:.6f} s", to_seconds(Instant{r.difference_at}))
        : r.compared > 0 ? "every decision equal"
                         : "nothing is shown, for the journal holds no digest to compare with";
    std::puts(format("{} events, {} actions over {:.1f} s, {} digests compared: {}", r.events,
                     r.actions, static_cast<double>(r.span_ns) * 1e-9, r.compared, verdict)
                  .c_str());
    if (r.torn) std::puts("the journal stops in the middle of a record (the run was cut off)");
    if (!r.ended && !r.torn) std::puts("the run did not end in order");
  }
  if (r.interrupted) return exit_code(Code::kCancelled);
  return r.equal && r.compared > 0 ? 0 : 1;
}

}  // namespace towline::cli
