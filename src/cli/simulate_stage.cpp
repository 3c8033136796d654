// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline simulate --policy towline`.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/simulate_options.hpp"
#include "sim/helix_load.hpp"
#include "sim/stage_engine.hpp"
#include "sim/stage_report.hpp"

namespace towline::cli {

void add_stage_options(OptionTable& t, SimulateOptions& o) {
  t.value("trace", &o.trace, "towline: requests and their times (CSV, JSON lines; see docs)")
      .metavar("FILE");
  t.value("requests", &o.requests, "towline: stop after so many requests; 0: no such end")
      .range(0, 1e9);
  t.value("clients", &o.clients, "towline, offline: requests kept waiting or running")
      .range(1, 1e7);
  t.value("rate", &o.rate, "towline: requests/s of the arrival process, or the trace sped up to this")
      .range(0, 1e9);
  t.value("arrival-process", &o.arrival_process, "towline: with --lengths")
      .one_of({"poisson", "gamma", "uniform", "diurnal"});
  t.value("variation", &o.variation, "towline: coefficient of variation of gamma").range(0.01, 100);
  t.value("prompt-budget", &o.prompt_budget, "towline: prompt tokens a batch").range(1, 1e6);
  t.value("chunk", &o.chunk_tokens, "towline: tokens of one prompt at a time").range(1, 1e6);
  t.value("microbatch", &o.microbatch, "towline: decodes a batch; 0: the node's limit")
      .range(0, 1e6);
  t.value("queue-limit", &o.queue_limit, "towline: waiting requests beyond which new ones are "
                                         "rejected").range(0, 1e9);
  t.value("slo-ttft", &o.slo_ttft, "towline: goal for the first token, seconds; 0: none")
      .range(0, 1e6);
  t.value("slo-tpot", &o.slo_tpot, "towline: goal for the mean of further tokens, seconds; 0: none")
      .range(0, 1e6);
  t.value("detect", &o.detect, "towline: seconds until a failure is noticed").range(0, 1e6);
  t.value("disturb", &o.disturb,
          "towline: crash:NODE@T, rejoin:NODE@T, slow:NODE*FACTOR@T, linkdown:LINK@T, "
          "linkup:LINK@T; nodes and links by their place in the file, seconds after the start");
  t.value("out", &o.out, "towline: folder for summary.json, requests.csv, trace.json, report.html")
      .metavar("DIR");
  t.flag("find-max-rate", &o.find_max_rate,
         "towline: the greatest --rate at which the share --attainment meets the goals");
  t.value("attainment", &o.attainment, "towline: share of requests for --find-max-rate")
      .range(0.01, 1);
}

namespace {

// "crash:3@60", "slow:2*1.5@10"
Result<sim::Disturbance> parse_disturbance(const std::string& text) {
  const auto bad = [&] {
    return errorf(Code::kInvalidArgument,
                  "--disturb '{}': write crash:NODE@SECONDS, rejoin:, slow:NODE*FACTOR@SECONDS, "
                  "linkdown:LINK@SECONDS or linkup:", text);
  };
  const size_t colon = text.find(':'), at = text.rfind('@');
  if (colon == std::string::npos || at == std::string::npos || at < colon) return bad();
  sim::Disturbance d;
  const std::string kind = text.substr(0, colon);
  if (kind == "crash") {
    d.kind = sim::DisturbanceKind::kCrash;
  } else if (kind == "rejoin") {
    d.kind = sim::DisturbanceKind::kRejoin;
  } else if (kind == "slow") {
    d.kind = sim::DisturbanceKind::kSlow;
  } else if (kind == "linkdown") {
    d.kind = sim::DisturbanceKind::kLinkDown;
  } else if (kind == "linkup") {
    d.kind = sim::DisturbanceKind::kLinkUp;
  } else {
    return bad();
  }
  const auto parse = [](std::string_view word, auto& value) {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() && end == word.data() + word.size();
  };
  std::string_view target = std::string_view(text).substr(colon + 1, at - colon - 1);
  const size_t star = target.find('*');
  if ((star != std::string_view::npos) != (d.kind == sim::DisturbanceKind::kSlow)) return bad();
  if (star != std::string_view::npos) {
    if (!parse(target.substr(star + 1), d.factor)) return bad();
    target = target.substr(0, star);
  }
  if (!parse(target, d.target) || !parse(std::string_view(text).substr(at + 1), d.at)) return bad();
  return d;
}

// Where requests come from: a trace, or lengths with an arrival process. Each call begins anew.
struct Workload {
  std::vector<spec::TraceRequest> trace;             // of --trace, times as in the file
  std::vector<std::pair<int32_t, int32_t>> lengths;  // of --lengths
  double trace_rate = 0;                             // requests/s of the trace
};

sim::StageEngine::Source make_source(const Workload& work, const SimulateOptions& o, double rate) {
  if (!work.trace.empty()) {
    const double stretch = rate > 0 && work.trace_rate > 0 ? work.trace_rate / rate : 1;
    return [&work, stretch, limit = o.requests, next = size_t{0}]() mutable
           -> Result<std::optional<spec::TraceRequest>> {
      if (next == work.trace.size() || (limit > 0 && static_cast<int64_t>(next) == limit)) {
        return std::optional<spec::TraceRequest>();
      }
      spec::TraceRequest request = work.trace[next++];
      request.arrival_ns =
          static_cast<int64_t>(static_cast<double>(request.arrival_ns) * stretch);
      return std::optional(request);
    };
  }
  spec::ArrivalProcess process;
  process.rate = rate > 0 ? rate : 1;
  process.variation = o.variation;
  process.kind = o.arrival_process == "gamma"     ? spec::ArrivalKind::kGamma
                 : o.arrival_process == "uniform" ? spec::ArrivalKind::kUniform
                 : o.arrival_process == "diurnal" ? spec::ArrivalKind::kDiurnal
                                                  : spec::ArrivalKind::kPoisson;
  const auto seed = static_cast<uint64_t>(o.seed);
  return [&work, clock = spec::ArrivalClock(process, seed), rng = Rng(seed + 1),
          left = o.requests > 0 ? o.requests : INT64_MAX]() mutable
         -> Result<std::optional<spec::TraceRequest>> {
    if (left-- <= 0) return std::optional<spec::TraceRequest>();
    const auto& [in, out] = work.lengths[rng.below(work.lengths.size())];
    return std::optional(spec::TraceRequest{clock.next(), in, out});
  };
}

Result<Workload> load_workload(const SimulateOptions& o) {
  Workload work;
  if (!o.trace.empty()) {
    ASSIGN_OR_RETURN(work.trace, spec::load_trace(o.trace));
    const double span = static_cast<double>(work.trace.back().arrival_ns) * 1e-9;
    if (span > 0) work.trace_rate = static_cast<double>(work.trace.size()) / span;
    if (span == 0 && o.mode == "online" && work.trace.size() > 1) {
      return errorf(Code::kInvalidArgument,
                    "{} has no arrival times; give it as --lengths with --rate", o.trace);
    }
    return work;
  }
  if (o.lengths.empty()) {
    return Error(Code::kInvalidArgument, "--policy towline needs --trace or --lengths");
  }
  if (o.mode == "online" && !(o.rate > 0) && !o.find_max_rate) {
    return Error(Code::kInvalidArgument, "--lengths in online mode needs --rate");
  }
  ASSIGN_OR_RETURN(work.lengths, sim::load_lengths(o.lengths));
  return work;
}

Result<sim::StageOptions> stage_options(const SimulateOptions& o) {
  sim::StageOptions s;
  s.estimator.high_water = o.kv_high_water < 0 ? 0.9 : o.kv_high_water;
  s.estimator.output_ratio = o.output_ratio < 0 ? 1.0 : o.output_ratio;
  s.estimator.usual_output = o.usual_output;
  s.prompt_budget = o.prompt_budget;
  s.chunk_tokens = o.chunk_tokens;
  s.microbatch = o.microbatch;
  s.queue_limit = o.queue_limit;
  s.detect_seconds = o.detect;
  s.slo_ttft = o.slo_ttft;
  s.slo_tpot = o.slo_tpot;
  if (o.mode == "offline") {
    const double warm_up = o.warm_up < 0 ? 60 : o.warm_up;
    s.clients = o.clients;
    s.horizon = warm_up + (o.duration < 0 ? 600 : o.duration);
    s.window_begin = warm_up;
  } else {
    s.window_begin = std::max(o.warm_up, 0.0);
    s.horizon = o.duration < 0 ? 0 : s.window_begin + o.duration;
  }
  for (const std::string& list : o.disturb) {
    for (size_t begin = 0; begin <= list.size();) {
      const size_t comma = std::min(list.find(',', begin), list.size());
      ASSIGN_OR_RETURN(const sim::Disturbance d,
                       parse_disturbance(list.substr(begin, comma - begin)));
      s.disturbances.push_back(d);
      begin = comma + 1;
    }
  }
  std::stable_sort(s.disturbances.begin(), s.disturbances.end(),
                   [](const auto& a, const auto& b) { return a.at < b.at; });
  if (!o.out.empty()) {
    s.sample_seconds = 1;
    s.trace_limit = 200'000;
  }
  return s;
}

// One request a row, as they end; the file appears under its name only when it is complete.
class RequestLog {
 public:
  Result<void> open(const std::string& path) {
    path_ = path;
    file_ = std::fopen((path + ".tmp").c_str(), "wb");
    if (file_ == nullptr) return errorf(Code::kIo, "cannot write '{}'", path);
    std::fputs(sim::request_csv_header().c_str(), file_);
    return {};
  }
  ~RequestLog() {
    if (file_ == nullptr) return;
    std::fclose(file_);
    std::remove((path_ + ".tmp").c_str());
  }
  void add(const sim::RequestRecord& record) {
    if (file_ != nullptr) std::fputs(sim::request_csv_row(record).c_str(), file_);
  }
  Result<void> close() {
    if (file_ == nullptr) return {};
    const bool good = std::ferror(file_) == 0 && std::fclose(file_) == 0;
    file_ = nullptr;
    std::error_code error;
    std::filesystem::rename(path_ + ".tmp", path_, error);
    if (!good || error) return errorf(Code::kIo, "writing '{}' failed", path_);
    return {};
  }

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
};

Result<void> write_outputs(const std::string& dir, const sim::HelixInput& input,
                           const sim::StageOptions& options, const sim::StageReport& report,
                           const Json& summary) {
  TRY(write_file_atomic(dir + "/summary.json", summary.dump(2) + "\n"));
  TRY(write_file_atomic(dir + "/trace.json", sim::chrome_trace(input, report)));
  return write_file_atomic(dir + "/report.html", sim::html_report(input, options, report));
}

// Bisection on the rate; every probe simulates the whole workload.
Result<int> find_max_rate(const SimulateOptions& o, const sim::HelixInput& input,
                          const sim::StageOptions& options, const Workload& work) {
  if (o.mode != "online" || (o.slo_ttft <= 0 && o.slo_tpot <= 0)) {
    return Error(Code::kInvalidArgument,
                 "--find-max-rate needs --mode online and --slo-ttft or --slo-tpot");
  }
  if (work.trace.empty() && o.requests == 0) {
    return Error(Code::kInvalidArgument, "--find-max-rate with --lengths needs --requests");
  }
  const std::atomic<bool>& stop = stop_on_signals();
  Json probes = Json::array();
  const auto meets = [&](double rate) -> Result<bool> {
    ASSIGN_OR_RETURN(sim::StageEngine engine,
                     sim::StageEngine::make(input, options, make_source(work, o, rate)));
    ASSIGN_OR_RETURN(const sim::StageReport report, engine.run(&stop));
    if (report.interrupted) return Error(Code::kCancelled, "interrupted");
    const double share = static_cast<double>(report.finished) * report.attainment /
                         static_cast<double>(std::max<int64_t>(report.arrived, 1));
    probes.push(Json::object({{"rate", rate}, {"attainment", share}}));
    if (!o.json) std::puts(format("rate {:>10.4f}/s  within goals {:.1f} %", rate, 100 * share).c_str());
    return share >= o.attainment;
  };
  double low = 0, high = o.rate > 0 ? o.rate : 0.1;
  for (int i = 0; i < 30; ++i) {
    ASSIGN_OR_RETURN(const bool good, meets(high));
    if (!good) break;
    low = high;
    high *= 2;
  }
  while (high - low > 0.01 * high) {
    const double middle = (low + high) / 2;
    ASSIGN_OR_RETURN(const bool good, meets(middle));
    (good ? low : high) = middle;
    if (high < 1e-4) break;
  }
  if (o.json) {
    Json json = Json::object({{"max_rate", low}, {"attainment", o.attainment}});
    json.set("probes", std::move(probes));
    std::puts(json.dump(2).c_str());
  } else {
    std::puts(format("greatest rate: {:.4f} requests/s", low).c_str());
  }
  return 0;
}

}  // namespace

Result<int> run_stage(const SimulateOptions& o) {
  if (o.router != "maxflow") {
    return Error(Code::kInvalidArgument, "--policy towline routes by maxflow only");
  }
  if (o.simulator_cluster.empty() || o.solution.empty()) {
    return Error(Code::kInvalidArgument,
                 "--policy towline needs --simulator-cluster and --solution");
  }
  ASSIGN_OR_RETURN(sim::StageOptions options, stage_options(o));
  ASSIGN_OR_RETURN(const sim::HelixInput input,
                   sim::load_helix_input({o.simulator_cluster, o.solution, o.model, o.profile_dir,
                                          o.flows, o.machines}, false));
  ASSIGN_OR_RETURN(const Workload work, load_workload(o));
  if (o.find_max_rate) return find_max_rate(o, input, options, work);
  RequestLog log;
  if (!o.out.empty()) {
    std::error_code error;
    std::filesystem::create_directories(o.out, error);
    if (error) return errorf(Code::kIo, "cannot make the folder '{}'", o.out);
    TRY(log.open(o.out + "/requests.csv"));
  }
  ASSIGN_OR_RETURN(sim::StageEngine engine,
                   sim::StageEngine::make(input, options, make_source(work, o, o.rate),
                                          [&](const sim::RequestRecord& r) { log.add(r); }));
  ASSIGN_OR_RETURN(const sim::StageReport report, engine.run(&stop_on_signals()));
  const ProcessCost cost = process_cost();
  Json summary = stage_summary(input, report);
  summary.set("seed", o.seed);
  if (!o.out.empty()) {
    TRY(log.close());
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

}  // namespace towline::cli
