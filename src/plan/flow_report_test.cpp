// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/flow_report.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <numeric>

#include "base/for_seeds.hpp"
#include "plan/evaluator.hpp"
#include "plan/testing_clusters.hpp"

namespace towline::plan {
namespace {

namespace fs = std::filesystem;

struct Published {
  const char* golden;   // runs/flows/<golden>.json
  const char* cluster;  // clusters/<cluster>.ini
  const char* model;
  const char* layout;  // layouts/<layout>/{*_sol.ini, simulator_cluster.ini}
};

constexpr Published kPublished[] = {
    {"example_single24_70b_ilp", "single24", "llama2-70b", "example_single24_70b/ilp"},
    {"example_single24_70b_petals", "single24", "llama2-70b", "example_single24_70b/petals"},
    {"example_single24_70b_swarm", "single24", "llama2-70b", "example_single24_70b/swarm"},
    {"example_single24_70b_homogeneous", "single24", "llama2-70b",
     "example_single24_70b/homogeneous"},
    {"ae_single_cluster_70b_ilp", "single24", "llama2-70b",
     "ae_single_cluster/layout_llama70b/ilp"},
    {"ae_single_cluster_70b_petals", "single24", "llama2-70b",
     "ae_single_cluster/layout_llama70b/petals"},
    {"ae_single_cluster_70b_swarm", "single24", "llama2-70b",
     "ae_single_cluster/layout_llama70b/swarm"},
    {"ae_single_cluster_30b_petals", "single24", "llama1-30b",
     "ae_single_cluster/layout_llama30b/petals"},
    {"ae_single_cluster_30b_swarm", "single24", "llama1-30b",
     "ae_single_cluster/layout_llama30b/swarm"},
    {"ae_single_cluster_30b_ilp_a100", "sub_single_a100", "llama1-30b",
     "ae_single_cluster/layout_llama30b/ilp/a100"},
    {"ae_single_cluster_30b_ilp_l4", "sub_single_l4", "llama1-30b",
     "ae_single_cluster/layout_llama30b/ilp/l4"},
    {"ae_single_cluster_30b_ilp_t4", "sub_single_t4", "llama1-30b",
     "ae_single_cluster/layout_llama30b/ilp/t4"},
};

Result<PlanProblem> load(const Published& published) {
  return helix_problem(published.cluster, published.model);
}

Result<LinkedPlacement> load_layout(const Published& published, const PlanProblem& problem) {
  const std::string folder = helix_folder() + "/layouts/" + published.layout;
  Placement placement;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.path().string().ends_with("_sol.ini")) continue;
    ASSIGN_OR_RETURN(const auto solution, spec::load_helix_solution(entry.path().string()));
    ASSIGN_OR_RETURN(placement, placement_of(solution, problem));
  }
  ASSIGN_OR_RETURN(const auto sim, spec::load_helix_sim_cluster(folder + "/simulator_cluster.ini"));
  return link_as_listed(problem, std::move(placement), sim);
}

// Flow into every vertex of a report equals flow out of it.
void expect_conserved(const FlowReport& report) {
  std::map<int32_t, double> excess;
  std::map<int32_t, double> shares;
  for (const LinkFlow& link : report.links) {
    EXPECT_GE(link.flow, 0);
    EXPECT_LE(link.flow, link.capacity);
    excess[link.from] -= link.flow;
    excess[link.to] += link.flow;
    shares[link.from] += link.share;
  }
  EXPECT_NEAR(-excess[kSource], report.max_flow, 1e-6);
  EXPECT_NEAR(excess[kSink], report.max_flow, 1e-6);
  for (size_t u = 0; u < report.units.size(); ++u) {
    EXPECT_NEAR(excess[static_cast<int32_t>(u)], 0, 1e-6);
    EXPECT_LE(report.units[u].flow, report.units[u].capacity);
    EXPECT_EQ(report.units[u].unused_because.empty(), report.units[u].flow > 1e-6);
  }
  for (const auto& [vertex, sum] : shares) {
    EXPECT_TRUE(std::abs(sum - 1) < 1e-9 || sum == 0) << vertex << " " << sum;
  }
}

TEST(FlowReport, EveryPublishedPlanHasItsPublishedFlow) {
  NEEDS_SHARED_DATA();
  for (const Published& published : kPublished) {
    SCOPED_TRACE(published.golden);
    const auto golden =
        load_json(helix_folder() + "/runs/flows/" + std::string(published.golden) + ".json");
    ASSERT_TRUE(golden);
    const auto problem = load(published);
    ASSERT_TRUE(problem) << problem.error().to_string();
    const auto plan = load_layout(published, *problem);
    ASSERT_TRUE(plan) << plan.error().to_string();
    const FlowReport report = report_flow(*problem, *plan);
    EXPECT_NEAR(report.max_flow, (*golden)["max_flow"].as_double(), 1e-6);
    EXPECT_NEAR(report.max_compute, (*golden)["upper_bound"].as_double(), 1e-6);
    EXPECT_GE(report.upper_bound, report.max_flow - 1e-6);
    expect_conserved(report);
    // The graph has the same arcs with the same capacities.
    const PlanGraph graph = build_graph(*problem, *plan);
    std::map<std::pair<std::string, std::string>, double> capacities;
    for (const FlowArc& arc : graph.graph.arcs) {
      capacities[{graph.vertex_names[arc.from], graph.vertex_names[arc.to]}] = arc.capacity;
    }
    for (const Json& edge : (*golden)["edges"].items()) {
      const std::pair ends(edge[size_t{0}].as_string(), edge[size_t{1}].as_string());
      const auto found = capacities.find(ends);
      ASSERT_NE(found, capacities.end()) << edge.dump();
      EXPECT_NEAR(found->second, edge[size_t{2}].as_double(), 1e-6 * found->second) << edge.dump();
    }
  }
}

// Layouts whose flow is published as a number only.
TEST(FlowReport, OtherPublishedPlansHaveTheirPublishedFlow) {
  NEEDS_SHARED_DATA();
  const struct {
    Published published;
    double flow;
  } kCases[] = {{{"", "3cluster24", "llama2-70b", "ae_distributed_clusters/layout_llama70b/ilp"},
                 1212.176845},
                {{"", "3cluster24", "llama2-70b", "ae_distributed_clusters/layout_llama70b/petals"},
                 952.107398},
                {{"", "3cluster24", "llama2-70b", "ae_distributed_clusters/layout_llama70b/swarm"},
                 616.379836},
                {{"", "3cluster24", "llama2-70b", "ae_ablation/layouts/raw_24"}, 1212.176845},
                {{"", "3cluster24", "llama2-70b", "ae_ablation/layouts/no_prune_24"}, 952.107398},
                {{"", "cluster42", "llama2-70b", "ae_ablation/layouts/raw_42"}, 4137.547585},
                {{"", "cluster42", "llama2-70b", "ae_ablation/layouts/no_prune_42"}, 4892.242430},
                {{"", "cluster10", "llama1-30b", "ae_ablation/layouts/quality"}, 286.587410}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.published.layout);
    const auto problem = load(c.published);
    ASSERT_TRUE(problem) << problem.error().to_string();
    const auto plan = load_layout(c.published, *problem);
    ASSERT_TRUE(plan) << plan.error().to_string();
    EXPECT_NEAR(report_flow(*problem, *plan, {.failures = false}).max_flow, c.flow, 1e-3);
  }
}

TEST(FlowReport, ThePublishedPlanLosesAllWhenItsOnlyHolderFails) {
  NEEDS_SHARED_DATA();
  const auto problem = load(kPublished[0]);
  ASSERT_TRUE(problem);
  const auto plan = load_layout(kPublished[0], *problem);
  ASSERT_TRUE(plan);
  const FlowReport report = report_flow(*problem, *plan);
  EXPECT_EQ(report.max_flow, 1289.5557702751464);
  EXPECT_EQ(report.n_minus_1_flow, 0);
  EXPECT_TRUE(uncovered_layers(report).empty());
  EXPECT_NE(report.bottleneck.find("minimum cut"), std::string::npos);
}

// A random small instance and a random placement on it.
Instance random_instance(Rng& rng, int32_t nodes) {
  Instance instance;
  instance.layers = static_cast<int32_t>(rng.between(2, 6));
  for (int32_t i = 0; i < nodes; ++i) {
    std::vector<double> rates;
    const auto most = static_cast<int32_t>(rng.between(1, instance.layers));
    for (int32_t k = 1; k <= most; ++k) rates.push_back(100 * rng.unit() + 1);
    instance.rates.push_back(std::move(rates));
  }
  for (int32_t from = kSource; from < nodes; ++from) {
    for (int32_t to = 0; to <= nodes; ++to) {
      const int32_t end = to == nodes ? kSink : to;
      if (from == end || (from == kSource && end == kSink) || rng.unit() < 0.2) continue;
      instance.links.push_back({from, end, 80 * rng.unit()});
    }
  }
  return instance;
}

Placement random_placement(Rng& rng, const Instance& instance) {
  Placement placement;
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    const auto k = static_cast<int32_t>(rng.between(0, instance.max_count(i)));
    const auto begin = static_cast<int32_t>(rng.between(0, instance.layers - k));
    placement.nodes.push_back({begin, begin + k});
  }
  return placement;
}

TEST(FlowReport, AgreesWithTheSearchsEvaluator) {
  for_seeds(300, [](Rng& rng) {
    const Instance instance = random_instance(rng, static_cast<int32_t>(rng.between(1, 9)));
    const Placement placement = random_placement(rng, instance);
    for (const bool partial : {false, true}) {
      const FlowReport report = report_flow(instance, placement, partial);
      FlowEvaluator evaluator(instance, partial);
      EXPECT_NEAR(report.max_flow, evaluator.flow(placement.nodes), 1e-6);
      EXPECT_LE(report.max_flow, report.upper_bound + 1e-6);
      EXPECT_LE(report.n_minus_1_flow, report.max_flow + 1e-6);
      expect_conserved(report);
      for (const LayerRange& hole : uncovered_layers(report)) {
        EXPECT_EQ(report.max_flow, 0) << hole.begin;
      }
    }
  });
}

TEST(FlowReport, AFailureIsTheFlowOfThePlanWithoutTheNode) {
  for_seeds(100, [](Rng& rng) {
    const Instance instance = random_instance(rng, 6);
    const Placement placement = random_placement(rng, instance);
    const FlowReport report = report_flow(instance, placement, true);
    for (int32_t node = 0; node < instance.nodes(); ++node) {
      Placement without = placement;
      without.nodes[node] = {};
      EXPECT_NEAR(report.units[node].flow_without,
                  report_flow(instance, without, true, {.failures = false}).max_flow, 1e-6);
    }
  });
}

TEST(FlowReport, RenamingNodesChangesNothing) {
  for_seeds(100, [](Rng& rng) {
    const Instance instance = random_instance(rng, 7);
    const Placement placement = random_placement(rng, instance);
    std::vector<int32_t> name(7);
    std::iota(name.begin(), name.end(), 0);
    std::shuffle(name.begin(), name.end(), rng);
    Instance renamed = instance;
    Placement moved = placement;
    for (int32_t i = 0; i < 7; ++i) {
      renamed.rates[name[i]] = instance.rates[i];
      moved.nodes[name[i]] = placement.nodes[i];
    }
    for (InstanceLink& link : renamed.links) {
      if (link.from >= 0) link.from = name[link.from];
      if (link.to >= 0) link.to = name[link.to];
    }
    const FlowReport a = report_flow(instance, placement, true);
    const FlowReport b = report_flow(renamed, moved, true);
    EXPECT_NEAR(a.max_flow, b.max_flow, 1e-6);
    EXPECT_NEAR(a.upper_bound, b.upper_bound, 1e-6);
    EXPECT_NEAR(a.n_minus_1_flow, b.n_minus_1_flow, 1e-6);
  });
}

// Interleaved weighted round robin, spending the shares: its long-run counts are the flow's ratios.
TEST(FlowReport, SharesSpendToTheRatiosOfTheFlow) {
  for_seeds(50, [](Rng& rng) {
    const Instance instance = random_instance(rng, 8);
    const FlowReport report = report_flow(instance, random_placement(rng, instance), true);
    std::map<int32_t, std::vector<const LinkFlow*>> leaving;
    for (const LinkFlow& link : report.links) {
      if (link.share > 0) leaving[link.from].push_back(&link);
    }
    for (const auto& [vertex, links] : leaving) {
      constexpr int kRounds = 2000;
      std::vector<double> load(links.size());
      std::vector<int> chosen(links.size());
      for (int round = 0; round < kRounds; ++round) {
        size_t best = 0;
        for (size_t i = 1; i < links.size(); ++i) {
          if (load[i] + 1 / links[i]->share < load[best] + 1 / links[best]->share) best = i;
        }
        load[best] += 1 / links[best]->share;
        ++chosen[best];
      }
      for (size_t i = 0; i < links.size(); ++i) {
        EXPECT_NEAR(chosen[i] / double{kRounds}, links[i]->share,
                    2.0 / kRounds * static_cast<double>(links.size()));
      }
    }
  });
}

TEST(FlowReport, SaysWhyANodeIsUnused) {
  Instance instance;
  instance.layers = 2;
  instance.rates = {{10, 5}, {10, 5}, {10, 5}, {10, 5}};
  instance.links = {{kSource, 0, 100}, {0, 1, 100}, {1, kSink, 100}, {2, 1, 100}};
  const Placement placement{{{0, 1}, {1, 2}, {0, 1}, {}}};
  const FlowReport report = report_flow(instance, placement, false);
  EXPECT_EQ(report.max_flow, 10);
  EXPECT_EQ(report.units[0].unused_because, "");
  EXPECT_EQ(report.units[2].unused_because, "no link from the coordinator");
  EXPECT_EQ(report.units[3].unused_because, "the plan gives it no layers");
  EXPECT_EQ(report.n_minus_1_flow, 0);
  const std::string text = print_report(report);
  EXPECT_NE(text.find("unused: no link from the coordinator"), std::string::npos);
  EXPECT_EQ(report_to_json(report)["max_flow"].as_double(), 10);
}

}  // namespace
}  // namespace towline::plan
