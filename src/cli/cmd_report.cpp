// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline report`: sums up events.txt and query_route.txt, of Helix's
// prototype or of our own runs.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "cli/commands.hpp"
#include "spec/helix_log.hpp"

namespace towline::cli {
namespace {

struct ReportOptions {
  std::string events, routes;
  double from = 60, to = 300;
  bool json = false;
};

OptionTable table(ReportOptions& o) {
  OptionTable t("report", "Sum up the logs of a run: events.txt and query_route.txt.");
  t.describe(
      "The logs are those of Helix's prototype, which towline writes as well. An iteration counts "
      "if its result came back in the window; decode tokens/s are the decodes between the first "
      "and the last of them. Latencies are from launch to result as the coordinator sees them.");
  t.positional("events", &o.events, "events.txt, or the folder that holds both files").required();
  t.value("routes", &o.routes, "query_route.txt; empty: beside the events if it is there");
  t.value("from", &o.from, "the window's beginning, seconds").range(0, 1e9);
  t.value("to", &o.to, "the window's end, seconds").range(0, 1e9);
  t.flag("json", &o.json, "print JSON");
  t.example("towline report run/events.txt --from 200 --to 300");
  return t;
}

struct RouteUse {
  int64_t requests = 0, tokens = 0;
};

std::string describe(const spec::HelixRoute& route) {
  std::string text;
  for (const spec::HelixRoute::Stop& stop : route.stops) {
    text += format("{}{}[{},{})", text.empty() ? "" : " ", stop.machine, stop.layers.begin,
                   stop.layers.end);
  }
  return text;
}

std::vector<std::pair<std::string, RouteUse>> uses_of(const std::vector<spec::HelixRoute>& routes) {
  std::map<std::string, RouteUse> by_route;
  for (const spec::HelixRoute& route : routes) {
    RouteUse& use = by_route[describe(route)];
    ++use.requests;
    use.tokens += route.input + route.output;
  }
  std::vector<std::pair<std::string, RouteUse>> uses(by_route.begin(), by_route.end());
  std::stable_sort(uses.begin(), uses.end(), [](const auto& a, const auto& b) {
    return a.second.requests > b.second.requests;
  });
  return uses;
}

Json phase_json(const spec::HelixLogSummary::Phase& p) {
  return Json::object({{"count", p.count}, {"mean", p.mean}, {"p5", p.p5}, {"p25", p.p25},
                       {"p50", p.p50}, {"p75", p.p75}, {"p95", p.p95}});
}

void print_phase(std::string_view name, const spec::HelixLogSummary::Phase& p) {
  std::puts(format("{:<18}{:>9}{:>10.3f}{:>10.3f}{:>10.3f}{:>10.3f}{:>10.3f}{:>10.3f}", name,
                   p.count, p.mean, p.p5, p.p25, p.p50, p.p75, p.p95)
                .c_str());
}

void print_table(const spec::HelixLogSummary& s,
                 const std::vector<std::pair<std::string, RouteUse>>& uses) {
  std::puts(format("{} requests; window {} to {} s: {:.1f} decode tokens/s, {} prompts", s.requests,
                   s.begin, s.end, s.decode_tps, s.finished_prompts)
                .c_str());
  if (s.unanswered > 0) {
    std::puts(format("{} iterations were under way when the log ended", s.unanswered).c_str());
  }
  std::puts(format("\n{:<18}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "seconds", "count", "mean",
                   "p5", "p25", "p50", "p75", "p95")
                .c_str());
  print_phase("prompt", s.prompt);
  print_phase("decode", s.decode);
  print_phase("between decodes", s.between_decodes);
  if (uses.empty()) return;
  std::puts(format("\n{:>9}{:>12}  route (machine[layers))", "requests", "tokens").c_str());
  for (const auto& [route, use] : uses) {
    std::puts(format("{:>9}{:>12}  {}", use.requests, use.tokens, route).c_str());
  }
}

Result<int> run(std::span<const std::string> args) {
  ReportOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (o.to <= o.from) {
    return errorf(Code::kInvalidArgument,
                  "the window from {} to {} s is empty; give --to a time after --from", o.from,
                  o.to);
  }
  std::error_code error;
  if (std::filesystem::is_directory(o.events, error)) o.events += "/events.txt";
  if (o.routes.empty()) {
    const auto beside = std::filesystem::path(o.events).parent_path() / "query_route.txt";
    if (std::filesystem::exists(beside, error)) o.routes = beside.string();
  }
  spec::HelixLogStatistics statistics(o.from, o.to);
  TRY(spec::read_helix_events(o.events,
                              [&](const spec::HelixEvent& event) { statistics.add(event); }));
  const spec::HelixLogSummary summary = statistics.summary();
  std::vector<std::pair<std::string, RouteUse>> uses;
  if (!o.routes.empty()) {
    ASSIGN_OR_RETURN(const std::vector<spec::HelixRoute> routes, spec::load_helix_routes(o.routes));
    uses = uses_of(routes);
  }
  if (!o.json) {
    print_table(summary, uses);
    return 0;
  }
  Json json = Json::object({{"from", summary.begin}, {"to", summary.end},
                            {"requests", summary.requests}, {"decode_tps", summary.decode_tps},
                            {"prompt", phase_json(summary.prompt)},
                            {"decode", phase_json(summary.decode)},
                            {"between_decodes", phase_json(summary.between_decodes)},
                            {"unanswered", summary.unanswered}});
  Json list = Json::array();
  for (const auto& [route, use] : uses) {
    list.push(
        Json::object({{"route", route}, {"requests", use.requests}, {"tokens", use.tokens}}));
  }
  json.set("routes", std::move(list));
  std::puts(json.dump(2).c_str());
  return 0;
}

}  // namespace

const Command kReport = {"report", "sum up a run's events.txt and query_route.txt", run,
                         [](void (*sink)(const OptionTable&)) {
                           ReportOptions o;
                           sink(table(o));
                         }};

}  // namespace towline::cli
