// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline flow`: what a given plan can serve, and why not more.
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/plan_inputs.hpp"
#include "plan/flow_report.hpp"
#include "plan/instance.hpp"
#include "plan/picture.hpp"
#include "spec/helix_plan.hpp"
#include "spec/plan_desc.hpp"

namespace towline::cli {
namespace {

struct FlowOptions {
  PlanInputs inputs;
  std::string solution;
  std::string simulator_cluster;
  std::string instance;
  std::string plan;
  bool partial = false;
  bool skip_failures = false;
  std::string picture;
  bool json = false;
};

OptionTable table(FlowOptions& o) {
  OptionTable t("flow", "Judge a plan: maximum flow, bottleneck, spare, N-1.");
  t.describe(
      "Computes the maximum flow of tokens through a plan, ours or Helix's, with the flow of every "
      "link, the shares by which requests are spread, the minimum cut, and what is left after the "
      "failure of each node. Without --simulator-cluster every link between nodes whose layers "
      "meet is used; with it, exactly the links that the file lists.");
  o.inputs.add_to(t);
  t.value("solution", &o.solution, "the plan: plan.toml, or Helix's *_sol.ini").metavar("FILE");
  t.value("simulator-cluster", &o.simulator_cluster,
          "use exactly the links of this simulator_cluster.ini")
      .metavar("FILE");
  t.value("instance", &o.instance, "placement problem in the plain .inst format").metavar("FILE");
  t.value("plan", &o.plan, "with --instance: the placement, in the .helix format; else the same as "
                           "--solution").metavar("FILE");
  t.flag("partial", &o.partial, "partial inference: a node may take over inside its range");
  t.flag("skip-failures", &o.skip_failures, "do not compute the flow after each node's failure");
  t.value("picture", &o.picture, "draw the plan: .svg, or .html with the table").metavar("FILE");
  t.flag("json", &o.json, "print JSON");
  t.example(
      "towline flow --cluster single24.ini --profile machine_profile.ini --model llama2-70b "
      "--solution ilp_sol.ini --simulator-cluster simulator_cluster.ini");
  t.example("towline flow --instance s24.inst --plan s24.helix --json");
  return t;
}

Result<plan::FlowReport> judge_instance(const FlowOptions& o, const plan::ReportOptions& wanted) {
  if (o.plan.empty()) {
    return Error(Code::kInvalidArgument, "--instance needs the plan to judge; give --plan FILE");
  }
  ASSIGN_OR_RETURN(const plan::Instance instance, plan::load_instance(o.instance));
  ASSIGN_OR_RETURN(const plan::Placement placement, plan::load_placement(o.plan, instance));
  return plan::report_flow(instance, placement, o.partial, wanted);
}

Result<plan::FlowReport> judge_cluster(const FlowOptions& o, const plan::ReportOptions& wanted) {
  if (o.solution.empty()) {
    return Error(Code::kInvalidArgument, "no plan to judge; give --plan FILE");
  }
  ASSIGN_OR_RETURN(const plan::PlanProblem problem, load_problem(o.inputs));
  if (o.solution.ends_with(".toml") || o.solution.ends_with(".json")) {
    ASSIGN_OR_RETURN(const spec::PlanDesc native, spec::load_plan(o.solution));
    ASSIGN_OR_RETURN(const plan::LinkedPlacement linked,
                     plan::link_as_planned(problem, native).context(o.solution));
    return plan::report_flow(problem, linked, wanted);
  }
  ASSIGN_OR_RETURN(const spec::HelixSolution solution, spec::load_helix_solution(o.solution));
  ASSIGN_OR_RETURN(plan::Placement placement,
                   plan::placement_of(solution, problem).context(o.solution));
  plan::LinkedPlacement linked;
  if (o.simulator_cluster.empty()) {
    linked.arcs = plan::valid_arcs(problem, placement, o.partial);
    linked.placement = std::move(placement);
  } else {
    ASSIGN_OR_RETURN(const spec::HelixSimCluster sim,
                     spec::load_helix_sim_cluster(o.simulator_cluster));
    ASSIGN_OR_RETURN(
        linked,
        plan::link_as_listed(problem, std::move(placement), sim).context(o.simulator_cluster));
  }
  return plan::report_flow(problem, linked, wanted);
}

// A plan without a node for some layer serves nothing: that is a mistake in it.
Result<void> check_covered(const FlowOptions& o, const plan::FlowReport& report) {
  const std::vector<LayerRange> holes = plan::uncovered_layers(report);
  if (holes.empty()) return {};
  const LayerRange hole = holes.front();
  return errorf(
      Code::kInvalidArgument,
      "{}: no node holds layer{}{}; the model has {} layers: complete the plan, or make "
      "one with towline plan",
      o.instance.empty() ? o.solution : o.plan,
      hole.size() == 1 ? format(" {}", hole.begin) : format("s {} to {}", hole.begin, hole.end - 1),
      holes.size() == 1 ? "" : format(" (and {} more gaps)", holes.size() - 1), report.layers);
}

Result<int> run(std::span<const std::string> args) {
  FlowOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (o.instance.empty() && !o.plan.empty()) {
    if (!o.solution.empty()) {
      return Error(Code::kInvalidArgument,
                   "--plan and --solution both name a plan; give one of them");
    }
    o.solution = o.plan;
  }
  const plan::ReportOptions wanted{.failures = !o.skip_failures};
  ASSIGN_OR_RETURN(const plan::FlowReport report,
                   o.instance.empty() ? judge_cluster(o, wanted) : judge_instance(o, wanted));
  TRY(check_covered(o, report));
  if (!o.picture.empty()) {
    const bool page = o.picture.ends_with(".html");
    TRY(write_file_atomic(o.picture,
                          page ? plan::picture_html(report) : plan::picture_svg(report)));
  }
  const std::string text =
      o.json ? plan::report_to_json(report).dump() + "\n" : plan::print_report(report);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

const Command kFlow = {"flow", "judge a plan: maximum flow, bottleneck, spare, N-1", run,
                       [](void (*sink)(const OptionTable&)) {
                         FlowOptions o;
                         sink(table(o));
                       }};

}  // namespace towline::cli
