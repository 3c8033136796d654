// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/simulate_workload.hpp"

#include <memory>

#include "base/fmt.hpp"
#include "sim/helix_load.hpp"
#include "spec/workload.hpp"

namespace towline::cli {
namespace {

using Request = std::optional<spec::TraceRequest>;

// Requests/s of a whole trace, read in bounded memory.
Result<double> rate_of(const std::string& path) {
  ASSIGN_OR_RETURN(spec::TraceReader reader, spec::TraceReader::open(path));
  int64_t count = 0, last = 0;
  for (;;) {
    ASSIGN_OR_RETURN(const Request request, reader.next());
    if (!request) break;
    ++count;
    last = request->arrival_ns;
  }
  return last > 0 ? static_cast<double>(count) / (static_cast<double>(last) * 1e-9) : 0.0;
}

}  // namespace

Result<Workload> load_workload(const SimulateOptions& o) {
  Workload work;
  if (!o.trace.empty()) {
    ASSIGN_OR_RETURN(const spec::TraceReader reader, spec::TraceReader::open(o.trace));
    if (!reader.has_arrivals() && o.mode == "online") {
      return errorf(Code::kInvalidArgument,
                    "{} has no arrival times; give it as --lengths with --rate", o.trace);
    }
    work.trace = o.trace;
    if (o.rate > 0 || o.find_max_rate) {
      ASSIGN_OR_RETURN(work.trace_rate, rate_of(o.trace));
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

Result<sim::StageEngine::Source> open_source(const Workload& work, const SimulateOptions& o,
                                             double rate, uint64_t seed) {
  const int64_t limit = o.requests > 0 ? o.requests : INT64_MAX;
  if (!work.trace.empty()) {
    ASSIGN_OR_RETURN(spec::TraceReader opened, spec::TraceReader::open(work.trace));
    // A std::function must be copyable; a reader is not.
    auto reader = std::make_shared<spec::TraceReader>(std::move(opened));
    const double stretch = rate > 0 && work.trace_rate > 0 ? work.trace_rate / rate : 1;
    return sim::StageEngine::Source([reader, stretch, left = limit]() mutable -> Result<Request> {
      if (left-- <= 0) return Request();
      ASSIGN_OR_RETURN(Request request, reader->next());
      if (request && stretch != 1) {
        request->arrival_ns =
            static_cast<int64_t>(static_cast<double>(request->arrival_ns) * stretch);
      }
      return request;
    });
  }
  spec::ArrivalProcess process;
  process.rate = rate > 0 ? rate : 1;
  process.variation = o.variation;
  process.kind = o.arrival_process == "gamma"     ? spec::ArrivalKind::kGamma
                 : o.arrival_process == "uniform" ? spec::ArrivalKind::kUniform
                 : o.arrival_process == "diurnal" ? spec::ArrivalKind::kDiurnal
                                                  : spec::ArrivalKind::kPoisson;
  return sim::StageEngine::Source([&work, clock = spec::ArrivalClock(process, seed),
                                   rng = Rng(seed + 1), left = limit]() mutable -> Result<Request> {
    if (left-- <= 0) return Request();
    const auto& [in, out] = work.lengths[rng.below(work.lengths.size())];
    return Request(spec::TraceRequest{clock.next(), in, out});
  });
}

}  // namespace towline::cli
