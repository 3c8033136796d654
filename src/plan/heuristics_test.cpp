// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The heuristics write the shipped layouts byte for byte.
#include "plan/heuristics.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

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
  const char* folder;    // below layouts/
  const char* solution;  // file name
  bool simulator_cluster = true;
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
    {swarm, "3cluster24", "llama2-70b", "ae_ablation/heuristics/cluster24", "swarm_sol.ini", false},
    {swarm, "cluster42", "llama2-70b", "ae_ablation/heuristics/cluster42", "swarm_sol.ini", false},
    {separate, "sub_single_a100", "llama1-30b", "ae_single_cluster/layout_llama30b/separate",
     "a100_solution_file.ini", false},
    {separate, "sub_single_l4", "llama1-30b", "ae_single_cluster/layout_llama30b/separate",
     "l4_solution_file.ini", false},
    {separate, "sub_single_t4", "llama1-30b", "ae_single_cluster/layout_llama30b/separate",
     "t4_solution_file.ini", false},
    {separate, "sub_single_a100", "llama2-70b", "ae_single_cluster/layout_llama70b/separate",
     "a100_solution_file.ini", false},
    {separate, "sub_single_l4", "llama2-70b", "ae_single_cluster/layout_llama70b/separate",
     "l4_solution_file.ini", false},
    {separate, "sub_single_t4", "llama2-70b", "ae_single_cluster/layout_llama70b/separate",
     "t4_solution_file.ini", false},
    {separate, "sub_dist_a100", "llama1-30b", "ae_distributed_clusters/layout_llama30b/heuristic",
     "a100_solution_file.ini", false},
    {separate, "sub_dist_l4", "llama1-30b", "ae_distributed_clusters/layout_llama30b/heuristic",
     "l4_solution_file.ini", false},
    {separate, "sub_dist_t4", "llama1-30b", "ae_distributed_clusters/layout_llama30b/heuristic",
     "t4_solution_file.ini", false},
};

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
    // A file written by hand may lack the line end of its last line.
    EXPECT_TRUE(made == *solution || made == *solution + "\n");
    if (!shipped.simulator_cluster) continue;
    const auto sim = read_file(folder + "simulator_cluster.ini");
    ASSERT_TRUE(sim);
    EXPECT_EQ(first_difference(print_helix_sim_cluster(to_sim_cluster(*problem, *plan)), *sim), "");
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
