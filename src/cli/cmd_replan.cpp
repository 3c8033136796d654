// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline replan`: a plan for a cluster that changed, and what each node has to load.
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/plan_inputs.hpp"
#include "cli/plan_search.hpp"
#include "cli/progress.hpp"
#include "plan/flow_report.hpp"
#include "plan/plan_cluster.hpp"
#include "plan/replan.hpp"
#include "spec/helix_plan.hpp"
#include "spec/plan_desc.hpp"

namespace towline::cli {
namespace {

struct ReplanArgs {
  PlanInputs inputs;
  std::string instance;
  std::string running;
  std::vector<std::string> lost;
  std::vector<std::string> slower;
  int64_t seed = 0;
  int64_t steps = 0;
  double seconds = 0;
  double hysteresis = 0.98;
  double keep = 0.97;
  bool partial = false;
  std::string out;
  bool json = false;
};

OptionTable table(ReplanArgs& o) {
  OptionTable t("replan", "Change a running plan for a changed cluster, moving little.");
  t.describe(
      "Takes the cluster as it is now (nodes that joined, links that changed are in its file) and "
      "the plan that is running, and finds a plan of nearly the best value that makes nodes load "
      "few layers. If the running plan is still nearly as good as the best, it stays. Nodes are "
      "matched by name if the running plan is a plan.toml, else by their place in the file.");
  o.inputs.add_to(t);
  t.value("instance", &o.instance, "changed problem in the plain .inst format").metavar("FILE");
  t.value("running", &o.running,
          "the running plan: plan.toml or *_sol.ini, or .helix with --instance")
      .metavar("FILE")
      .required();
  t.value("lost", &o.lost, "nodes that are gone, by name or number");
  t.value("slower", &o.slower, "nodes that run at a part of their speed, as NODE=0.5");
  t.value("seed", &o.seed, "random seed").range(0, 9e15);
  t.value("steps", &o.steps, "search moves; 0 answers within half a second").range(0, 1e15);
  t.value("seconds", &o.seconds, "stop searching after so many seconds; 0 sets no limit")
      .range(0, 1e9);
  t.value("hysteresis", &o.hysteresis,
          "stay if the running plan still reaches this part of the best value")
      .range(0, 1);
  t.value("keep", &o.keep, "part of the best value to keep while moving less").range(0, 1);
  t.flag("partial", &o.partial, "partial inference: a node may take over inside its range");
  t.value("out", &o.out, "folder for the new plan's files").metavar("DIR");
  t.flag("json", &o.json, "print JSON");
  t.example("towline replan --instance s24.inst --running s24.helix --lost 0");
  t.example(
      "towline replan --cluster now.ini --profile machine_profile.ini --model llama2-70b "
      "--running plan/plan.toml --lost compute_node_7 --out new-plan");
  return t;
}

// The node of that name or number; of a machine with several devices, all its groups.
Result<std::vector<int32_t>> find_nodes(const plan::Instance& instance, const std::string& name) {
  std::vector<int32_t> found;
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    if (instance.name(node) == name || instance.name(node).starts_with(name + "#")) {
      found.push_back(node);
    }
  }
  for (int32_t node = 0; node < instance.nodes() && found.empty(); ++node) {
    if (std::to_string(node) == name) found.push_back(node);
  }
  if (found.empty()) {
    return errorf(
        Code::kInvalidArgument,
        "the cluster has no node '{}'; name one of its nodes, or give its number from 0 to "
        "{}",
        name, instance.nodes() - 1);
  }
  return found;
}

// Nodes that are gone keep their number and can hold nothing.
Result<void> apply_changes(const ReplanArgs& o, plan::Instance& instance) {
  for (const std::string& name : o.lost) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> nodes, find_nodes(instance, name));
    for (const int32_t node : nodes) instance.rates[node].clear();
  }
  for (const std::string& change : o.slower) {
    const size_t equals = change.rfind('=');
    const std::string number = equals == std::string::npos ? "" : change.substr(equals + 1);
    char* end = nullptr;
    const double part = std::strtod(number.c_str(), &end);
    if (number.empty() || *end != '\0' || !(part > 0 && part <= 1)) {
      return errorf(Code::kInvalidArgument,
                    "--slower '{}': write NODE=PART with a part above 0 and at most 1", change);
    }
    ASSIGN_OR_RETURN(const std::vector<int32_t> nodes,
                     find_nodes(instance, change.substr(0, equals)));
    for (const int32_t node : nodes) {
      for (double& rate : instance.rates[node]) rate *= part;
    }
  }
  return {};
}

// The problem, the running placement, and, of clusters, what moving costs.
struct Change {
  std::optional<plan::PlanProblem> problem;
  plan::Instance instance;
  plan::Placement running;
  plan::TransferCosts costs;
};

plan::TransferCosts transfer_costs(const plan::PlanProblem& problem) {
  plan::TransferCosts costs;
  costs.layer_bytes = problem.model.layer_bytes;
  const auto units = static_cast<size_t>(problem.size());
  for (int32_t unit = 0; unit < problem.size(); ++unit) {
    costs.disk.push_back(problem.machine(unit).disk.value);
  }
  costs.links.assign(units * units, 0);
  for (const plan::PlanArc& arc : problem.arcs) {
    if (arc.from >= 0 && arc.to >= 0) costs.links[arc.from * units + arc.to] = arc.bandwidth;
  }
  return costs;
}

// Of a plan.toml, by the names of its nodes: those that the cluster no longer has are lost, those
// that the plan does not name have joined. Of a *_sol.ini, by number:
// joined nodes stand at the end.
Result<plan::Placement> running_placement(const std::string& path,
                                          const plan::PlanProblem& problem) {
  if (path.ends_with(".toml") || path.ends_with(".json")) {
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, spec::load_plan(path));
    if (plan.layers != problem.model.layers) {
      return errorf(Code::kInvalidArgument, "{}: the plan is for {} layers, the model has {}", path,
                    plan.layers, problem.model.layers);
    }
    plan::Placement placement;
    for (int32_t unit = 0; unit < problem.size(); ++unit) {
      const spec::PlannedNode* node = plan.find(problem.unit_name(unit));
      placement.nodes.push_back(node != nullptr ? node->layers : LayerRange{});
    }
    return placement;
  }
  ASSIGN_OR_RETURN(spec::HelixSolution solution, spec::load_helix_solution(path));
  const auto units = static_cast<size_t>(problem.size());
  if (solution.nodes.size() < units) solution.nodes.resize(units);
  return plan::placement_of(solution, problem).context(path);
}

Result<Change> load_change(const ReplanArgs& o) {
  Change change;
  if (!o.instance.empty()) {
    ASSIGN_OR_RETURN(change.instance, plan::load_instance(o.instance));
    ASSIGN_OR_RETURN(change.running, plan::load_placement(o.running, change.instance));
    change.costs.layer_bytes = Bytes(0);
  } else {
    ASSIGN_OR_RETURN(change.problem, load_problem(o.inputs));
    change.instance = plan::to_instance(*change.problem);
    ASSIGN_OR_RETURN(change.running, running_placement(o.running, *change.problem));
    change.costs = transfer_costs(*change.problem);
  }
  for (const std::string& name : o.lost) {  // what is gone gives no weights either
    ASSIGN_OR_RETURN(const std::vector<int32_t> nodes, find_nodes(change.instance, name));
    for (const int32_t node : nodes) change.running.nodes[node] = {};
  }
  TRY(apply_changes(o, change.instance));
  return change;
}

Json report_json(const ReplanArgs& o, const Change& change, const plan::ReplanResult& result,
                 const std::vector<plan::Transition>& list) {
  Json moves = Json::array();
  for (const plan::Transition& t : list) {
    moves.push(Json::object({{"node", change.instance.name(t.node)},
                             {"begin", t.load.begin},
                             {"end", t.load.end},
                             {"from", t.from < 0 ? "disk" : change.instance.name(t.from)},
                             {"bytes", t.bytes.value},
                             {"seconds", t.seconds}}));
  }
  return Json::object({{"max_flow", result.flow},
                       {"flow_before", result.flow_before},
                       {"best_flow", result.best_flow},
                       {"upper_bound", result.bound},
                       {"stays", result.stays},
                       {"moved_layers", result.moved_layers},
                       {"moved_layers_of_best", result.best_moved_layers},
                       {"moved_bytes", result.moved_layers * change.costs.layer_bytes.value},
                       {"seed", o.seed},
                       {"transitions", std::move(moves)},
                       {"cpu_seconds", cpu_seconds()}});
}

void print_people(const Change& change, const plan::ReplanResult& result,
                  const std::vector<plan::Transition>& list) {
  std::fputs(format("flow: {:.3f} tokens/s now, {:.3f} with the new plan, {:.3f} with the best, "
                    "bound {:.3f}\n",
                    result.flow_before, result.flow, result.best_flow, result.bound)
                 .c_str(),
             stdout);
  if (result.stays) {
    std::fputs("the running plan stays\n", stdout);
    return;
  }
  std::fputs(format("{} layers to load (the best plan: {})\n", result.moved_layers,
                    result.best_moved_layers)
                 .c_str(),
             stdout);
  for (const plan::Transition& t : list) {
    std::fputs(format("  {:<20} loads [{}, {}) from {:<20} {:>12} {:>9.2f} s\n",
                      change.instance.name(t.node), t.load.begin, t.load.end,
                      t.from < 0 ? "disk" : change.instance.name(t.from),
                      format_bytes(t.bytes.value), t.seconds)
                   .c_str(),
               stdout);
  }
}

std::vector<OutputFile> plan_files(const ReplanArgs& o, const Change& change,
                                   const plan::ReplanResult& result) {
  if (!change.problem) {
    return instance_plan_files(o.out, o.instance, result.placement,
                               plan::report_flow(change.instance, result.placement, o.partial));
  }
  const plan::LinkedPlacement linked =
      plan::link_all(*change.problem, result.placement, o.partial, "replan");
  return cluster_plan_files(o.out, *change.problem, linked,
                            plan::report_flow(*change.problem, linked));
}

Result<int> run(std::span<const std::string> args) {
  ReplanArgs o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const Change change, load_change(o));
  TRY(plan::check_room(change.instance));
  plan::ReplanOptions options;
  options.search.seed = static_cast<uint64_t>(o.seed);
  options.search.steps = o.steps;
  options.search.partial = o.partial;
  options.search.stop = StopOnSignal::flag();
  options.search.threads = static_cast<int>(std::thread::hardware_concurrency());
  options.hysteresis = o.hysteresis;
  options.keep = o.keep;
  plan::ReplanResult result;
  {
    const StopOnSignal guard(o.seconds);
    result = plan::replan(change.instance, change.running, options);
  }
  if (result.flow <= 0) {
    return errorf(Code::kInvalidArgument,
                  "no plan of the changed cluster passes any flow (upper bound {:.3f} tokens/s); "
                  "add links or nodes",
                  result.bound);
  }
  const std::vector<plan::Transition> list =
      plan::transitions(change.running, result.placement, change.costs);
  if (!o.out.empty()) TRY(write_files(o.out, plan_files(o, change, result)));
  if (o.json) {
    std::puts(report_json(o, change, result, list).dump().c_str());
  } else {
    print_people(change, result, list);
  }
  return 0;
}

}  // namespace

const Command kReplan = {"replan", "change a running plan for a changed cluster", run,
                         [](void (*sink)(const OptionTable&)) {
                           ReplanArgs o;
                           sink(table(o));
                         }};

}  // namespace towline::cli
