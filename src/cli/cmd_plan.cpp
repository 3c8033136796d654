// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline plan`: which layers go to which node, and how much that will serve.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/plan_inputs.hpp"
#include "cli/plan_milp.hpp"
#include "cli/plan_search.hpp"
#include "plan/auto.hpp"
#include "plan/bounds.hpp"
#include "plan/flow_report.hpp"
#include "plan/heuristics.hpp"
#include "plan/instance.hpp"
#include "plan/picture.hpp"
#include "sim/judge.hpp"

namespace towline::cli {
namespace {

constexpr size_t kFailuresUpTo = 200;  // nodes; the failure of each is a maximum flow

struct PlanOptions {
  PlanInputs inputs;
  MilpInputs milp;
  std::string instance;
  std::string method = "auto";
  int64_t seed = 0;
  int64_t steps = 0;
  double seconds = 0;
  int threads = 0;
  int stages = 0;
  int max_out_links = 24;
  std::string picture;
  int judge = 0;
  bool partial = false;
  std::string out;
  bool json = false;
  bool progress = false;
};

OptionTable table(PlanOptions& o) {
  OptionTable t("plan", "Place a model's layers on unequal machines, with a bound.");
  t.describe(
      "Finds the placement with the highest flow of tokens through the cluster, and an upper bound "
      "that no placement can exceed. The other methods are the baselines that Helix is compared "
      "with. Ctrl-C keeps the best placement found so far.");
  o.inputs.add_to(t);
  t.value("instance", &o.instance, "placement problem in the plain .inst format").metavar("FILE");
  t.value("method", &o.method, "how to place")
      .one_of({"auto", "petals", "swarm", "homogeneous", "separate", "milp"});
  t.value("seed", &o.seed, "random seed; the same seed and steps give the same plan")
      .range(0, 9e15);
  t.value("steps", &o.steps, "search moves; 0 chooses by the kind and size of the cluster")
      .range(0, 1e15);
  t.value("seconds", &o.seconds, "stop searching after so many seconds; 0 sets no limit")
      .range(0, 1e9);
  t.value("threads", &o.threads,
          "search threads; 0 takes every core (the plan does not depend on it)")
      .range(0, 256);
  t.value("stages", &o.stages, "swarm: number of equal stages; 0 takes the fewest that fit")
      .range(0, 10'000);
  t.value("max-out-links", &o.max_out_links, "petals, swarm: links that leave a node")
      .range(1, 100'000);
  t.value("judge", &o.judge,
          "simulate the best so many plans at full load and take the one that decodes most")
      .range(0, 1000);
  o.milp.add_to(t);
  t.flag("partial", &o.partial, "partial inference: a node may take over inside its range");
  t.value("out", &o.out, "folder for the plan's files").metavar("DIR");
  t.value("picture", &o.picture, "draw the plan: .svg, or .html with the table").metavar("FILE");
  t.flag("json", &o.json, "print JSON");
  t.flag("progress", &o.progress, "show progress even if stderr is not a terminal");
  t.example(
      "towline plan --cluster single24.ini --profile machine_profile.ini --model llama2-70b "
      "--out plan");
  t.example("towline plan --instance s24.inst --out plan --json");
  return t;
}

// A plan with what is known about it.
struct Planned {
  double bound = 0;              // the MILP's; 0: only that of the report is known
  std::string lp, sol;           // the MILP's files
  plan::SearchResult search;     // of baselines: placement alone
  plan::LinkedPlacement linked;  // of clusters
  plan::FlowReport report;
  std::optional<sim::Judgement> judged;
};

plan::SearchResult search(const PlanOptions& o, const plan::Instance& instance,
                          std::vector<plan::Placement> starts) {
  SearchTable progress(o.progress || (!o.json && isatty(STDERR_FILENO) != 0));
  plan::SearchOptions options;
  options.seed = static_cast<uint64_t>(o.seed);
  options.partial = o.partial;
  options.steps = o.steps;
  options.threads =
      o.threads > 0 ? o.threads : static_cast<int>(std::thread::hardware_concurrency());
  options.starts = std::move(starts);
  options.stop = StopOnSignal::flag();
  options.progress = [&](const plan::SearchProgress& p) { progress.row(p); };
  const StopOnSignal guard(o.seconds);
  return plan::search_placement(instance, options);
}

Result<void> check_flow(const plan::FlowReport& report) {
  if (report.max_flow > 0) return {};
  return errorf(Code::kExhausted,
                "no placement of the {} layers was found that passes any flow (upper bound {:.3f} "
                "tokens/s): the nodes are too small or too badly linked",
                report.layers, report.upper_bound);
}

Result<plan::LinkedPlacement> baseline(const std::string& method, const PlanOptions& o,
                                       const plan::PlanProblem& problem) {
  const plan::HeuristicOptions options{
      .seed = static_cast<uint64_t>(o.seed), .max_out_links = o.max_out_links, .stages = o.stages};
  if (method == "petals") return plan::petals(problem, options);
  if (method == "swarm") return plan::swarm(problem, options);
  if (method == "homogeneous") return plan::homogeneous(problem, options);
  return plan::separate(problem, options);
}

plan::LinkedPlacement link(const PlanOptions& o, const plan::PlanProblem& problem,
                           plan::Placement placement) {
  plan::LinkedPlacement linked;
  linked.method = "auto";
  linked.arcs = plan::valid_arcs(problem, placement, o.partial);
  for (int32_t unit = 0; unit < problem.size(); ++unit) {
    if (!placement.nodes[unit].empty()) linked.written.push_back(unit);
  }
  linked.placement = std::move(placement);
  return linked;
}

// The plan among the best few that decodes most when simulated.
Result<void> judge_plans(const ProblemAndProfile& loaded,
                         std::vector<plan::LinkedPlacement> candidates, Planned& planned) {
  std::string refused;
  for (plan::LinkedPlacement& candidate : candidates) {
    const Result<sim::Judgement> judged = sim::judge(loaded.problem, candidate, loaded.profile);
    if (!judged) {
      refused = judged.error().to_string();
      continue;
    }
    if (planned.judged && judged->decode_tps <= planned.judged->decode_tps) continue;
    planned.judged = *judged;
    planned.linked = std::move(candidate);
  }
  if (!planned.judged) {
    return errorf(Code::kExhausted, "none of the {} plans could be simulated: {}",
                  candidates.size(), refused);
  }
  return {};
}

Result<void> plan_milp(const PlanOptions& o, const plan::PlanProblem& problem, Planned& planned) {
  SearchTable progress(o.progress || (!o.json && isatty(STDERR_FILENO) != 0));
  MilpInputs inputs = o.milp;
  if (o.seconds > 0) inputs.seconds = o.seconds;
  const StopOnSignal guard(0);
  ASSIGN_OR_RETURN(
      MilpPlan found,
      plan_by_milp(problem, inputs, o.partial, StopOnSignal::flag(),
                   [&](const plan::MilpOptions::Progress& p) {
                     progress.row({.flow = p.incumbent, .bound = p.bound, .method = "milp"});
                   }));
  planned.linked = std::move(found.linked);
  planned.bound = found.bound;
  planned.search.found_by = format("milp ({})", found.stopped_by);
  planned.lp = std::move(found.lp);
  planned.sol = std::move(found.sol);
  return {};
}

Result<Planned> plan_cluster(const PlanOptions& o) {
  ASSIGN_OR_RETURN(const ProblemAndProfile loaded, load_problem_and_profile(o.inputs));
  const plan::PlanProblem& problem = loaded.problem;
  Planned planned;
  if (o.method == "milp") {
    TRY(plan_milp(o, problem, planned));
  } else if (o.method != "auto") {
    ASSIGN_OR_RETURN(planned.linked, baseline(o.method, o, problem));
    planned.search.found_by = o.method;
  } else {
    const plan::Instance instance = plan::to_instance(problem);
    std::vector<plan::Placement> starts;
    std::vector<plan::LinkedPlacement> candidates;
    for (const char* method : {"petals", "swarm", "homogeneous", "separate"}) {
      Result<plan::LinkedPlacement> start = baseline(method, o, problem);
      // A baseline may not apply to this cluster, or exceed the memory rule: then it is no start.
      if (!start || !plan::validate(start->placement, instance)) continue;
      starts.push_back(start->placement);
      candidates.push_back(std::move(*start));
    }
    planned.search = search(o, instance, std::move(starts));
    planned.linked = link(o, problem, planned.search.placement);
    if (o.judge > 0) {
      for (const plan::Placement& placement : planned.search.best) {
        if (candidates.size() >= static_cast<size_t>(o.judge)) break;
        candidates.push_back(link(o, problem, placement));
      }
      TRY(judge_plans(loaded, std::move(candidates), planned));
    }
  }
  planned.search.placement = planned.linked.placement;
  planned.report = plan::report_flow(problem, planned.linked,
                                     {.failures = problem.units.size() <= kFailuresUpTo});
  TRY(check_flow(planned.report));
  if (!o.out.empty()) {
    TRY(write_cluster_plan(o.out, problem, planned.linked, planned.report));
    if (!planned.lp.empty()) {
      TRY(write_file_atomic(o.out + "/ilp_model.lp", planned.lp));
      TRY(write_file_atomic(o.out + "/ilp_solution.sol", planned.sol));
    }
  }
  return planned;
}

Result<Planned> plan_instance(const PlanOptions& o) {
  if (o.method != "auto") {
    return errorf(Code::kInvalidArgument,
                  "--method {} needs a cluster with machine types; an instance has only auto",
                  o.method);
  }
  if (o.judge > 0) {
    return Error(Code::kInvalidArgument,
                 "--judge simulates machines; give --cluster, an instance has none");
  }
  ASSIGN_OR_RETURN(const plan::Instance instance, plan::load_instance(o.instance));
  Planned planned;
  planned.search = search(o, instance, {});
  planned.report = plan::report_flow(instance, planned.search.placement, o.partial,
                                     {.failures = instance.rates.size() <= kFailuresUpTo});
  TRY(check_flow(planned.report));
  if (!o.out.empty()) {
    TRY(write_instance_plan(o.out, o.instance, planned.search.placement, planned.report));
  }
  return planned;
}

Json report_json(const PlanOptions& o, const Planned& planned) {
  const plan::FlowReport& report = planned.report;
  double bound = report.upper_bound;
  if (planned.bound > 0) bound = std::min(bound, planned.bound);
  bound = std::max(bound, report.max_flow);
  Json json = Json::object({{"method", o.method},
                            {"max_flow", report.max_flow},
                            {"upper_bound", bound},
                            {"trivial_bound", report.max_compute},
                            {"gap", bound > 0 ? 1 - report.max_flow / bound : 0},
                            {"optimal", report.max_flow >= bound * (1 - 1e-9)},
                            {"found_by", planned.search.found_by},
                            {"partial", o.partial},
                            {"seed", o.seed},
                            {"steps", planned.search.steps},
                            {"evaluations", planned.search.evaluations},
                            {"bottleneck", report.bottleneck}});
  if (report.units.size() <= kFailuresUpTo) json.set("n_minus_1_flow", report.n_minus_1_flow);
  if (planned.judged) {
    json.set("judged", Json::object({{"decode_tps", planned.judged->decode_tps},
                                     {"prompt_latency", planned.judged->prompt_latency},
                                     {"decode_latency", planned.judged->decode_latency}}));
  }
  json.set("cpu_seconds", cpu_seconds());
  Json nodes = Json::array();
  for (const plan::UnitFlow& unit : report.units) {
    nodes.push(Json::object({{"name", unit.name},
                             {"begin", unit.layers.empty() ? 0 : unit.layers.begin},
                             {"end", unit.layers.empty() ? 0 : unit.layers.end},
                             {"flow", unit.flow},
                             {"unused_because", unit.unused_because}}));
  }
  json.set("nodes", std::move(nodes));
  return json;
}

Result<int> run(std::span<const std::string> args) {
  PlanOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const Planned planned, o.instance.empty() ? plan_cluster(o) : plan_instance(o));
  if (!o.picture.empty()) {
    const bool page = o.picture.ends_with(".html");
    TRY(write_file_atomic(
        o.picture, page ? plan::picture_html(planned.report) : plan::picture_svg(planned.report)));
  }
  if (o.json) {
    std::puts(report_json(o, planned).dump().c_str());
    return 0;
  }
  std::fputs(plan::print_report(planned.report).c_str(), stdout);
  std::fputs(format("\nmethod {}, found by {}, {} moves, {:.2f} CPU seconds\n", o.method,
                    planned.search.found_by, planned.search.steps, cpu_seconds())
                 .c_str(),
             stdout);
  if (planned.judged) {
    std::fputs(format("simulated at full load: {:.1f} tokens/s decoded, {:.3f} s to the first "
                      "token, {:.3f} s a token\n",
                      planned.judged->decode_tps, planned.judged->prompt_latency,
                      planned.judged->decode_latency)
                   .c_str(),
               stdout);
  }
  return 0;
}

}  // namespace

const Command kPlan = {"plan", "place a model's layers on unequal machines", run,
                       [](void (*sink)(const OptionTable&)) {
                         PlanOptions o;
                         sink(table(o));
                       }};

}  // namespace towline::cli
