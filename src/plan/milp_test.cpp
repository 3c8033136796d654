// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/milp.hpp"

#include <gtest/gtest.h>

#include "base/file.hpp"
#include "base/for_seeds.hpp"
#include "plan/auto.hpp"
#include "plan/flow_report.hpp"
#include "plan/heuristics.hpp"
#include "plan/sample_instances.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

TEST(Milp, HasTheSizeOfTheReference) {
  NEEDS_SHARED_DATA();
  struct Size {
    const char* cluster;
    const char* model;
    size_t rows, columns;
    bool remove_redundant = true;
  };
  const Size sizes[] = {{"single24", "llama2-70b", 1848, 1376},
                        {"3cluster24_pruned12", "llama2-70b", 1122, 876},
                        {"cluster42", "llama2-70b", 5502, 4004},
                        {"cluster42_pruned12", "llama2-70b", 2772, 2144},
                        {"cluster10", "llama1-30b", 350, 316},
                        {"sub_single_a100", "llama1-30b", 76, 116, false},
                        {"sub_single_l4", "llama1-30b", 248, 240, false},
                        {"sub_single_t4", "llama1-30b", 516, 408, false}};
  for (const Size& size : sizes) {
    const auto problem = helix_problem(size.cluster, size.model);
    ASSERT_TRUE(problem) << problem.error().to_string();
    const auto model = build_milp(to_instance(*problem),
                                  {.remove_redundant = size.remove_redundant, .bound_row = false});
    ASSERT_TRUE(model);
    EXPECT_EQ(model->rows.size(), size.rows) << size.cluster;
    EXPECT_EQ(model->columns.size(), size.columns) << size.cluster;
    EXPECT_TRUE(std::string(size.cluster) != "single24" || model->nonzeros() == 13960u);
  }
}

struct ShippedSolution {
  const char* cluster;
  const char* model;
  const char* folder;
};

constexpr ShippedSolution kShipped[] = {
    {"single24", "llama2-70b", "example_single24_70b/ilp"},
    {"single24", "llama2-70b", "ae_single_cluster/layout_llama70b/ilp"},
    {"sub_single_a100", "llama1-30b", "ae_single_cluster/layout_llama30b/ilp/a100"},
    {"sub_single_l4", "llama1-30b", "ae_single_cluster/layout_llama30b/ilp/l4"},
    {"sub_single_t4", "llama1-30b", "ae_single_cluster/layout_llama30b/ilp/t4"},
    {"sub_dist_a100", "llama1-30b", "ae_distributed_clusters/layout_llama30b/ilp/a100"},
    {"sub_dist_l4", "llama1-30b", "ae_distributed_clusters/layout_llama30b/ilp/l4"},
    {"sub_dist_t4", "llama1-30b", "ae_distributed_clusters/layout_llama30b/ilp/t4"},
    {"3cluster24_pruned12", "llama2-70b", "ae_distributed_clusters/layout_llama70b/ilp"},
};

// The solver's files of the reference become its plan files again, byte for byte.
TEST(Milp, RebuildsPlansFromTheShippedSolutions) {
  NEEDS_SHARED_DATA();
  for (const ShippedSolution& shipped : kShipped) {
    SCOPED_TRACE(shipped.folder);
    const std::string folder = helix_folder() + "/layouts/" + shipped.folder + "/";
    const auto problem = helix_problem(shipped.cluster, shipped.model);
    ASSERT_TRUE(problem);
    const Instance instance = to_instance(*problem);
    const auto model = build_milp(instance, {});
    ASSERT_TRUE(model);
    const auto text = read_file(folder + "ilp_solution.sol");
    ASSERT_TRUE(text);
    const auto values = parse_sol(*model, *text, "ilp_solution.sol");
    ASSERT_TRUE(values) << values.error().to_string();
    LinkedPlacement plan;
    plan.method = "ILP";
    plan.placement = placement_of(*model, *values);
    plan.arcs = valid_arcs(*problem, plan.placement, false);
    for (int32_t u = 0; u < problem->size(); ++u) plan.written.push_back(u);
    EXPECT_EQ(first_difference(print_helix_solution(to_helix_solution(plan.placement)),
                               *read_file(folder + "ilp_sol.ini")),
              "");
    EXPECT_EQ(first_difference(print_helix_sim_cluster(to_sim_cluster(*problem, plan)),
                               *read_file(folder + "simulator_cluster.ini")),
              "");
  }
}

TEST(Milp, ChecksSolutions) {
  for_seeds(40, [](Rng& rng) {
    const PlanProblem problem = random_problem(rng, 4);
    const Instance instance = to_instance(problem);
    for (const bool partial : {false, true}) {
      for (const bool remove_redundant : {true, false}) {
        const MilpForm form{.partial = partial, .remove_redundant = remove_redundant};
        const auto model = build_milp(instance, form);
        ASSERT_TRUE(model);
        Placement placement;
        for (int32_t i = 0; i < instance.nodes(); ++i) {
          const auto k = static_cast<int32_t>(rng.between(1, instance.max_count(i)));
          const auto begin = static_cast<int32_t>(rng.between(0, instance.layers - k));
          placement.nodes.push_back({begin, begin + k});
        }
        std::vector<double> values = milp_values(*model, instance, placement);
        const Result<void> fine = check_solution(*model, values);
        ASSERT_TRUE(fine) << fine.error().to_string();
        EXPECT_EQ(placement_of(*model, values), placement);
        const auto again = parse_sol(*model, print_sol(*model, values), "s");
        ASSERT_TRUE(again) << again.error().to_string();
        EXPECT_EQ(placement_of(*model, *again), placement);
        values[model->start[0]] += 0.5;
        EXPECT_FALSE(check_solution(*model, values));
        values[model->start[0]] = instance.layers;
        EXPECT_FALSE(check_solution(*model, values));
      }
    }
  });
}

TEST(Milp, ReadsTheFilesOfOtherSolvers) {
  Instance instance;
  instance.layers = 2;
  instance.rates = {{10, 4}, {8, 3}};
  instance.links = {{kSource, 0, 100}, {0, 1, 100}, {1, kSink, 100}};
  const auto model = build_milp(instance, {});
  ASSERT_TRUE(model);
  const auto values =
      parse_sol(*model,
                "Optimal - objective value 8.00\n"
                "      1 start_1            1     0\n      2 hold_0_1 1 0\n"
                "      4 hold_1_1  1  0\n  7 flow_source_0 8 0\n  8 switch_source_0 1 "
                "0\n 9 flow_0_1 8 0\n 10 switch_0_1 1 0\n 11 flow_1_sink 8 0\n 12 "
                "switch_1_sink 1 0\n",
                "cbc.sol");
  ASSERT_TRUE(values) << values.error().to_string();
  EXPECT_EQ(placement_of(*model, *values).nodes, (std::vector<LayerRange>{{0, 1}, {1, 2}}));
  EXPECT_FALSE(parse_sol(*model, "nothing here\n", "x.sol"));
  const auto garbled = parse_sol(*model, "start_0 zero\n", "x.sol");
  ASSERT_FALSE(garbled);
  EXPECT_NE(garbled.error().to_string().find("x.sol:1"), std::string::npos);
}

// Every placement of a small instance, by hand: what the solver must find.
double best_by_hand(const Instance& instance, bool partial, int32_t node, Placement& placement) {
  if (node == instance.nodes()) {
    return report_flow(instance, placement, partial, {.failures = false}).max_flow;
  }
  double best = 0;
  for (int32_t k = 1; k <= instance.max_count(node); ++k) {
    for (int32_t begin = 0; begin + k <= instance.layers; ++begin) {
      placement.nodes[node] = {begin, begin + k};
      best = std::max(best, best_by_hand(instance, partial, node + 1, placement));
    }
  }
  return best;
}

TEST(Milp, SolvesWhatCanBeTriedOut) {
  for_seeds(6, [](Rng& rng) {
    Instance instance;
    instance.layers = 4;
    for (int i = 0; i < 3; ++i) {
      instance.rates.push_back({90 + 10 * rng.unit(), 50 * rng.unit() + 10, 30 * rng.unit() + 5});
    }
    for (int32_t i = 0; i < 3; ++i) {
      instance.links.push_back({kSource, i, 1000});
      instance.links.push_back({i, kSink, 1000});
      for (int32_t j = 0; j < 3; ++j) {
        if (i != j) instance.links.push_back({i, j, 20 + 60 * rng.unit()});
      }
    }
    for (const bool partial : {false, true}) {
      MilpOptions options;
      options.form.partial = partial;
      options.good_enough = 2;  // go for the proof
      const auto model = build_milp(instance, options.form);
      ASSERT_TRUE(model);
      const auto outcome = solve_milp(*model, instance, options);
      if (!outcome && outcome.error().code() == Code::kUnsupported) {
        GTEST_SKIP() << outcome.error().message();
      }
      ASSERT_TRUE(outcome) << outcome.error().to_string();
      Placement placement{std::vector<LayerRange>(3)};
      EXPECT_TRUE(outcome->optimal);
      EXPECT_NEAR(outcome->objective, best_by_hand(instance, partial, 0, placement), 1e-4);
      EXPECT_NEAR(report_flow(instance, outcome->placement, partial).max_flow, outcome->objective,
                  1e-4);
      EXPECT_TRUE(check_solution(*model, outcome->values));
    }
  });
}

// Two methods that share no code find the same optimum, and the bound is above it.
TEST(Milp, AgreesWithTheSearchWhereItCanProve) {
  for_seeds(4, [](Rng& rng) {
    const Instance instance = sample_instance(
        rng, {.nodes = 4, .layers = 5, .longest = 3,
              .regions = static_cast<int32_t>(rng.between(1, 2))});
    MilpOptions options;
    options.good_enough = 2;
    options.seconds = 20;
    const auto model = build_milp(instance, options.form);
    ASSERT_TRUE(model) << model.error().to_string();
    const auto outcome = solve_milp(*model, instance, options);
    if (!outcome && outcome.error().code() == Code::kUnsupported) {
      GTEST_SKIP() << outcome.error().message();
    }
    SearchOptions search;
    search.steps = 60'000;
    const SearchResult found = search_placement(instance, search);
    const double proven = outcome && outcome->optimal ? outcome->objective : 0;
    EXPECT_GE(found.bound, proven - 1e-4);
    if (!outcome) {
      EXPECT_EQ(found.flow, 0) << outcome.error().to_string();
    } else {
      EXPECT_GE(found.flow, outcome->objective - 1e-4);
      if (outcome->optimal) {
        EXPECT_NEAR(found.flow, proven, 1e-4);
      }
    }
  });
}

TEST(Milp, ProvesTheFourMachineClusterAndKeepsItsStart) {
  NEEDS_SHARED_DATA();
  const auto problem = helix_problem("sub_single_a100", "llama1-30b");
  ASSERT_TRUE(problem);
  const Instance instance = to_instance(*problem);
  MilpOptions options;
  options.start = separate(*problem, {})->placement;
  const auto model = build_milp(instance, options.form);
  const auto outcome = solve_milp(*model, instance, options);
  if (!outcome && outcome.error().code() == Code::kUnsupported) {
    GTEST_SKIP() << outcome.error().message();
  }
  ASSERT_TRUE(outcome) << outcome.error().to_string();
  EXPECT_NEAR(outcome->objective, 1044.533345, 1e-4);
  // No time at all: the start stands.
  const auto large = helix_problem("single24", "llama2-70b");
  const Instance large_instance = to_instance(*large);
  const auto large_model = build_milp(large_instance, {});
  MilpOptions hurried;
  hurried.start = swarm(*large, {})->placement;
  const std::atomic<bool> stop = true;
  hurried.stop = &stop;
  const auto kept = solve_milp(*large_model, large_instance, hurried);
  ASSERT_TRUE(kept) << kept.error().to_string();
  EXPECT_NEAR(kept->objective, 757.8531857, 1e-4);
  EXPECT_FALSE(kept->optimal);
}

TEST(Milp, WritesAnLpFileThatNamesEverything) {
  Instance instance;
  instance.layers = 2;
  instance.rates = {{10.5}};
  instance.links = {{kSource, 0, 100}, {0, kSink, 100}};
  const auto model = build_milp(instance, {.bound_row = false});
  EXPECT_EQ(print_lp(*model),
            "\\ Placement of layers on nodes: the flow of tokens/s is maximised\n"
            "Maximize\n"
            " flow: + flow_source_0\n"
            "Subject To\n"
            " hold_constraint_0: + hold_0_1 = 1\n"
            " end_constraint_0: + start_0 + hold_0_1 <= 2\n"
            " node_flow_constraint_0: + flow_source_0 - flow_0_sink = 0\n"
            " node_throughput_constraint_0: - 10.5 hold_0_1 + flow_source_0 <= 0\n"
            " edge_flow_constr_source_0: + flow_source_0 - 100 switch_source_0 <= 0\n"
            " edge_disable_constr_source_0: + start_0 + 2 switch_source_0 <= 2\n"
            " edge_flow_constr_0_sink: + flow_0_sink - 100 switch_0_sink <= 0\n"
            " edge_disable_constr_0_sink: + 2 switch_0_sink - start_0 - hold_0_1 <= 0\n"
            "Bounds\n"
            " start_0 <= 2\n"
            "Binaries\n"
            "   hold_0_1 switch_source_0 switch_0_sink\n"
            "Generals\n"
            "   start_0\n"
            "End\n");
}

}  // namespace
}  // namespace towline::plan
