// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What planning does with what it reads: the first byte chooses, the rest is text.
//   p  plan.toml           q  profile.toml          c  cluster.toml: read, print, read the same
//   g  latency goals
//   i  an instance: bounds, search, evaluator, report and replan must agree with one another
//   w  a cluster, a line "---", a profile: every heuristic, the search, roles, served rate, copies
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/json.hpp"
#include "plan/auto.hpp"
#include "plan/bounds.hpp"
#include "plan/flow_report.hpp"
#include "plan/heuristics.hpp"
#include "plan/objectives.hpp"
#include "plan/replan.hpp"
#include "plan/roles.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/plan_desc.hpp"
#include "spec/profile.hpp"

namespace {

using namespace towline;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "planning_fuzz: %s\n", what);
  std::abort();
}

bool at_most(double a, double b) { return a <= b * (1 + 1e-6) + 1e-6; }

template <class Parse, class Print>
void round_trip(std::string_view text, Parse parse, Print print) {
  const auto tree = parse_toml(text, "input");
  if (!tree) return;
  const auto first = parse(*tree, "input");
  if (!first) {
    require(!first.error().message().empty(), "an error without a message");
    return;
  }
  const std::string printed = print(*first);
  const auto again = parse_toml(printed, "printed");
  require(again.has_value(), "what was printed is no TOML");
  const auto second = parse(*again, "printed");
  require(second.has_value(), "what was printed does not read");
  require(print(*second) == printed, "printing again gives another text");
}

bool small(const plan::Instance& instance) {
  return instance.nodes() <= 8 && instance.layers <= 40 && instance.links.size() <= 200;
}

plan::SearchOptions few_steps(bool partial) {
  plan::SearchOptions options;
  options.steps = 200;
  options.partial = partial;
  return options;
}

void search_and_check(const plan::Instance& instance, bool partial) {
  const plan::SearchResult found = plan::search_placement(instance, few_steps(partial));
  require(plan::validate(found.placement, instance).has_value(), "the search's plan is not valid");
  require(at_most(found.flow, found.bound), "the flow exceeds the bound");
  require(at_most(found.bound, plan::capacity_bound(instance)), "the bounds are out of order");
  const plan::FlowReport report = plan::report_flow(instance, found.placement, partial);
  require(at_most(report.max_flow, found.flow) && at_most(found.flow, report.max_flow),
          "report and search differ in the flow");
  require(at_most(report.n_minus_1_flow, report.max_flow), "a failure raises the flow");
  plan::Instance changed = instance;
  if (changed.nodes() > 0) changed.rates[0].clear();
  plan::ReplanOptions options;
  options.search.steps = 100;
  options.search.partial = partial;
  const plan::ReplanResult next = plan::replan(changed, found.placement, options);
  require(plan::validate(next.placement, changed).has_value(), "the new plan is not valid");
  require(at_most(next.flow, next.bound), "the new flow exceeds the bound");
}

void plan_everything(std::string_view text) {
  const size_t split = text.find("---\n");
  if (split == std::string_view::npos) return;
  const auto cluster_tree = parse_toml(text.substr(0, split), "cluster");
  const auto profile_tree = parse_toml(text.substr(split + 4), "profile");
  if (!cluster_tree || !profile_tree) return;
  const auto cluster = spec::parse_cluster(*cluster_tree, "cluster");
  const auto profile = spec::parse_profile(*profile_tree, "profile");
  if (!cluster || !profile || cluster->size() > 8) return;
  const auto problem = plan::make_problem(*cluster, *profile);
  if (!problem) return;
  const plan::Instance instance = plan::to_instance(*problem);
  require(plan::validate(instance).has_value(), "a problem makes an invalid instance");
  if (!small(instance)) return;
  for (const auto method :
       {plan::petals, plan::swarm, plan::homogeneous, plan::separate, plan::separate_plus}) {
    const auto made = method(*problem, {});
    if (!made) {
      require(!made.error().message().empty(), "an error without a message");
      continue;
    }
    const plan::FlowReport report = plan::report_flow(*problem, *made);
    if (!plan::validate(made->placement, instance)) continue;  // it exceeds the memory rule
    require(at_most(report.max_flow, report.upper_bound), "a heuristic exceeds the bound");
  }
  if (!plan::check_capacity(*problem)) return;
  search_and_check(instance, false);
  plan::ServingModel model = plan::make_serving_model(*problem, *profile, {});
  for (const double copies : {0.0, 1.0}) {
    if (copies > 0) plan::replicate(model, *problem, copies, 4096);
    plan::SearchOptions options = few_steps(false);
    options.worth = plan::worth_of({.goal = plan::Goal::kServed, .model = &model});
    const plan::SearchResult served = plan::search_placement(instance, options);
    require(std::isfinite(served.worth) && at_most(served.worth, served.flow),
            "more is served than flows");
  }
  const auto roles = plan::plan_roles(*problem, model, {.steps = 100});
  require(!roles || std::isfinite(roles->requests), "roles serve no number of requests");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 20'000) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'p': round_trip(text, spec::parse_plan, spec::print_plan); break;
    case 'q': round_trip(text, spec::parse_profile, spec::profile_to_toml); break;
    case 'c': round_trip(text, spec::parse_cluster, spec::print_cluster); break;
    case 'g': {
      const auto goals = plan::parse_latency_goals(text);
      require(!goals || (std::isfinite(goals->ttft) && std::isfinite(goals->tpot)),
              "a goal that is no number");
      break;
    }
    case 'i': {
      const auto instance = plan::parse_instance(text, "fuzz.inst");
      if (!instance || !small(*instance)) return 0;
      search_and_check(*instance, false);
      search_and_check(*instance, true);
      break;
    }
    case 'w': plan_everything(text); break;
    default: break;
  }
  return 0;
}
