// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The heuristics write the shipped layouts byte for byte.
#include "plan/heuristics.hpp"

#include <gtest/gtest.h>

#include "base/file.hpp"
#include "base/for_seeds.hpp"
#include "plan/flow_report.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

using Method = Result<LinkedPlacement> (*)(const PlanProblem&, const HeuristicOptions&);

struct Shipped {
  Method method;
  const char* cluster;
  const char* model;
  const char* folder;                                       // below layouts/
  const char* solution;                                     // file name
  const char* simulator_cluster = "simulator_cluster.ini";  // nullptr: there is none
  bool kv_by_hand = false;  // its KV capacities were written by hand
};

const Shipped kShipped[] = {
    {petals, "single24", "llama2-70b", "example_single24_70b/petals", "petals_sol.ini"},
    {swarm, "single24", "llama2-70b", "example_single24_70b/swarm", "swarm_sol.ini"},
    {homogeneous, "single24", "llama2-70b", "example_single24_70b/homogeneous",
     "homogeneous_sol.ini"},
    {petals, "single24", "llama2-70b", "ae_single_cluster/layout_llama70b/petals",
     "petals_sol.ini"},
    {swarm, "single24", "llama2-70b", "ae_single_cluster/layout_llama70b/swarm", "swarm_sol.ini"},
    {petals, "single24", "llama1-30b", "ae_single_cluster/layout_llama30b/petals",
     "petals_sol.ini"},
    {swarm, "single24", "llama1-30b", "ae_single_cluster/layout_llama30b/swarm", "swarm_sol.ini"},
    {petals, "3cluster24", "llama2-70b", "ae_distributed_clusters/layout_llama70b/petals",
     "petals_sol.ini"},
    {swarm, "3cluster24", "llama2-70b", "ae_distributed_clusters/layout_llama70b/swarm",
     "swarm_sol.ini"},
    {petals, "3cluster24", "llama1-30b", "ae_distributed_clusters/layout_llama30b/petals",
     "petals_sol.ini"},
    {swarm, "3cluster24", "llama1-30b", "ae_distributed_clusters/layout_llama30b/swarm",
     "swarm_sol.ini"},
    {petals, "single24", "llama2-70b", "ae_model_placement/layout_single/petals", "petals_sol.ini"},
    {swarm, "single24", "llama2-70b", "ae_model_placement/layout_single/swarm", "swarm_sol.ini"},
    {petals, "3cluster24", "llama2-70b", "ae_model_placement/layout_distributed/petals",
     "petals_sol.ini"},
    {swarm, "3cluster24", "llama2-70b", "ae_model_placement/layout_distributed/swarm",
     "swarm_sol.ini"},
    {swarm, "3cluster24", "llama2-70b", "ae_ablation/heuristics/cluster24", "swarm_sol.ini",
     nullptr},
    {swarm, "cluster42", "llama2-70b", "ae_ablation/heuristics/cluster42", "swarm_sol.ini",
     nullptr},
    {separate, "sub_single_a100", "llama1-30b", "ae_single_cluster/layout_llama30b/separate",
     "a100_solution_file.ini", "a100_simulator_cluster.ini"},
    {separate, "sub_single_l4", "llama1-30b", "ae_single_cluster/layout_llama30b/separate",
     "l4_solution_file.ini", "l4_simulator_cluster.ini"},
    {separate, "sub_single_t4", "llama1-30b", "ae_single_cluster/layout_llama30b/separate",
     "t4_solution_file.ini", "t4_simulator_cluster.ini"},
    {separate, "sub_single_a100", "llama2-70b", "ae_single_cluster/layout_llama70b/separate",
     "a100_solution_file.ini", "a100_simulator_cluster.ini", true},
    {separate, "sub_single_l4", "llama2-70b", "ae_single_cluster/layout_llama70b/separate",
     "l4_solution_file.ini", "l4_simulator_cluster.ini", true},
    {separate, "sub_single_t4", "llama2-70b", "ae_single_cluster/layout_llama70b/separate",
     "t4_solution_file.ini", "t4_simulator_cluster.ini", true},
    {separate, "sub_dist_a100", "llama1-30b", "ae_distributed_clusters/layout_llama30b/heuristic",
     "a100_solution_file.ini", nullptr},
    {separate, "sub_dist_l4", "llama1-30b", "ae_distributed_clusters/layout_llama30b/heuristic",
     "l4_solution_file.ini", nullptr},
    {separate, "sub_dist_t4", "llama1-30b", "ae_distributed_clusters/layout_llama30b/heuristic",
     "t4_solution_file.ini", nullptr},
};

// Without the lines of KV capacity, if `drop`; a file written by hand
// may also lack its last line end.
std::string comparable(const std::string& text, bool drop) {
  std::string kept;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    if (!drop || !line.starts_with("kv_cache_capacity=")) kept += line + "\n";
    at = end + 1;
  }
  while (kept.ends_with("\n\n")) kept.pop_back();
  return kept;
}

TEST(Heuristics, WriteTheShippedFiles) {
  NEEDS_SHARED_DATA();
  for (const Shipped& shipped : kShipped) {
    SCOPED_TRACE(std::string(shipped.folder) + "/" + shipped.solution);
    const auto problem = helix_problem(shipped.cluster, shipped.model);
    ASSERT_TRUE(problem) << problem.error().to_string();
    const auto plan = shipped.method(*problem, {});
    ASSERT_TRUE(plan) << plan.error().to_string();
    const std::string folder = helix_folder() + "/layouts/" + shipped.folder + "/";
    const auto solution = read_file(folder + shipped.solution);
    ASSERT_TRUE(solution);
    const std::string made = print_helix_solution(to_helix_solution(plan->placement));
    EXPECT_TRUE(made == *solution || made == *solution + "\n");
    if (shipped.simulator_cluster == nullptr) continue;
    const auto sim = read_file(folder + shipped.simulator_cluster);
    ASSERT_TRUE(sim);
    const std::string made_sim = print_helix_sim_cluster(to_sim_cluster(*problem, *plan));
    const bool by_hand = shipped.method == separate;
    EXPECT_EQ(first_difference(by_hand ? comparable(made_sim, shipped.kv_by_hand) : made_sim,
                               by_hand ? comparable(*sim, shipped.kv_by_hand) : *sim),
              "");
  }
}

TEST(Heuristics, CoverTheModelAndRespectTheMemory) {
  for_seeds(60, [](Rng& rng) {
    const PlanProblem problem = random_problem(rng, static_cast<int32_t>(rng.between(3, 12)));
    for (const Method method : {petals, swarm, homogeneous}) {
      const auto plan = method(problem, {});
      if (!plan) {  // a cluster that a method cannot use: it says so
        EXPECT_EQ(exit_code(plan.error().code()), 2) << plan.error().to_string();
        continue;
      }
      const FlowReport report = report_flow(problem, *plan, {.failures = false});
      EXPECT_LE(report.max_flow, report.upper_bound * (1 + 1e-9));
      for (int32_t u = 0; u < problem.size(); ++u) {
        EXPECT_LE(plan->placement.nodes[u].size(), problem.max_layers(u));
      }
      const bool complete = method == swarm || (method == homogeneous && !plan->written.empty());
      EXPECT_TRUE(!complete || uncovered_layers(report).empty());
      EXPECT_TRUE(!complete || report.max_flow > 0);
    }
  });
}

// The published pipeline of left-over types: V100 and T4, five layers each; the types that hold the
// model alone as under `separate`.
TEST(Heuristics, SeparatePlusPoolsWhatCannotHoldTheModelAlone) {
  NEEDS_SHARED_DATA();
  const auto problem = helix_problem("cluster42", "llama2-70b");
  ASSERT_TRUE(problem) << problem.error().to_string();
  const auto alone = separate(*problem, {});
  const auto plus = separate_plus(*problem, {});
  ASSERT_TRUE(alone);
  ASSERT_TRUE(plus);
  int32_t next = 0;  // layer of the pooled pipeline
  for (const std::string type : {"V100", "T4"}) {
    for (int32_t u = 0; u < problem->size(); ++u) {
      if (problem->table(u).type != type) continue;
      EXPECT_TRUE(alone->placement.nodes[u].empty());
      EXPECT_EQ(plus->placement.nodes[u], (LayerRange{next, next + 5}));
      next += 5;
    }
  }
  EXPECT_EQ(next, 80);
  int32_t held = 0;
  for (int32_t u = 0; u < problem->size(); ++u) {
    if (alone->placement.nodes[u].empty()) continue;
    EXPECT_EQ(alone->placement.nodes[u], plus->placement.nodes[u]);
    held += alone->placement.nodes[u].size();
  }
  EXPECT_EQ(held, 5 * 80);  // A100, L4, L4x2, T4x2, T4x4
  EXPECT_GT(report_flow(*problem, *plus).max_flow, report_flow(*problem, *alone).max_flow);
}

TEST(Heuristics, SayThatNoTypeHoldsTheModel) {
  NEEDS_SHARED_DATA();
  auto problem = helix_problem("cluster10", "llama2-70b");
  ASSERT_TRUE(problem);
  for (const Method method : {separate, separate_plus}) {
    const auto plan = method(*problem, {});
    ASSERT_FALSE(plan);
    EXPECT_NE(plan.error().to_string().find("no machine type can hold the 80 layers"),
              std::string::npos);
  }
}

TEST(Heuristics, SayWhichLinkIsMissing) {
  NEEDS_SHARED_DATA();
  const auto problem = helix_problem("3cluster24_pruned12", "llama2-70b");
  ASSERT_TRUE(problem);
  const auto plan = swarm(*problem, {});
  ASSERT_FALSE(plan);
  EXPECT_NE(plan.error().to_string().find("needs a link from"), std::string::npos);
  const auto stages = swarm(*problem, {.stages = 7});
  ASSERT_FALSE(stages);
  EXPECT_NE(stages.error().to_string().find("7 stages do not divide"), std::string::npos);
}

}  // namespace
}  // namespace towline::plan
