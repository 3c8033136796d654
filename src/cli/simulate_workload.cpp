// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/simulate_workload.hpp"

#include <cmath>
#include <memory>

#include "base/fmt.hpp"
#include "obs/journal.hpp"
#include "sim/helix_load.hpp"
#include "sim/journal_workload.hpp"
#include "spec/servegen.hpp"
#include "spec/request_schedule.hpp"

namespace towline::cli {
namespace {

using Request = std::optional<spec::TraceRequest>;

int64_t most_requests(const SimulateOptions& o) { return o.requests > 0 ? o.requests : INT64_MAX; }

spec::ArrivalProcess process_of(const SimulateOptions& o) {
  spec::ArrivalProcess process;
  process.variation = o.variation;
  process.kind = o.arrival_process == "gamma"     ? spec::ArrivalKind::kGamma
                 : o.arrival_process == "uniform" ? spec::ArrivalKind::kUniform
                 : o.arrival_process == "diurnal" ? spec::ArrivalKind::kDiurnal
                                                  : spec::ArrivalKind::kPoisson;
  return process;
}

constexpr int32_t kLongestSession = 1'000'000;  // tokens

}  // namespace

void add_workload_options(OptionTable& t, SimulateOptions& o) {
  t.value("trace", &o.trace, "towline: requests and their times (CSV, JSON lines; see docs)")
      .metavar("FILE");
  t.value("arrivals-of", &o.arrivals_of,
          "towline: what if? the requests of a recorded run, from its journal").metavar("FILE");
  t.value("servegen", &o.servegen,
          "towline: clients of ServeGen (chunk-N-trace.csv, chunk-N-dataset.json); "
          "--rate scales them")
      .metavar("DIR");
  t.value("servegen-from", &o.servegen_from, "towline: seconds into its files to begin at")
      .range(0, 1e9);
  t.value("requests", &o.requests, "towline: stop after so many requests; 0: no such end")
      .range(0, 1e9);
  t.value("clients", &o.clients, "towline, offline: requests kept waiting or running")
      .range(1, 1e7);
  t.value("turns", &o.turns,
          "towline: mean turns of a session, geometric; each repeats all that was said before")
      .range(1, 1e4);
  t.value("turn-think", &o.turn_think, "towline: mean seconds between two turns, exponential")
      .range(0, 1e6);
  t.value("input", &o.input,
          "towline: prompt tokens of every request, without --trace and --lengths; with --output "
          "and the same --rate and --seed the requests are those of `towline bench URL`")
      .range(0, 1e6);
  t.value("output", &o.output, "towline: output tokens of every request").range(0, 1e6);
  t.value("rate", &o.rate,
          "towline: requests/s of the arrival process, or the trace sped up to this")
      .range(0, 1e9);
  t.value("arrival-process", &o.arrival_process, "towline: where nothing else says the times")
      .one_of({"poisson", "gamma", "uniform", "diurnal"});
  t.value("variation", &o.variation, "towline: coefficient of variation of gamma").range(0.01, 100);
}

std::function<std::optional<sim::FollowUp>(const sim::RequestRecord&)> follow_up_of(
    const Workload& work, const SimulateOptions& o) {
  if (!(o.turns > 1)) return nullptr;
  const double goes_on = 1 - 1 / o.turns;
  return [&work, goes_on, think = o.turn_think, seed = static_cast<uint64_t>(o.seed)](
             const sim::RequestRecord& r) -> std::optional<sim::FollowUp> {
    Rng rng(mix64(seed ^ 0x7465726e73) ^ static_cast<uint64_t>(r.id));
    if (rng.unit() >= goes_on) return std::nullopt;
    sim::FollowUp next;
    next.think = -std::log(1 - rng.unit()) * think;
    int32_t asked = r.input;
    next.output = r.output;
    if (!work.lengths.empty()) {
      std::tie(asked, next.output) = work.lengths[rng.below(work.lengths.size())];
    }
    const int64_t input = int64_t{r.input} + r.output + asked;
    if (input > kLongestSession) return std::nullopt;
    next.input = static_cast<int32_t>(input);
    return next;
  };
}

Result<Workload> load_workload(const SimulateOptions& o) {
  Workload work;
  if (!o.lengths.empty()) {
    ASSIGN_OR_RETURN(work.lengths, sim::load_lengths(o.lengths));
  }
  const int sources = (!o.trace.empty()) + (!o.arrivals_of.empty()) + (!o.servegen.empty());
  if (sources > 1) {
    return Error(Code::kInvalidArgument, "give one of --trace, --arrivals-of and --servegen");
  }
  if (!o.arrivals_of.empty()) {
    ASSIGN_OR_RETURN(obs::JournalReader journal, obs::JournalReader::open(o.arrivals_of));
    ASSIGN_OR_RETURN(work.recorded, sim::journal_workload(journal));
    if (o.rate > 0) return Error(Code::kInvalidArgument, "--arrivals-of keeps its own times");
    return work;
  }
  if (!o.servegen.empty()) {
    ASSIGN_OR_RETURN(work.clients, spec::ServeGenSource::load(o.servegen));
    ASSIGN_OR_RETURN(const spec::ServeGenSource source,
                     spec::ServeGenSource::make(work.clients, 1, o.servegen_from, 0, work.lengths));
    work.servegen_rate = source.mean_rate();
    if (!(work.servegen_rate > 0)) {
      return errorf(Code::kInvalidArgument, "nothing arrives in '{}' from {} s on", o.servegen,
                    o.servegen_from);
    }
    return work;
  }
  if (!o.trace.empty()) {
    ASSIGN_OR_RETURN(const spec::TraceReader reader, spec::TraceReader::open(o.trace));
    if (!reader.has_arrivals() && o.mode == "online" && !(o.rate > 0) && !o.find_max_rate) {
      return errorf(Code::kInvalidArgument, "{} has no arrival times; give --rate too", o.trace);
    }
    work.trace = o.trace;
    if (o.rate > 0 || o.find_max_rate) {
      ASSIGN_OR_RETURN(work.trace_rate, spec::trace_rate(o.trace, most_requests(o)));
    }
    return work;
  }
  if (o.lengths.empty() && (o.input == 0 || o.output == 0)) {
    return Error(Code::kInvalidArgument,
                 "--policy towline needs --trace, --lengths, --servegen, --arrivals-of, "
                 "or --input and --output");
  }
  if (o.lengths.empty() && o.requests == 0 && o.mode == "online" && o.duration < 0) {
    return Error(Code::kInvalidArgument, "--input and --output need --requests or --duration");
  }
  if (o.mode == "online" && !(o.rate > 0) && !o.find_max_rate) {
    return Error(Code::kInvalidArgument, "lengths without times need --rate in online mode");
  }
  return work;
}

Result<sim::StageEngine::Source> open_source(const Workload& work, const SimulateOptions& o,
                                             double rate, uint64_t seed) {
  const int64_t limit = most_requests(o);
  if (!work.recorded.empty()) {
    return sim::StageEngine::Source([&work, at = size_t{0},
                                     left = limit]() mutable -> Result<Request> {
      if (left-- <= 0 || at == work.recorded.size()) return Request();
      return Request(work.recorded[at++]);
    });
  }
  if (!work.clients.empty()) {
    const double scale = rate > 0 ? rate / work.servegen_rate : 1;
    ASSIGN_OR_RETURN(spec::ServeGenSource made,
                     spec::ServeGenSource::make(work.clients, scale, o.servegen_from, seed,
                                                work.lengths));
    auto source = std::make_shared<spec::ServeGenSource>(std::move(made));
    return sim::StageEngine::Source([source, left = limit]() mutable -> Result<Request> {
      if (left-- <= 0) return Request();
      return source->next();
    });
  }
  spec::ArrivalProcess process = process_of(o);
  if (work.lengths.empty()) {
    spec::ScheduleOptions options;
    options.trace = work.trace;
    options.input = o.input;
    options.output = o.output;
    options.requests = limit;
    options.timed = o.mode == "online";
    options.process = process;
    options.rate = rate;
    options.seed = seed;
    options.trace_rate = work.trace_rate;
    options.keep_tokens = o.prefix_cache;
    ASSIGN_OR_RETURN(spec::RequestSchedule opened, spec::RequestSchedule::open(std::move(options)));
    // A std::function must be copyable; a reader is not.
    auto schedule = std::make_shared<spec::RequestSchedule>(std::move(opened));
    return sim::StageEngine::Source([schedule]() { return schedule->next(); });
  }
  process.rate = rate > 0 ? rate : 1;
  return sim::StageEngine::Source([&work, clock = spec::ArrivalClock(process, seed),
                                   rng = Rng(seed + 1), left = limit]() mutable -> Result<Request> {
    if (left-- <= 0) return Request();
    const auto& [in, out] = work.lengths[rng.below(work.lengths.size())];
    return Request(spec::TraceRequest{clock.next(), in, out});
  });
}

}  // namespace towline::cli
