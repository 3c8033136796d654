// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Helix's files: every shipped one is read and printed back to the same bytes; damaged ones are
// refused with a sentence that names the place.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

#include "base/file.hpp"
#include "base/for_seeds.hpp"
#include "spec/helix_cluster.hpp"
#include "spec/helix_plan.hpp"
#include "spec/ini.hpp"
#include "spec/py_value.hpp"

namespace towline::spec {
namespace {

namespace fs = std::filesystem;

std::string data_folder() {
  const char* shared = std::getenv("TOWLINE_SHARED");
  return std::string(shared != nullptr ? shared : "../shared") + "/data/helix";
}

#define NEEDS_SHARED_DATA()                                                          \
  if (!fs::exists(data_folder())) {                                                  \
    GTEST_SKIP() << "no shared data at " << data_folder() << "; set TOWLINE_SHARED"; \
  }

std::vector<std::string> files_below(const std::string& folder,
                                     const std::function<bool(const std::string&)>& wanted) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(data_folder() + folder)) {
    if (entry.is_regular_file() && wanted(entry.path().filename().string())) {
      paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The first line that differs, or "". Some of the shipped files were written by hand and lack the
// blank line at the end; that is the one difference let pass.
std::string first_difference(const std::string& printed, const std::string& shipped) {
  if (printed == shipped || printed == shipped + "\n") return "";
  size_t at = 0;
  while (at < printed.size() && at < shipped.size() && printed[at] == shipped[at]) ++at;
  return "at byte " + std::to_string(at) + ": '" + printed.substr(at, 40) + "' instead of '" +
         shipped.substr(at, 40) + "'";
}

template <class Parse, class Print>
void expect_same_bytes(const std::vector<std::string>& paths, size_t at_least, Parse parse,
                       Print print) {
  EXPECT_GE(paths.size(), at_least);
  for (const std::string& path : paths) {
    const Result<std::string> text = read_file(path);
    ASSERT_TRUE(text) << path;
    const auto parsed = parse(*text, path);
    ASSERT_TRUE(parsed) << parsed.error().to_string();
    EXPECT_EQ(first_difference(print(*parsed), *text), "") << path;
  }
}

TEST(HelixFiles, ClustersPrintToTheirOwnBytes) {
  NEEDS_SHARED_DATA();
  expect_same_bytes(files_below("/clusters", [](const std::string&) { return true; }), 12,
                    parse_helix_cluster, print_helix_cluster);
}

TEST(HelixFiles, MachineProfilesPrintToTheirOwnBytes) {
  NEEDS_SHARED_DATA();
  const auto wanted = [](const std::string& name) { return name == "machine_profile.ini"; };
  expect_same_bytes(files_below("/profiles", wanted), 1, parse_helix_machines,
                    print_helix_machines);
}

TEST(HelixFiles, SolutionsPrintToTheirOwnBytes) {
  NEEDS_SHARED_DATA();
  const auto wanted = [](const std::string& name) {
    return name.ends_with("_sol.ini") || name.ends_with("_solution_file.ini");
  };
  expect_same_bytes(files_below("/layouts", wanted), 30, parse_helix_solution,
                    print_helix_solution);
}

TEST(HelixFiles, SimulatorClustersPrintToTheirOwnBytes) {
  NEEDS_SHARED_DATA();
  const auto wanted = [](const std::string& name) {
    return name.ends_with("simulator_cluster.ini");
  };
  expect_same_bytes(files_below("/layouts", wanted), 30, parse_helix_sim_cluster,
                    print_helix_sim_cluster);
}

// Latencies drift: 51 ms is printed "51.00000000000001 * MilliSec", and reads as a greater number.
TEST(HelixFiles, QuantitiesPrintAsHelixPrintsThem) {
  EXPECT_EQ(helix_latency(51 * 1e-3).text, "51.00000000000001 * MilliSec");
  EXPECT_EQ(helix_latency(50 * 1e-3).text, "50.0 * MilliSec");
  NEEDS_SHARED_DATA();
  const auto wanted = [](const std::string& name) {
    return name.ends_with("simulator_cluster.ini");
  };
  for (const std::string& path : files_below("/layouts", wanted)) {
    const auto sim = load_helix_sim_cluster(path);
    ASSERT_TRUE(sim) << path;
    for (const HelixSimCluster::Node& node : sim->nodes) {
      EXPECT_EQ(helix_speed(node.nic_in.value), node.nic_in) << path;
      EXPECT_EQ(helix_memory(node.memory.value), node.memory) << path;
    }
    for (const HelixSimCluster::Link& link : sim->links) {
      EXPECT_EQ(helix_speed(link.bandwidth.value), link.bandwidth) << path;
    }
  }
}

TEST(HelixFiles, RealSystemsPrintToTheirOwnBytes) {
  NEEDS_SHARED_DATA();
  const auto wanted = [](const std::string& name) { return name.starts_with("real_sys_config"); };
  expect_same_bytes(files_below("", wanted), 10, parse_helix_real_system, print_helix_real_system);
}

// Every shipped configuration follows from the solution and the simulator cluster beside it, given
// its addresses in the order of the nodes.
TEST(HelixFiles, RealSystemsFollowFromTheirPlans) {
  NEEDS_SHARED_DATA();
  size_t compared = 0;
  for (const std::string& path : files_below("/layouts", [](const std::string& name) {
         return name == "real_sys_config.txt";
       })) {
    const fs::path folder = fs::path(path).parent_path();
    std::string solution_path;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with("_sol.ini") || name.ends_with("solution_file.ini")) {
        solution_path = entry.path().string();
      }
    }
    const std::string sim_path = (folder / "simulator_cluster.ini").string();
    if (solution_path.empty() || !fs::exists(sim_path)) continue;
    const auto solution = load_helix_solution(solution_path);
    const auto sim = load_helix_sim_cluster(sim_path);
    const auto golden = load_helix_real_system(path);
    ASSERT_TRUE(solution && sim && golden) << path;
    HelixAddresses addresses;
    for (const HelixRealSystem::Machine& machine : golden->machines) {
      if (machine.id == 0) {
        addresses.host = machine.ip_address;
        continue;
      }
      const std::string& type = sim->nodes[static_cast<size_t>(machine.id) - 1].machine_type;
      auto list = std::find_if(addresses.by_type.begin(), addresses.by_type.end(),
                               [&](const auto& entry) { return entry.first == type; });
      if (list == addresses.by_type.end()) {
        list = addresses.by_type.insert(addresses.by_type.end(), {type, {}});
      }
      list->second.push_back(machine.ip_address);
    }
    const auto made = make_helix_real_system(*sim, *solution, addresses);
    ASSERT_TRUE(made) << path << ": " << made.error().to_string();
    EXPECT_EQ(print_helix_real_system(*made), print_helix_real_system(*golden)) << path;
    ++compared;
    addresses.by_type.front().second.pop_back();
    EXPECT_FALSE(make_helix_real_system(*sim, *solution, addresses)) << "an address short";
    addresses.by_type.front().second.resize(100, "10.0.0.1");
    EXPECT_FALSE(make_helix_real_system(*sim, *solution, addresses)) << "addresses left over";
  }
  EXPECT_GE(compared, 5u);
}

TEST(HelixFiles, AClusterBecomesDirectedLinksAndBack) {
  NEEDS_SHARED_DATA();
  const std::string profile = data_folder() + "/profiles/machine_profile.ini";
  for (const char* name : {"single24", "3cluster24", "cluster42", "3cluster24_pruned12"}) {
    const std::string path = data_folder() + "/clusters/" + name + ".ini";
    const auto cluster = load_any_cluster(path, profile);
    ASSERT_TRUE(cluster) << cluster.error().to_string();
    const auto helix = load_helix_cluster(path);
    ASSERT_TRUE(helix);
    const auto back = to_helix_cluster(*cluster);
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->links.size(), helix->links.size());
    EXPECT_EQ(back->source_neighbours, helix->source_neighbours);
    const auto again = to_cluster(*back, to_helix_machines(*cluster));
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->nodes, cluster->nodes);
    EXPECT_EQ(again->types, cluster->types);
  }
}

TEST(HelixFiles, TheThreeRegionsAreFoundByLatency) {
  NEEDS_SHARED_DATA();
  const auto cluster = load_any_cluster(data_folder() + "/clusters/3cluster24.ini",
                                        data_folder() + "/profiles/machine_profile.ini");
  ASSERT_TRUE(cluster);
  const std::vector<std::string> regions = infer_regions(*cluster);
  for (int32_t node = 0; node < 24; ++node) {
    EXPECT_EQ(regions[node], node < 4 ? "region-0" : node < 14 ? "region-1" : "region-2") << node;
  }
}

TEST(PyValue, EvaluatesNumbersWithUnits) {
  const std::pair<const char*, double> cases[] = {
      {"10 * gbps", 1e10},    {"14.2 * mbps", 14.2 * 1e6},
      {"1 * MilliSec", 1e-3}, {"-1", -1},
      {"16*GB", 16e9},        {"(1 + 2) * 3 / 2", 4.5},
      {"1e3", 1000},          {"10 * gbps / 8", 1.25e9},
      {"2 - -3", 5}};
  for (const auto& [text, expected] : cases) {
    const auto value = evaluate_py(text);
    ASSERT_TRUE(value) << text << ": " << value.error().to_string();
    EXPECT_EQ(value->value(), expected) << text;
  }
  EXPECT_EQ(evaluate_py("10 * gbps / 8")->repr(), "1250000000.0");
  EXPECT_EQ(evaluate_py("1 * gbps")->repr(), "1000000000");
}

TEST(PyValue, RefusesWhatIsNoNumber) {
  for (const char* text :
       {"", "x", "1 *", "1 1", "gbits", "(1", "1 / 0", "1e999", "nan", "9223372036854775807 + 1",
        "-(0 - 9223372036854775807 - 1)", "__import__('os')"}) {
    EXPECT_FALSE(evaluate_py(text)) << text;
  }
  EXPECT_FALSE(evaluate_py(std::string(10'000, '(')));
  EXPECT_FALSE(evaluate_py(std::string(10'000, '-') + "1"));
}

TEST(PyValue, TextsKeepTheirQuotes) {
  const std::string text = R"(["it's", '"', 'plain', 1])";
  const auto list = parse_py_list(text);
  ASSERT_TRUE(list);
  EXPECT_EQ(print_py_list(*list), text);
}

TEST(PyValue, PrintsFloatsAsPythonDoes) {
  EXPECT_EQ(py_repr(1000), "1000.0");
  EXPECT_EQ(py_repr(0.001), "0.001");
  EXPECT_EQ(py_repr(1e-6), "1e-06");
  EXPECT_EQ(py_repr(1e16), "1e+16");
  EXPECT_EQ(py_repr(123456789012345.0), "123456789012345.0");
  EXPECT_EQ(py_repr(14.2), "14.2");
  EXPECT_EQ(py_repr(0), "0.0");
}

struct BadFile {
  const char* text;
  const char* says;  // part of the message
};

TEST(HelixFiles, ADamagedSolutionIsRefusedWithItsLine) {
  const BadFile cases[] = {
      {"[Settings]\noffset=3\n[Solution]\ncompute_node_2=[0]\n", "sol:2: [Settings] offset = 3"},
      {"[Settings]\noffset=2\n[Solution]\ncompute_node_3=[0]\n", "'compute_node_2' was expected"},
      {"[Settings]\noffset=2\n[Solution]\ncompute_node_-9223372036854775808=[0]\n",
       "'compute_node_2' was expected"},
      {"[Settings]\noffset=2\n[Solution]\ncompute_node_2=[0, 2]\n", "2 follows 0"},
      {"[Settings]\noffset=2\n[Solution]\ncompute_node_2=[-1]\n", "layers are whole numbers"},
      {"[Settings]\noffset=2\n[Solution]\ncompute_node_2=[1\n", "sol:4"},
      {"[Settings]\noffset=2\n[Solution]\n", "names no node"},
      {"[Settings]\noffset=2\n", "no section [Solution]"},
      {"offset=2\n", "sol:1"},
      {"[Settings]\noffset=2\noffset=2\n", "given twice"},
  };
  for (const BadFile& bad : cases) {
    const auto solution = parse_helix_solution(bad.text, "sol");
    ASSERT_FALSE(solution) << bad.text;
    EXPECT_NE(solution.error().to_string().find(bad.says), std::string::npos)
        << solution.error().to_string();
    EXPECT_EQ(exit_code(solution.error().code()), 2);
  }
}

TEST(HelixFiles, ADamagedClusterIsRefusedWithItsLine) {
  const std::string head =
      "[NodeNames]\ntotal_compute_nodes=1\n[SourceNode]\nconnected_nodes=[0]\n[SinkNode]\n"
      "connected_nodes=[0]\n[ComputeNode-0]\ntype=T4\nconnected_nodes=['source', 'sink']\n";
  const std::string source_link = "[Link-source-0]\nbandwidth=1 * gbps\nlatency=1 * MilliSec\n";
  const std::string sink_link = "[Link-0-sink]\nbandwidth=1 * gbps\nlatency=1 * MilliSec\n";
  ASSERT_TRUE(parse_helix_cluster(head + source_link + sink_link, "c"));
  const std::pair<std::string, const char*> cases[] = {
      {head + source_link, "[Link-0-sink]"},
      {head + source_link + "[Link-0-sink]\nbandwidth=-1 * gbps\nlatency=0\n", "c:14"},
      {head + source_link + "[Link-0-sink]\nbandwidth=1 * gbits\nlatency=0\n", "'gbits'"},
      {head + source_link + "[Link-0-sink]\nbandwidth=1\nlatency=-1\n", "latency"},
      {head + source_link + sink_link + "[Link-0-7]\nbandwidth=1\nlatency=0\n", "[Link-0-7]"},
      {"[NodeNames]\ntotal_compute_nodes=1000000000000\n", "total_compute_nodes"},
      {"[NodeNames]\ntotal_compute_nodes=2\n" + head.substr(head.find("[SourceNode]")),
       "ComputeNode-1"},
  };
  for (const auto& [text, says] : cases) {
    const auto cluster = parse_helix_cluster(text, "c");
    ASSERT_FALSE(cluster) << text;
    EXPECT_NE(cluster.error().to_string().find(says), std::string::npos)
        << cluster.error().to_string();
  }
}

TEST(HelixFiles, RandomDamageIsNeverFatal) {
  const std::string text =
      "[Coordinator]\ninbound_nic_speed=1.0 * mbps\noutbound_nic_speed=1.0 * mbps\n[MachineTypes]\n"
      "types=['T4']\n[ComputeNodes]\nnames=['compute_node_2']\n[compute_node_2]\n"
      "vram_size=16000.0 * MB\ninbound_nic_speed=1.0 * mbps\noutbound_nic_speed=1.0 * mbps\n"
      "disk_speed=1.0 * mbps\nmachine_type=\"T4\"\nkv_cache_capacity=16\n"
      "activation_backup_capacity=0\n[Links]\nnames=['l']\n[l]\nin=source\nout=compute_node_2\n"
      "latency=1.0 * MilliSec\nbandwidth=1.0 * mbps\n";
  ASSERT_TRUE(parse_helix_sim_cluster(text, "s"));
  int refused = 0;
  for_seeds(500, [&](Rng& rng) {
    std::string damaged = text;
    for (int i = 0; i < 3; ++i) {
      damaged[rng.below(damaged.size())] = static_cast<char>(rng.below(256));
    }
    const auto sim = parse_helix_sim_cluster(damaged, "s");
    if (sim) {
      const auto again = parse_helix_sim_cluster(print_helix_sim_cluster(*sim), "again");
      EXPECT_TRUE(again) << again.error().to_string();
    } else {
      ++refused;
    }
  });
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace towline::spec
