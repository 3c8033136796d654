// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/simulate_search.hpp"

#include <atomic>
#include <cmath>
#include <cstdio>
#include <thread>

#include "base/fmt.hpp"
#include "sim/stage_report.hpp"

namespace towline::cli {
namespace {

struct Probe {
  double rate = 0;
  uint64_t seed = 0;
};

// Runs every probe, `threads` at a time; results in the order of the probes.
std::vector<Result<sim::StageReport>> run_all(const SimulateOptions& o,
                                              const sim::HelixInput& input,
                                              const sim::StageOptions& options,
                                              const Workload& work,
                                              const std::vector<Probe>& probes) {
  std::vector<Result<sim::StageReport>> results(probes.size(),
                                                Error(Code::kCancelled, "interrupted"));
  std::atomic<size_t> next{0};
  const std::atomic<bool>& stop = stop_on_signals();
  const auto one = [&](const Probe& probe) -> Result<sim::StageReport> {
    ASSIGN_OR_RETURN(auto source, open_source(work, o, probe.rate, probe.seed));
    ASSIGN_OR_RETURN(sim::StageEngine engine,
                     sim::StageEngine::make(input, options, std::move(source)));
    ASSIGN_OR_RETURN(sim::StageReport report, engine.run(&stop));
    if (report.interrupted) return Error(Code::kCancelled, "interrupted");
    return report;
  };
  const auto work_on = [&] {
    for (size_t i; !stop.load() && (i = next.fetch_add(1)) < probes.size();) {
      results[i] = one(probes[i]);
    }
  };
  int threads = o.threads > 0 ? o.threads : static_cast<int>(std::thread::hardware_concurrency());
  threads = std::min(threads, static_cast<int>(probes.size()));
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work_on);
  work_on();
  for (std::thread& other : others) other.join();
  return results;
}

struct Column {
  std::string_view name;
  double (*of)(const sim::StageReport&);
};
constexpr Column kColumns[] = {
    {"decode_tps", [](const sim::StageReport& r) { return r.output_tps; }},
    {"ttft_mean", [](const sim::StageReport& r) { return r.ttft.mean; }},
    {"ttft_p99", [](const sim::StageReport& r) { return r.ttft.p99; }},
    {"tpot_mean", [](const sim::StageReport& r) { return r.tpot.mean; }},
    {"tpot_p99", [](const sim::StageReport& r) { return r.tpot.p99; }},
    {"e2e_p99", [](const sim::StageReport& r) { return r.e2e.p99; }},
    {"attainment", [](const sim::StageReport& r) { return r.attainment; }},
    {"goodput", [](const sim::StageReport& r) { return r.goodput; }},
};

}  // namespace

Result<int> sweep_seeds(const SimulateOptions& o, const sim::HelixInput& input,
                        const sim::StageOptions& options, const Workload& work) {
  std::vector<Probe> probes;
  for (int64_t i = 0; i < o.seeds; ++i) {
    probes.push_back({o.rate, static_cast<uint64_t>(o.seed + i)});
  }
  const auto results = run_all(o, input, options, work, probes);
  Json runs = Json::array(), summary = Json::object();
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i]) return results[i].error();
    Json run = sim::stage_summary(input, *results[i]);
    run.set("seed", static_cast<int64_t>(probes[i].seed));
    runs.push(std::move(run));
  }
  if (!o.json) {
    std::puts(format("{:<12} {:>14} {:>14} {:>14}", "", "mean", "95 % +-", "sd").c_str());
  }
  const auto n = static_cast<double>(results.size());
  for (const Column& column : kColumns) {
    double sum = 0, squares = 0;
    for (const auto& r : results) sum += column.of(*r);
    const double mean = sum / n;
    for (const auto& r : results) squares += (column.of(*r) - mean) * (column.of(*r) - mean);
    const double deviation = n > 1 ? std::sqrt(squares / (n - 1)) : 0;
    const double half = 1.96 * deviation / std::sqrt(n);
    summary.set(column.name,
                Json::object({{"mean", mean}, {"half_width", half}, {"sd", deviation}}));
    if (o.json) continue;
    std::puts(format("{:<12} {:>14.4f} {:>14.4f} {:>14.4f}", column.name, mean, half, deviation)
                  .c_str());
  }
  if (o.json) {
    Json json = Json::object({{"schema", 1}});
    json.set("summary", std::move(summary));
    json.set("runs", std::move(runs));
    std::puts(json.dump(2).c_str());
  }
  return 0;
}

// Brackets the rate by doubling, then cuts the bracket in three; two probes at a time, whatever the
// number of threads.
Result<int> find_max_rate(const SimulateOptions& o, const sim::HelixInput& input,
                          const sim::StageOptions& options, const Workload& work) {
  if (o.mode != "online" || (options.slo_ttft <= 0 && options.slo_tpot <= 0)) {
    return Error(Code::kInvalidArgument,
                 "--find-max-rate needs --mode online and --slo ttft=SECONDS,tpot=SECONDS");
  }
  if (work.trace.empty() && o.requests == 0) {
    return Error(Code::kInvalidArgument, "--find-max-rate with --lengths needs --requests");
  }
  Json list = Json::array();
  const auto meet = [&](double a, double b) -> Result<std::pair<bool, bool>> {
    const auto seed = static_cast<uint64_t>(o.seed);
    const auto results = run_all(o, input, options, work, {{a, seed}, {b, seed}});
    bool good[2] = {false, false};
    for (int i = 0; i < 2; ++i) {
      if (!results[i]) return results[i].error();
      const double rate = i == 0 ? a : b;
      const double share = static_cast<double>(results[i]->finished) * results[i]->attainment /
                           static_cast<double>(std::max<int64_t>(results[i]->arrived, 1));
      good[i] = share >= o.attainment;
      list.push(Json::object({{"rate", rate}, {"attainment", share}}));
      if (o.json) continue;
      std::puts(format("rate {:>10.4f}/s  within goals {:.1f} %", rate, 100 * share).c_str());
      std::fflush(stdout);
    }
    return std::pair(good[0], good[0] && good[1]);
  };
  double low = 0, high = o.rate > 0 ? o.rate : 0.1;
  for (int i = 0; i < 15; ++i) {
    ASSIGN_OR_RETURN(const auto good, meet(high, 2 * high));
    if (!good.first) break;
    low = good.second ? 2 * high : high;
    high = good.second ? 4 * high : 2 * high;
    if (!good.second) break;
  }
  while (high - low > 0.01 * high && high > 1e-4) {
    const double third = (high - low) / 3;
    ASSIGN_OR_RETURN(const auto good, meet(low + third, low + 2 * third));
    const double from = low;
    if (good.first) low = good.second ? from + 2 * third : from + third;
    high = good.second ? high : good.first ? from + 2 * third : from + third;
  }
  if (o.json) {
    Json json = Json::object({{"max_rate", low}, {"attainment", o.attainment}});
    json.set("probes", std::move(list));
    std::puts(json.dump(2).c_str());
  } else {
    std::puts(format("greatest rate: {:.4f} requests/s", low).c_str());
  }
  return 0;
}

}  // namespace towline::cli
