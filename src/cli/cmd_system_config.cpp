// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline system-config`: Helix's real_sys_config.txt from a plan, and a plan from it.
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "spec/helix_plan.hpp"
#include "spec/plan_desc.hpp"

namespace towline::cli {
namespace {

struct SystemConfigOptions {
  std::string from, solution, simulator_cluster, host, out;
  std::vector<std::string> addresses;
};

OptionTable table(SystemConfigOptions& o) {
  OptionTable t("system-config", "Convert between a plan and Helix's real_sys_config.txt.");
  t.describe(
      "With --solution and --simulator-cluster: writes the configuration that Helix's prototype "
      "distributes, byte for byte as its own tool does. Addresses are taken per machine type in "
      "the order of the nodes; all must be used. With --from: reads such a file and writes the "
      "placement and its links as a plan (TOML), for towline flow, simulate and up.");
  t.value("from", &o.from, "real_sys_config.txt to read");
  t.value("solution", &o.solution, "Helix's solution file (*_sol.ini)");
  t.value("simulator-cluster", &o.simulator_cluster, "the simulator_cluster.ini beside it");
  t.value("host", &o.host, "the coordinator's address");
  t.value("address", &o.addresses, "TYPE=ADDRESS, once for every machine, e.g. T4=10.128.0.16");
  t.value("out", &o.out, "file to write; empty: standard output");
  t.example("towline system-config --solution ilp_sol.ini "
            "--simulator-cluster simulator_cluster.ini --host 10.0.0.1 --address A100=10.0.0.2");
  t.example("towline system-config --from real_sys_config.txt --out plan.toml");
  return t;
}

Result<spec::HelixAddresses> parse_addresses(const SystemConfigOptions& o) {
  spec::HelixAddresses addresses;
  addresses.host = o.host;
  for (const std::string& word : o.addresses) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == word.size()) {
      return errorf(Code::kInvalidArgument,
                    "--address '{}' is not TYPE=ADDRESS, such as T4=10.128.0.16", word);
    }
    const std::string type = word.substr(0, equals);
    auto list = addresses.by_type.begin();
    while (list != addresses.by_type.end() && list->first != type) ++list;
    if (list == addresses.by_type.end()) list = addresses.by_type.insert(list, {type, {}});
    list->second.push_back(word.substr(equals + 1));
  }
  return addresses;
}

std::string node_name(int32_t machine) {  // machine i is Helix's compute node i + 1
  return machine == 0 ? "" : format("compute_node_{}", machine + 1);
}

Result<spec::PlanDesc> plan_of(const spec::HelixRealSystem& system, const std::string& source) {
  spec::PlanDesc plan;
  plan.method = "real_sys_config";
  for (const spec::HelixRealSystem::Machine& machine : system.machines) {
    if (machine.id != 0) {
      plan.nodes.push_back({node_name(machine.id), {machine.start_layer, machine.end_layer}, {}});
      plan.layers = std::max(plan.layers, machine.end_layer);
    }
    for (const int32_t to : machine.out_nodes) {
      plan.links.push_back({machine.id == 0 ? "source" : node_name(machine.id),
                            to == 0 ? "sink" : node_name(to), {}, {}, 0});
    }
  }
  TRY(spec::validate(plan).context(source));
  return plan;
}

Result<std::string> convert(const SystemConfigOptions& o) {
  if (!o.from.empty()) {
    ASSIGN_OR_RETURN(const spec::HelixRealSystem system, spec::load_helix_real_system(o.from));
    ASSIGN_OR_RETURN(const spec::PlanDesc plan, plan_of(system, o.from));
    return spec::print_plan(plan);
  }
  if (o.solution.empty() || o.simulator_cluster.empty() || o.host.empty()) {
    return errorf(Code::kInvalidArgument,
                  "give --from, or --solution, --simulator-cluster, --host and --address");
  }
  ASSIGN_OR_RETURN(const spec::HelixSolution solution, spec::load_helix_solution(o.solution));
  ASSIGN_OR_RETURN(const spec::HelixSimCluster cluster,
                   spec::load_helix_sim_cluster(o.simulator_cluster));
  ASSIGN_OR_RETURN(const spec::HelixAddresses addresses, parse_addresses(o));
  ASSIGN_OR_RETURN(const spec::HelixRealSystem system,
                   spec::make_helix_real_system(cluster, solution, addresses));
  return spec::print_helix_real_system(system);
}

Result<int> run(std::span<const std::string> args) {
  SystemConfigOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const std::string text, convert(o));
  if (o.out.empty()) {
    std::fputs(text.c_str(), stdout);
  } else {
    TRY(write_file_atomic(o.out, text));
  }
  return 0;
}

}  // namespace

const Command kSystemConfig = {"system-config",
                               "convert between a plan and Helix's real_sys_config.txt", run,
                               [](void (*sink)(const OptionTable&)) {
                                 SystemConfigOptions o;
                                 sink(table(o));
                               }};

}  // namespace towline::cli
