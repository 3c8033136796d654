// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Cluster, profile and plan files: the first byte chooses the format, the rest is the file. What is
// accepted must print to a text that reads back and prints the same.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/json.hpp"
#include "plan/milp.hpp"
#include "plan/problem.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/helix_cluster.hpp"
#include "spec/helix_plan.hpp"
#include "spec/profile.hpp"

namespace {

using namespace towline;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "cluster_files_fuzz: %s\n", what);
  std::abort();
}

template <class Parse, class Print>
void round_trip(std::string_view text, Parse parse, Print print) {
  const auto first = parse(text, "input");
  if (!first) {
    require(!first.error().message().empty(), "an error without a message");
    return;
  }
  const std::string printed = print(*first);
  const auto second = parse(printed, "printed");
  require(second.has_value(), "what was printed does not read");
  require(print(*second) == printed, "printing again gives another text");
}

template <class Parse>
auto from_json(Parse parse) {
  return
      [parse](std::string_view text, std::string_view source) -> decltype(parse(Json(), source)) {
        Result<Json> tree = parse_json(text, source);
        if (!tree) return std::move(tree).error();
        return parse(*tree, source);
      };
}

// A cluster that reads must also be safe to plan on.
void plan_on(std::string_view text) {
  const auto tree = parse_toml(text, "input");
  if (!tree) return;
  const auto cluster = spec::parse_cluster(*tree, "input");
  if (!cluster || cluster->size() > 64) return;
  static const auto profile = spec::builtin_profile("llama1-30b");
  const auto problem = plan::make_problem(*cluster, *profile);
  if (!problem) return;
  const plan::Instance instance = plan::to_instance(*problem);
  require(plan::validate(instance).has_value(), "a problem makes an invalid instance");
}

void read_solution(std::string_view text) {
  plan::Instance instance;
  instance.layers = 2;
  instance.rates = {{10, 4}, {8, 3}};
  instance.links = {{plan::kSource, 0, 100}, {0, 1, 100}, {1, plan::kSink, 100}};
  static const auto model = plan::build_milp(instance, {});
  const auto values = plan::parse_sol(*model, text, "input");
  if (values) require(plan::placement_of(*model, *values).nodes.size() == 2, "a node is missing");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 9) {
    case 0: round_trip(text, spec::parse_helix_cluster, spec::print_helix_cluster); break;
    case 1: round_trip(text, spec::parse_helix_machines, spec::print_helix_machines); break;
    case 2: round_trip(text, spec::parse_helix_solution, spec::print_helix_solution); break;
    case 3: round_trip(text, spec::parse_helix_sim_cluster, spec::print_helix_sim_cluster); break;
    case 4: round_trip(text, spec::parse_helix_real_system, spec::print_helix_real_system); break;
    case 5:
      round_trip(text, from_json(spec::parse_cluster), [](const spec::ClusterDesc& cluster) {
        return spec::cluster_to_json(cluster).dump();
      });
      break;
    case 6:
      round_trip(text, from_json(spec::parse_profile), [](const spec::Profile& profile) {
        return spec::profile_to_json(profile).dump();
      });
      break;
    case 7: plan_on(text); break;
    default: read_solution(text); break;
  }
  return 0;
}
