// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline bench URL`: load on any server with OpenAI's API.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/cluster_client.hpp"
#include "cli/commands.hpp"
#include "cli/load_report.hpp"
#include "serve/load_client.hpp"
#include "spec/request_schedule.hpp"
#include "spec/scenario.hpp"

namespace towline::cli {
namespace {

struct LoadCommandOptions {
  std::string url, model, api_key, ca, trace, out, scenario;
  std::string endpoint = "completions", arrivals = "poisson";
  int64_t requests = 100;
  double rate = 0, variation = 2, duration = 0, timeout = 600, slo_ttft = 0, slo_tpot = 0;
  double temperature = 0;
  int64_t clients = 0, input = 128, output = 64, vocabulary = 256, seed = 0;
  bool stop_at_eos = false, json = false, progress = false;
};

OptionTable table(LoadCommandOptions& o) {
  OptionTable t("bench", "Load a server that speaks OpenAI's API, and time its answers.");
  t.describe(
      "Open loop (--rate, or --trace with times): requests are sent when they are due, answered or "
      "not, and latencies count from then. Closed loop (--clients): each client sends its next "
      "request when the last is answered. TTFT is the time to the first token, TPOT the mean of "
      "the further ones, ITL the single gaps, E2E the whole. Ctrl-C ends the run and reports what "
      "is there. The exit code is 1 if a request failed or was stopped.");
  t.positional("url", &o.url,
               "http://host:port or https://host:port, with /v1 or another path if it differs")
      .required();
  t.value("requests", &o.requests, "how many; a trace may end before").range(1, 1e9);
  t.value("duration", &o.duration, "send for so many seconds at most; 0: no such end")
      .range(0, 1e7);
  t.value("rate", &o.rate, "open loop: requests/s; with --trace its own times are scaled to this")
      .range(0, 1e6);
  t.value("arrivals", &o.arrivals, "how the times are drawn")
      .one_of({"poisson", "gamma", "uniform", "diurnal"});
  t.value("variation", &o.variation, "gamma: standard deviation / mean").range(0.01, 100);
  t.value("trace", &o.trace, "lengths (and times) from a trace: Azure, Mooncake, Vidur, ... CSV or "
                             "JSON lines").metavar("FILE");
  t.value("clients", &o.clients, "closed loop with so many clients; 0: open loop").range(0, 1e5);
  t.value("input", &o.input, "prompt tokens, without --trace").range(1, 1e6);
  t.value("output", &o.output, "output tokens, without --trace").range(1, 1e6);
  t.value("scenario", &o.scenario,
          "take what is not given here from the [workload] of this file (trace, rate, lengths, "
          "seed); `towline simulate --scenario` has the same requests at the same times")
      .metavar("FILE");
  t.value("endpoint", &o.endpoint,
          "completions sends token ids; chat sends words (about a token each)")
      .one_of({"completions", "chat"});
  t.value("vocabulary", &o.vocabulary, "token ids are drawn from 3 up to this").range(4, 1e6);
  t.flag("stop-at-eos", &o.stop_at_eos,
         "let the model end early (default: ignore_eos is sent, so that lengths are as wanted)");
  t.value("temperature", &o.temperature, "of the sampling").range(0, 2);
  t.value("model", &o.model, "name in the requests; empty: the first that the server lists");
  t.value("api-key", &o.api_key, "sent as bearer token").secret();
  t.value("ca", &o.ca, kCaHelp).metavar("FILE");
  t.value("seed", &o.seed, "of times, prompts and sampling").range(0, 1e15);
  t.value("timeout", &o.timeout, "seconds for one request").range(0.001, 1e6);
  t.value("slo-ttft", &o.slo_ttft, "goal for the first token, seconds; 0: none").range(0, 1e6);
  t.value("slo-tpot", &o.slo_tpot, "goal for further tokens, seconds; 0: none").range(0, 1e6);
  t.value("out", &o.out, "folder for summary.json, requests.csv, report.html").metavar("DIR");
  t.flag("json", &o.json, "print the summary as JSON");
  t.flag("progress", &o.progress, "show progress even if this is no terminal");
  t.example("towline bench http://127.0.0.1:8000 --rate 4 --requests 200 --slo-ttft 0.5");
  t.example("towline bench http://127.0.0.1:8000 --trace azure.csv --rate 2 --duration 60");
  t.example("towline bench http://127.0.0.1:8000 --clients 32 --requests 256 --json");
  return t;
}

// Only where the command line says nothing else than its defaults.
void adopt_workload(const spec::ScenarioWorkload& w, LoadCommandOptions& o) {
  const LoadCommandOptions defaults;
  if (o.trace.empty()) o.trace = w.trace;
  if (o.rate == 0 && o.clients == 0) o.rate = w.rate;
  if (o.requests == defaults.requests && w.requests > 0) o.requests = w.requests;
  if (o.seed == 0) o.seed = w.seed;
  if (o.input == defaults.input && w.input > 0) o.input = w.input;
  if (o.output == defaults.output && w.output > 0) o.output = w.output;
}

Result<spec::RequestSchedule> open_schedule(const LoadCommandOptions& o) {
  spec::ScheduleOptions schedule;
  schedule.trace = o.trace;
  schedule.input = static_cast<int32_t>(o.input);
  schedule.output = static_cast<int32_t>(o.output);
  schedule.requests = o.requests;
  schedule.seconds = o.clients > 0 ? 0 : o.duration;
  schedule.timed = o.clients == 0;
  schedule.process.kind = o.arrivals == "gamma"     ? spec::ArrivalKind::kGamma
                          : o.arrivals == "uniform" ? spec::ArrivalKind::kUniform
                          : o.arrivals == "diurnal" ? spec::ArrivalKind::kDiurnal
                                                    : spec::ArrivalKind::kPoisson;
  schedule.process.variation = o.variation;
  schedule.rate = o.rate;
  schedule.seed = static_cast<uint64_t>(o.seed);
  return spec::RequestSchedule::open(std::move(schedule));
}

// Before the run: what it finds shall not be lost for a name.
Result<void> make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) return {};
  return errorf(Code::kInvalidArgument, "--out: the folder '{}' cannot be made: {}", folder,
                error.message());
}

Result<void> write_results(const LoadCommandOptions& o, const LoadReport& report,
                           const std::string& csv) {
  TRY(write_file_atomic(o.out + "/summary.json", report.json().dump(2) + "\n"));
  TRY(write_file_atomic(o.out + "/requests.csv", csv));
  return write_file_atomic(o.out + "/report.html", report.html("Load on " + o.url));
}

serve::LoadOptions load_options(const LoadCommandOptions& o, serve::ServerUrl target) {
  serve::LoadOptions options;
  options.target = std::move(target);
  options.model = o.model;
  options.api_key = o.api_key;
  options.chat = o.endpoint == "chat";
  options.ignore_eos = !o.stop_at_eos;
  options.clients = static_cast<int32_t>(o.clients);
  options.vocabulary = static_cast<int32_t>(o.vocabulary);
  options.temperature = o.temperature;
  options.seed = static_cast<uint64_t>(o.seed);
  options.timeout = Duration(static_cast<int64_t>(o.timeout * 1e9));
  return options;
}

Result<int> run(std::span<const std::string> args) {
  LoadCommandOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(serve::ServerUrl target, serve::ServerUrl::parse(o.url, o.ca));
  if (!o.scenario.empty()) {
    ASSIGN_OR_RETURN(const spec::Scenario scenario, spec::load_scenario(o.scenario));
    adopt_workload(scenario.workload, o);
  }
  if (o.clients > 0 && o.rate > 0) {
    return Error(Code::kInvalidArgument,
                 "--rate is of an open loop, --clients of a closed one: give one of them");
  }
  ASSIGN_OR_RETURN(spec::RequestSchedule schedule, open_schedule(o));
  if (!o.out.empty()) TRY(make_folder(o.out));
  std::optional<Error> fault;  // in the trace's middle: it ends the run and is told at its end
  serve::LoadOptions options = load_options(o, std::move(target));
  if (options.model.empty()) {
    ASSIGN_OR_RETURN(options.model,
                     serve::LoadClient::first_model(options.target, options.api_key));
  }
  Loop loop;
  LoadReport report({o.slo_ttft, o.slo_tpot});
  std::string csv = LoadReport::csv_header();
  const bool show = o.progress || ::isatty(STDERR_FILENO) != 0;
  int64_t ended = 0;
  bool interrupted = false;
  serve::LoadClient client(
      loop, std::move(options),
      [&]() -> std::optional<spec::TraceRequest> {
        auto next = schedule.next();
        if (next) return *next;
        fault = std::move(next).error();
        return std::nullopt;
      },
      [&](serve::LoadResult&& result) {
        report.add(result);
        if (!o.out.empty()) csv += LoadReport::csv_row(result);
        ++ended;
      });
  std::function<void()> tick = [&] {
    std::fputs(format("\r{} sent, {} under way, {} ended ", client.sent(), client.in_flight(),
                      ended).c_str(), stderr);
    loop.after(milliseconds(500), tick);
  };
  if (show) tick();
  const auto interrupt = [&] {
    interrupted = true;
    client.stop();
  };
  loop.on_signal(SIGINT, interrupt);
  loop.on_signal(SIGTERM, interrupt);
  if (o.clients > 0 && o.duration > 0) {
    loop.after(Duration(static_cast<int64_t>(o.duration * 1e9)), [&] { schedule.stop(); });
  }
  client.start([&] { loop.stop(); });
  loop.run();
  if (show) std::fputs("\n", stderr);
  report.finish(client.sent(), client.most_in_flight(), interrupted);
  std::fputs(o.json ? (report.json().dump(2) + "\n").c_str() : report.table().c_str(), stdout);
  if (!o.out.empty()) TRY(write_results(o, report, csv));
  if (fault) return *std::move(fault);
  return report.all_answered() ? 0 : 1;
}

}  // namespace

const Command kBenchLoad = {"bench", "load a server that speaks OpenAI's API, and time its answers",
                            run, [](void (*sink)(const OptionTable&)) {
                              LoadCommandOptions o;
                              sink(table(o));
                            }};

}  // namespace towline::cli
