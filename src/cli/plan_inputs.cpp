// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_inputs.hpp"

#include "base/fmt.hpp"

namespace towline::cli {
namespace {

bool is_native(const std::string& path) {
  return path.ends_with(".toml") || path.ends_with(".json");
}

Result<spec::Profile> load_tables(const PlanInputs& inputs) {
  const std::string path = !inputs.tables.empty()      ? inputs.tables
                           : is_native(inputs.profile) ? inputs.profile
                                                       : "";
  if (path.empty()) {
    if (inputs.model.empty()) {
      return Error(
          Code::kInvalidArgument,
          "no model: give --model llama2-70b (or another built-in name), or a profile with "
          "tables");
    }
    return spec::builtin_profile(inputs.model);
  }
  ASSIGN_OR_RETURN(spec::Profile profile, spec::load_profile(path));
  if (!inputs.model.empty() && inputs.model != profile.model.name) {
    return errorf(Code::kInvalidArgument,
                  "the tables of '{}' are for the model '{}', not for '{}'; give tables of that "
                  "model or leave --model out",
                  path, profile.model.name, inputs.model);
  }
  return profile;
}

}  // namespace

void PlanInputs::add_to(OptionTable& table) {
  table.value("cluster", &cluster, "cluster: native .toml or .json, or Helix's .ini")
      .metavar("FILE");
  table
      .value("profile", &profile,
             "machines: Helix's machine_profile.ini, or a native profile with tables of speeds")
      .metavar("FILE");
  table.value("model", &model, "model whose tables are built in: llama1-30b or llama2-70b")
      .metavar("NAME");
  table.value("tables", &tables, "tables of speeds (native profile) beside a machine_profile.ini")
      .metavar("FILE");
}

Result<ProblemAndProfile> load_problem_and_profile(const PlanInputs& inputs) {
  if (inputs.cluster.empty()) {
    return Error(Code::kInvalidArgument, "no cluster: give --cluster FILE (or --instance FILE)");
  }
  const std::string machines = is_native(inputs.profile) ? "" : inputs.profile;
  ASSIGN_OR_RETURN(spec::ClusterDesc cluster, spec::load_any_cluster(inputs.cluster, machines));
  ASSIGN_OR_RETURN(spec::Profile profile, load_tables(inputs));
  ASSIGN_OR_RETURN(plan::PlanProblem problem,
                   plan::make_problem(std::move(cluster), profile).context(inputs.cluster));
  return ProblemAndProfile{std::move(problem), std::move(profile)};
}

Result<plan::PlanProblem> load_problem(const PlanInputs& inputs) {
  ASSIGN_OR_RETURN(ProblemAndProfile loaded, load_problem_and_profile(inputs));
  return std::move(loaded.problem);
}

}  // namespace towline::cli
