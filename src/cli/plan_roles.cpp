// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_roles.hpp"

#include <cstdio>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "cli/plan_judge.hpp"
#include "cli/plan_search.hpp"
#include "plan/flow_report.hpp"
#include "plan/roles.hpp"

namespace towline::cli {
namespace {

const LayerRange& layers_of(const plan::RolePlan& roles, size_t node) {
  return (roles.decodes[node] ? roles.decode : roles.prompt).nodes[node];
}

const char* role_of(const plan::RolePlan& roles, size_t node) {
  if (layers_of(roles, node).empty()) return "idle";
  return roles.decodes[node] ? "decode" : "prompt";
}

Json roles_json(const plan::PlanProblem& problem, const plan::RolePlan& roles) {
  Json nodes = Json::array();
  for (size_t i = 0; i < roles.decodes.size(); ++i) {
    const LayerRange layers = layers_of(roles, i);
    nodes.push(Json::object({{"name", problem.unit_name(static_cast<int32_t>(i))},
                             {"role", role_of(roles, i)},
                             {"begin", layers.empty() ? 0 : layers.begin},
                             {"end", layers.empty() ? 0 : layers.end}}));
  }
  return Json::object({{"method", "auto"},
                       {"objective", "roles"},
                       {"requests_per_second", roles.requests},
                       {"prompt_flow", roles.prompt_flow},
                       {"decode_flow", roles.decode_flow},
                       {"transfer_requests_per_second", roles.transfer},
                       {"cpu_seconds", cpu_seconds()},
                       {"nodes", std::move(nodes)}});
}

void print_people(const plan::PlanProblem& problem, const plan::RolePlan& roles) {
  std::string text = format(
      "{:.4f} requests/s: prompt nodes take {:.1f} tokens/s, decode nodes {:.1f}; the links carry "
      "the KV cache of {:.4g} requests/s across\n\n{:<20} {:<8} {:<8} {}\n",
      roles.requests, roles.prompt_flow, roles.decode_flow, roles.transfer, "node", "type", "role",
      "layers");
  for (size_t i = 0; i < roles.decodes.size(); ++i) {
    const auto unit = static_cast<int32_t>(i);
    const LayerRange layers = layers_of(roles, i);
    text += format("{:<20} {:<8} {:<8} {}\n", problem.unit_name(unit), problem.table(unit).type,
                   role_of(roles, i),
                   layers.empty() ? "-" : format("{}..{}", layers.begin, layers.end - 1));
  }
  std::fputs(text.c_str(), stdout);
}

}  // namespace

Result<void> plan_and_print_roles(const ProblemAndProfile& loaded, const RoleRequest& request) {
  TRY(plan::check_capacity(loaded.problem));
  ObjectiveInputs inputs;  // the model of serving is that of the estimate
  inputs.objective = "served";
  inputs.lengths = request.lengths;
  inputs.replicas = request.replicas;
  ASSIGN_OR_RETURN(const PreparedObjective prepared, prepare_objective(inputs, &loaded));
  plan::RoleOptions options;
  options.seed = request.seed;
  if (request.steps > 0) options.steps = request.steps;
  options.threads = request.threads;
  options.kv_bytes_per_token_layer = loaded.kv_bytes;
  ASSIGN_OR_RETURN(const plan::RolePlan roles,
                   plan::plan_roles(loaded.problem, *prepared.model, options));
  if (!request.out.empty()) {
    const plan::Instance prompt = plan::prompt_instance(loaded.problem, *prepared.model);
    const plan::Instance decode = plan::decode_instance(loaded.problem, *prepared.model);
    TRY(write_files(request.out + "/prompt",
                    instance_plan_files(request.out + "/prompt", "prompt", roles.prompt,
                                        plan::report_flow(prompt, roles.prompt, false))));
    TRY(write_files(request.out + "/decode",
                    instance_plan_files(request.out + "/decode", "decode", roles.decode,
                                        plan::report_flow(decode, roles.decode, false))));
  }
  if (request.json) {
    std::puts(roles_json(loaded.problem, roles).dump().c_str());
  } else {
    print_people(loaded.problem, roles);
  }
  return {};
}

}  // namespace towline::cli
