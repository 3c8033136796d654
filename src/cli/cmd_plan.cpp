// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline plan`: which layers go to which node, and how much that will serve.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/plan_inputs.hpp"
#include "cli/plan_judge.hpp"
#include "cli/plan_milp.hpp"
#include "cli/plan_roles.hpp"
#include "cli/plan_search.hpp"
#include "plan/auto.hpp"
#include "plan/flow_report.hpp"
#include "plan/heuristics.hpp"
#include "plan/instance.hpp"
#include "plan/picture.hpp"
#include "plan/plan_cluster.hpp"

namespace towline::cli {
namespace {

constexpr size_t kFailuresUpTo = 200;  // nodes; the failure of each is a maximum flow

struct PlanOptions {
  PlanInputs inputs;
  ObjectiveInputs objective;
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
      .one_of({"auto", "petals", "swarm", "homogeneous", "separate", "separate-plus", "milp"});
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
  o.objective.add_to(t);
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
  std::optional<plan::ServingEstimate> estimate;  // where the machines are known
  std::optional<plan::JudgedPlacement> judged;    // by the simulator
  int32_t simulations = 0;
  std::vector<OutputFile> files;    // to be written
  double cost = 0, least_cost = 0;  // --minimise cost: of the nodes used, and a lower bound
};

int threads_of(const PlanOptions& o) {
  return o.threads > 0 ? o.threads : static_cast<int>(std::thread::hardware_concurrency());
}

bool show_progress(const PlanOptions& o) {
  return o.progress || (!o.json && isatty(STDERR_FILENO) != 0);
}

plan::SearchResult search(const PlanOptions& o, const plan::Instance& instance,
                          std::vector<plan::Placement> starts, const PreparedObjective& objective) {
  SearchTable progress(show_progress(o));
  plan::SearchOptions options;
  options.seed = static_cast<uint64_t>(o.seed);
  options.partial = o.partial;
  options.steps = o.steps;
  options.threads = threads_of(o);
  options.starts = std::move(starts);
  options.worth = objective.worth();
  options.worth_per_flow = objective.objective.stretch;
  options.spare_one =
      objective.objective.goal == plan::Goal::kSurvival || objective.objective.least_n1 > 0;
  options.spare_cap = objective.objective.least_n1;
  options.stop = StopOnSignal::flag();
  options.progress = [&](const plan::SearchProgress& p) { progress.row(p); };
  const StopOnSignal guard(o.seconds);
  return plan::search_placement(instance, options);
}

plan::ReportOptions report_options(const PlanOptions& o, int32_t nodes) {
  return {.failures = static_cast<size_t>(nodes) <= kFailuresUpTo || o.objective.least_n1 > 0};
}

Result<void> check_flow(const plan::FlowReport& report) {
  if (report.max_flow > 0) return {};
  return errorf(
      Code::kInvalidArgument,
      "no placement of the {} layers was found that passes any flow (upper bound {:.3f} "
      "tokens/s): the nodes are too badly linked; add links or nodes, or let --method auto "
      "search longer (--steps)",
      report.layers, report.upper_bound);
}

Result<plan::LinkedPlacement> baseline(const std::string& method, const PlanOptions& o,
                                       const plan::PlanProblem& problem) {
  const plan::HeuristicOptions options{
      .seed = static_cast<uint64_t>(o.seed), .max_out_links = o.max_out_links, .stages = o.stages};
  if (method == "petals") return plan::petals(problem, options);
  if (method == "swarm") return plan::swarm(problem, options);
  if (method == "homogeneous") return plan::homogeneous(problem, options);
  if (method == "separate-plus") return plan::separate_plus(problem, options);
  return plan::separate(problem, options);
}

// The plan among the search's best, and variants of them, that decodes most when simulated.
Result<void> judge_plans(const PlanOptions& o, const ProblemAndProfile& loaded,
                         const plan::Instance& instance, const PreparedObjective& objective,
                         Planned& planned) {
  SearchTable progress(show_progress(o));
  plan::JudgedOptions options;
  options.seed = static_cast<uint64_t>(o.seed);
  options.threads = threads_of(o);
  options.partial = o.partial;
  options.bound = planned.search.bound;
  options.stop = StopOnSignal::flag();
  options.progress = [&](const plan::JudgedProgress& p) {
    progress.judged(p.simulations, p.best.decode_tps, p.best.decode_latency, p.in_full);
  };
  const StopOnSignal guard(o.seconds);
  ASSIGN_OR_RETURN(plan::JudgedResult judged,
                   judge_placements(loaded, instance, o.objective, objective, planned.search.best,
                                    std::move(options)));
  planned.simulations = judged.simulations;
  planned.judged = std::move(judged.finalists.front());
  planned.search.placement = planned.judged->placement;
  planned.search.found_by += ", then " + planned.judged->origin;
  return {};
}

// The search that `auto` is, under the objective, and the simulator's choice if it is asked.
Result<void> plan_auto(const PlanOptions& o, const ProblemAndProfile& loaded, Planned& planned) {
  const plan::PlanProblem& problem = loaded.problem;
  TRY(plan::check_capacity(problem));
  const plan::Instance instance = plan::to_instance(problem);
  TRY(plan::check_room(instance));
  ASSIGN_OR_RETURN(const PreparedObjective objective, prepare_objective(o.objective, &loaded));
  std::vector<plan::Placement> starts;
  const auto seed = static_cast<uint64_t>(o.seed);
  for (plan::LinkedPlacement& start : plan::baseline_plans(problem, instance, seed)) {
    starts.push_back(std::move(start.placement));
  }
  planned.search = search(o, instance, std::move(starts), objective);
  if (!o.objective.minimise.empty()) {
    if (planned.search.flow < o.objective.target_rate * (1 - 1e-9)) {
      return errorf(Code::kExhausted,
                    "--target-rate {}: the best plan found passes {:.3f} tokens/s with all nodes; "
                    "no plan can exceed {:.3f}",
                    o.objective.target_rate, planned.search.flow, planned.search.bound);
    }
    planned.search.placement = plan::without_unused(instance, planned.search.placement, o.partial);
    const std::vector<double>& prices = objective.objective.prices;
    for (size_t unit = 0; unit < prices.size(); ++unit) {
      if (!planned.search.placement.nodes[unit].empty()) planned.cost += prices[unit];
    }
    planned.least_cost = plan::cost_bound(instance, prices, o.objective.target_rate);
  }
  if (o.objective.finalists > 0) TRY(judge_plans(o, loaded, instance, objective, planned));
  planned.linked = plan::link_all(problem, planned.search.placement, o.partial, "auto");
  if (objective.model) {
    plan::FlowEvaluator evaluator(instance, o.partial);
    const std::vector<LayerRange>& ranges = planned.search.placement.nodes;
    const double flow = evaluator.flow(ranges);
    planned.estimate = plan::ServingEstimator(*objective.model)
                           .estimate(evaluator, ranges, flow, objective.objective.latency,
                                     objective.objective.stretch);
  }
  return {};
}

// A demand on what remains after a failure is met, or the plan is refused.
Result<void> check_survival(const PlanOptions& o, const plan::FlowReport& report) {
  if (report.n_minus_1_flow >= o.objective.least_n1 * (1 - 1e-9)) return {};
  return errorf(Code::kExhausted,
                "--n1 {}: no plan was found that keeps so much when a node fails; the best found "
                "keeps {:.3f} of {:.3f} tokens/s",
                o.objective.least_n1, report.n_minus_1_flow, report.max_flow);
}

// By the MILP, of a cluster (`problem`) or, if that is null, of the numbers alone.
Result<void> plan_milp(const PlanOptions& o, const plan::PlanProblem* problem,
                       const plan::Instance& instance, Planned& planned) {
  SearchTable progress(show_progress(o));
  MilpInputs inputs = o.milp;
  if (o.seconds > 0) inputs.seconds = o.seconds;
  const StopOnSignal guard(0);
  const MilpProgress row = [&](const plan::MilpOptions::Progress& p) {
    progress.row({.flow = p.incumbent, .bound = p.bound, .method = "milp"});
  };
  std::optional<plan::Placement> start;
  if (problem == nullptr && inputs.start != "none") {
    plan::SearchOptions stages;  // of the starts of `auto`, the best
    stages.steps = 1;
    stages.partial = o.partial;
    start = plan::search_placement(instance, stages).placement;
  }
  ASSIGN_OR_RETURN(
      MilpPlan found,
      problem != nullptr
          ? plan_by_milp(*problem, inputs, o.partial, StopOnSignal::flag(), row)
          : plan_by_milp(instance, std::move(start), inputs, o.partial, StopOnSignal::flag(), row));
  planned.linked = std::move(found.linked);
  planned.bound = found.bound;
  planned.search.found_by = format("milp ({})", found.stopped_by);
  planned.search.placement = planned.linked.placement;
  planned.lp = std::move(found.lp);
  planned.sol = std::move(found.sol);
  return {};
}

void add_milp_files(const PlanOptions& o, Planned& planned) {
  if (planned.lp.empty()) return;
  planned.files.push_back({o.out + "/ilp_model.lp", std::move(planned.lp)});
  planned.files.push_back({o.out + "/ilp_solution.sol", std::move(planned.sol)});
}

Result<Planned> plan_cluster(const PlanOptions& o) {
  ASSIGN_OR_RETURN(const ProblemAndProfile loaded, load_problem_and_profile(o.inputs));
  const plan::PlanProblem& problem = loaded.problem;
  Planned planned;
  if (o.method == "milp") {
    TRY(plan_milp(o, &problem, {}, planned));
  } else if (o.method != "auto") {
    ASSIGN_OR_RETURN(planned.linked, baseline(o.method, o, problem));
    planned.search.found_by = o.method;
  } else {
    TRY(plan_auto(o, loaded, planned));
  }
  planned.search.placement = planned.linked.placement;
  planned.report = plan::report_flow(problem, planned.linked, report_options(o, problem.size()));
  TRY(check_flow(planned.report));
  TRY(check_survival(o, planned.report));
  if (!o.out.empty()) {
    planned.files = cluster_plan_files(o.out, problem, planned.linked, planned.report);
    add_milp_files(o, planned);
  }
  return planned;
}

Result<Planned> plan_instance(const PlanOptions& o) {
  if (o.method != "auto" && o.method != "milp") {
    return errorf(Code::kInvalidArgument,
                  "--method {} needs a cluster with machine types; an instance has auto and milp",
                  o.method);
  }
  ASSIGN_OR_RETURN(const PreparedObjective objective, prepare_objective(o.objective, nullptr));
  ASSIGN_OR_RETURN(const plan::Instance instance, plan::load_instance(o.instance));
  TRY(plan::check_room(instance).context(o.instance));
  Planned planned;
  if (o.method == "milp") {
    TRY(plan_milp(o, nullptr, instance, planned));
  } else {
    planned.search = search(o, instance, {}, objective);
  }
  planned.report = plan::report_flow(instance, planned.search.placement, o.partial,
                                     report_options(o, instance.nodes()));
  TRY(check_flow(planned.report));
  TRY(check_survival(o, planned.report));
  if (!o.out.empty()) {
    planned.files =
        instance_plan_files(o.out, o.instance, planned.search.placement, planned.report);
    add_milp_files(o, planned);
  }
  return planned;
}

// Is it proved that no plan is better, by what was asked for?
bool is_optimal(const PlanOptions& o, const Planned& planned, double bound) {
  constexpr double kMet = 1e-9;
  if (o.objective.finalists > 0) return false;
  if (!o.objective.minimise.empty()) return planned.cost <= planned.least_cost * (1 + kMet);
  const bool by_flow = o.objective.objective == "flow";
  return (by_flow ? planned.report.max_flow : planned.search.worth) >= bound * (1 - kMet);
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
                            {"optimal", is_optimal(o, planned, bound)},
                            {"found_by", planned.search.found_by},
                            {"partial", o.partial},
                            {"seed", o.seed},
                            {"steps", planned.search.steps},
                            {"evaluations", planned.search.evaluations},
                            {"bottleneck", report.bottleneck}});
  if (report.units.size() <= kFailuresUpTo) json.set("n_minus_1_flow", report.n_minus_1_flow);
  json.set("objective", o.objective.finalists > 0       ? "judged"
                        : !o.objective.minimise.empty() ? o.objective.minimise
                                                        : o.objective.objective);
  if (planned.estimate) {
    const plan::ServingEstimate& e = *planned.estimate;
    json.set("estimate", Json::object({{"decode_tps", e.decode_tps},
                                       {"tokens_per_second", e.tokens},
                                       {"prompt_latency", e.prompt_latency},
                                       {"decode_latency", e.decode_latency},
                                       {"in_flight", e.in_flight}}));
  }
  if (planned.cost > 0) {
    json.set("cost", planned.cost);
    json.set("cost_bound", planned.least_cost);
  }
  if (planned.judged) {
    const plan::Verdict& verdict = planned.judged->verdict;
    json.set("judged", Json::object({{"decode_tps", verdict.decode_tps},
                                     {"prompt_latency", verdict.prompt_latency},
                                     {"decode_latency", verdict.decode_latency},
                                     {"simulations", planned.simulations}}));
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

Result<int> run_roles(const PlanOptions& o) {
  if (!o.instance.empty() || o.partial || !o.picture.empty()) {
    return Error(Code::kInvalidArgument,
                 "--objective roles needs --cluster, and does not go with --partial or --picture");
  }
  ASSIGN_OR_RETURN(const ProblemAndProfile loaded, load_problem_and_profile(o.inputs));
  TRY(plan_and_print_roles(loaded, {.lengths = o.objective.lengths,
                                    .replicas = o.objective.replicas,
                                    .seed = static_cast<uint64_t>(o.seed),
                                    .steps = o.steps,
                                    .threads = threads_of(o),
                                    .out = o.out,
                                    .json = o.json}));
  return 0;
}

// Options that would count for nothing are refused.
Result<void> check_options(const PlanOptions& o) {
  const auto refuse = [](const std::string& what) { return Error(Code::kInvalidArgument, what); };
  if (!o.instance.empty() && !o.inputs.cluster.empty()) {
    return refuse("--instance and --cluster are two problems; give one of them");
  }
  if (!o.milp.from_solution.empty() && o.method != "milp") {
    return refuse("--from-solution is read by --method milp; add that");
  }
  if (o.method != "auto") {
    const bool other = o.objective.objective != "flow" || !o.objective.minimise.empty() ||
                       o.objective.finalists > 0;
    if (other) {
      return errorf(Code::kInvalidArgument,
                    "--method {} maximises the flow; --objective, --minimise and --judge need the "
                    "method auto",
                    o.method);
    }
  }
  return o.objective.check();
}

Result<int> run(std::span<const std::string> args) {
  PlanOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  TRY(check_options(o));
  if (o.objective.objective == "roles") return run_roles(o);
  ASSIGN_OR_RETURN(Planned planned, o.instance.empty() ? plan_cluster(o) : plan_instance(o));
  if (!o.picture.empty()) {
    const bool page = o.picture.ends_with(".html");
    planned.files.push_back(
        {o.picture, page ? plan::picture_html(planned.report) : plan::picture_svg(planned.report)});
  }
  TRY(write_files(o.out, planned.files));
  if (o.json) {
    std::puts(report_json(o, planned).dump().c_str());
    return 0;
  }
  std::fputs(plan::print_report(planned.report).c_str(), stdout);
  std::fputs(format("\nmethod {}, found by {}, {} moves, {:.2f} CPU seconds\n", o.method,
                    planned.search.found_by, planned.search.steps, cpu_seconds())
                 .c_str(),
             stdout);
  const auto print_serving = [](const char* how, double rate, double first, double further) {
    std::fputs(
        format("{}: {:.1f} tokens/s decoded, {:.3f} s to the first token, {:.3f} s a token\n", how,
               rate, first, further)
            .c_str(),
        stdout);
  };
  if (planned.cost > 0) {
    std::fputs(format("cost {:.2f} an hour; no nodes for this rate cost less than {:.2f}\n",
                      planned.cost, planned.least_cost)
                   .c_str(),
               stdout);
  }
  if (planned.estimate) {
    print_serving("estimated at full load", planned.estimate->decode_tps,
                  planned.estimate->prompt_latency, planned.estimate->decode_latency);
  }
  if (planned.judged) {
    print_serving("simulated at full load", planned.judged->verdict.decode_tps,
                  planned.judged->verdict.prompt_latency, planned.judged->verdict.decode_latency);
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
