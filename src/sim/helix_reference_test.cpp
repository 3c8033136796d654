// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The Helix mode against the published simulator where there is no published run: every router,
// both modes, several clusters, models and settings, in short windows. The figures are facts:
// what the published program's rules give when they are executed in Python 3.11 (a
// transcription of its sources that repeats the published run asshipped_short60 byte for byte;
// flows by networkx 2.8.8). All statistics, and a checksum of the list of the first 2,000
// finished iterations, to the last digit.
#include <gtest/gtest.h>

#include <array>

#include "base/crc32c.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "sim/helix_engine.hpp"
#include "sim/helix_report.hpp"
#include "sim/testing_helix.hpp"

namespace towline::sim {
namespace {

struct ReferenceRun {
  const char* folder;    // of layouts/
  const char* cluster;
  const char* solution;
  const char* model;
  const char* machines;  // "": those of the cluster file
  HelixRouter router;
  bool online;
  uint64_t seed;
  int32_t initial_queries;
  double feed_high_water, feed_rate, kv_high_water, output_ratio, warm_up, duration;
  // max_compute, max_flow (0: not solved), decode_tps, prompt_lat, decode_lat, prompt p50 and p99,
  // decode p50 and p99, last_finished, total_tps.
  std::array<double, 11> figures;
  std::array<int64_t, 5> counts;  // total tokens, finished queries, active, rejected, events
  uint32_t finished;              // crc32c of finished_csv()
};

constexpr ReferenceRun kRuns[] = {
    {"example_single24_70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kSwarm, false,
     0, 100, 0.8, 400, 0.85, 1, 10, 30,
     {2803.860988272896, 0.0, 113.4, 6.469747729684257,
      0.8295787187437444, 6.600780984400046, 8.217583786000048, 0.6382180940001234,
      3.999888169200034, 59.98118412720198, 1194.9080539658125},
     {71672, 3, 100, 0, 444391}, 0xacb587dd},
    {"example_single24_70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kShortestQueue, false,
     0, 100, 0.8, 400, 0.85, 1, 10, 30,
     {2803.860988272896, 0.0, 108.76666666666667, 6.319370508000041,
      0.8671746119636535, 6.452438778800019, 7.986164980000019, 0.6560880720000171,
      3.543995302400141, 59.99688705440197, 1189.795062788388},
     {71384, 3, 100, 0, 402220}, 0x69176730},
    {"example_single24_70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kMaxFlow, true,
     0, 20, 0.8, 700, 0.9, 0.6, 0, 30,
     {2803.860988272896, 1289.5557702751464, 12.033333333333333, 1.7942978272390202,
      0.6705989802400332, 1.475126937200006, 3.928573940800021, 0.44384827640004687,
      3.6656129922700558, 265.0235896923405, 58.76835348159249},
     {15575, 21, 0, 0, 1051502}, 0xf9040d05},
    {"example_single24_70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kSwarm, true,
     0, 240, 0.8, 400, 0.9, 0.6, 0, 30,
     {2803.860988272896, 0.0, 9.266666666666667, 1.6209120662045045,
      0.4614798670975542, 1.4245152788000155, 3.522998398399981, 0.4327637588000428,
      1.1745034679511832, 222.0628059519361, 35.44042401095933},
     {7870, 11, 0, 0, 557217}, 0xc76b0ed8},
    {"example_single24_70b/petals", "simulator_cluster.ini", "petals_sol.ini",
     "llama2-70b", "", HelixRouter::kShortestQueue, false,
     0, 100, 0.8, 400, 0.85, 1, 10, 30,
     {2803.860988272896, 0.0, 130.33333333333334, 5.0392408201873335,
      0.7396220357521647, 5.100157073200094, 6.819871493200122, 0.6227197904000121,
      2.7785495948000296, 59.99763665560189, 1192.2302941797834},
     {71531, 4, 100, 0, 517425}, 0x4f18cb20},
    {"example_single24_70b/petals", "simulator_cluster.ini", "petals_sol.ini",
     "llama2-70b", "", HelixRouter::kMaxFlow, false,
     0, 20, 0.8, 700, 0.85, 1, 10, 30,
     {2803.860988272896, 952.1073984850639, 50.766666666666666, 3.513488550498738,
      2.577968601622525, 3.5173316367998098, 5.925349438108675, 2.502659826399892,
      4.751423966799813, 59.94839367240005, 2684.592365885103},
     {160937, 2, 230, 0, 175720}, 0xf9a455c0},
    {"example_single24_70b/petals", "simulator_cluster.ini", "petals_sol.ini",
     "llama2-70b", "", HelixRouter::kSwarm, true,
     0, 240, 0.8, 300, 0.9, 0.6, 0, 30,
     {2803.860988272896, 0.0, 8.366666666666667, 1.3235376969905306,
      0.43567561018572626, 1.321437288399956, 2.6509869580000043, 0.43613835960003655,
      0.7435177341312169, 218.13761832862318, 28.39950324692399},
     {6195, 9, 0, 0, 373706}, 0x5e4c3ce8},
    {"ae_distributed_clusters/layout_llama70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kMaxFlow, false,
     0, 20, 0.8, 700, 0.85, 1, 10, 30,
     {2803.860988272896, 1212.1768454598214, 5.566666666666666, 9.721758900631661,
      6.444221463274054, 10.544660083641258, 15.247390546168674, 4.91891272242006,
      15.02231590583554, 57.89656908210353, 838.875269640337},
     {48568, 0, 94, 0, 36279}, 0x26a10212},
    {"ae_distributed_clusters/layout_llama70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kShortestQueue, true,
     0, 240, 0.8, 300, 0.9, 0.6, 0, 30,
     {2803.860988272896, 0.0, 4.0, 3.4200635062559503,
      0.7941170744015459, 3.069649157601688, 7.593053648148953, 0.6415146356529604,
      3.0424837045884274, 294.777139470509, 21.015876642020878},
     {6195, 9, 0, 0, 343434}, 0x511c03f6},
    {"ae_distributed_clusters/layout_llama70b/swarm", "simulator_cluster.ini", "swarm_sol.ini",
     "llama2-70b", "", HelixRouter::kSwarm, false,
     0, 100, 0.8, 400, 0.85, 1, 10, 30,
     {2803.860988272896, 0.0, 0.03333333333333333, 21.87387839006742,
      24.234342101688235, 21.72161995062804, 36.89899111706282, 24.234342101688235,
      24.234342101688235, 47.79899111706282, 406.70314468332987},
     {19440, 0, 100, 0, 15362}, 0x6dd66655},
    {"ae_distributed_clusters/layout_llama70b/swarm", "simulator_cluster.ini", "swarm_sol.ini",
     "llama2-70b", "", HelixRouter::kMaxFlow, true,
     0, 20, 0.8, 300, 0.9, 0.6, 0, 30,
     {2803.860988272896, 616.3798364457464, 1.7, 4.933186967287646,
      1.8795433061327318, 4.297828083998581, 10.013970351181378, 0.7744319717630717,
      9.80835477570594, 367.7873662013843, 16.843971732862318},
     {6195, 9, 0, 0, 399755}, 0x7e60e713},
    {"ae_ablation/layouts/no_prune_42", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kMaxFlow, false,
     0, 20, 0.8, 700, 0.85, 1, 10, 30,
     {7104.257576431561, 4892.242429600681, 71.7, 2.9441442488960874,
      2.1283420845017287, 2.963819179999888, 4.775361219200072, 2.077171529600008,
      3.530633940399982, 47.98784282200011, 4045.733014508279},
     {194146, 2, 280, 0, 369480}, 0xbc63d028},
    {"ae_ablation/layouts/no_prune_42", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kSwarm, true,
     0, 240, 0.8, 300, 0.9, 0.6, 0, 30,
     {7104.257576431561, 0.0, 10.266666666666667, 1.3188600799000008,
      0.35440709973465717, 1.214973480000003, 2.766733700000021, 0.32225879400001745,
      1.0101646694662563, 174.94068736348882, 35.41200216692949},
     {6195, 9, 0, 0, 431602}, 0xf6364582},
    {"ae_ablation/layouts/no_prune_42", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kRandom, false,
     0, 100, 0.8, 400, 0.85, 1, 10, 30,
     {7104.257576431561, 0.0, 175.46666666666667, 3.18322542132003,
      0.5640664512418553, 3.2770923904001634, 5.5202208995999875, 0.4819253356000246,
      1.8191516471999982, 47.9873886528033, 1565.7030338451407},
     {75134, 6, 100, 0, 1045874}, 0xcb2383aa},
    {"ae_single_cluster/layout_llama30b/swarm", "simulator_cluster.ini", "swarm_sol.ini",
     "llama1-30b", "", HelixRouter::kRandom, false,
     0, 100, 0.8, 400, 0.85, 1, 10, 30,
     {1755.0113182612467, 0.0, 264.46666666666664, 1.5747905362470542,
      0.374497896609732, 1.6620864212000157, 3.0734978016000056, 0.32563968200002336,
      1.0869610300000225, 46.9989293764002, 1861.4041034715308},
     {87484, 21, 100, 0, 815862}, 0xd5b6a6e2},
    {"ae_single_cluster/layout_llama30b/swarm", "simulator_cluster.ini", "swarm_sol.ini",
     "llama1-30b", "", HelixRouter::kSwarm, true,
     0, 240, 0.8, 300, 0.9, 0.6, 0, 30,
     {1755.0113182612467, 0.0, 17.566666666666666, 0.7232272469920038,
      0.2053566347189188, 0.6459282800000121, 1.8074431028001001, 0.20077973399998683,
      0.3327817642667483, 120.34246084584679, 51.47808974868407},
     {6195, 9, 0, 0, 281209}, 0x9e2610ca},
    {"example_single24_70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kMaxFlow, false,
     0, 300, 0.8, 700, 0.3, 1, 10, 30,
     {2803.860988272896, 1289.5557702751464, 98.86666666666666, 11.40790737026019,
      1.1948252343749712, 11.32089403359991, 16.31242007359998, 0.7107457776002519,
      5.328995884400129, 59.98245139440101, 1828.4014315933277},
     {109672, 3, 146, 303, 332964}, 0xc4236cde},
    {"example_single24_70b/ilp", "simulator_cluster.ini", "ilp_sol.ini",
     "llama2-70b", "", HelixRouter::kSwarm, true,
     7, 240, 0.8, 400, 0.9, 0.6, 0, 33,
     {2803.860988272896, 0.0, 10.181818181818182, 2.3867847520712986,
      0.5495131255247641, 2.848431099600127, 5.781103789200017, 0.4297236140000109,
      2.8405075569637717, 233.75481536535182, 49.004338080035595},
     {11455, 13, 0, 0, 603304}, 0xe9774232},
};

HelixOptions options_of(const ReferenceRun& run) {
  HelixOptions o;
  o.router = run.router;
  o.online = run.online;
  o.seed = run.seed;
  o.initial_queries = run.initial_queries;
  o.feed_high_water = run.feed_high_water;
  o.feed_rate = run.feed_rate;
  o.estimator.high_water = run.kv_high_water;
  o.estimator.output_ratio = run.output_ratio;
  o.warm_up = run.warm_up;
  o.duration = run.duration;
  o.finished_limit = 2000;
  return o;
}

TEST(HelixReference, EveryRouterModeAndClusterToTheLastDigit) {
  NEEDS_SHARED_DATA();
  const std::string data = helix_data();
  const HelixTraffic traffic = azure_traffic();
  for (const ReferenceRun& run : kRuns) {
    SCOPED_TRACE(std::string(run.folder) + (run.online ? " online " : " offline ") +
                 std::to_string(static_cast<int>(run.router)));
    const std::string folder = data + "/layouts/" + run.folder + "/";
    const bool flow = run.router == HelixRouter::kMaxFlow;
    const auto input = load_helix_input(
        {folder + run.cluster, folder + run.solution, run.model, data + "/profiles", "",
         run.machines},
        flow);
    ASSERT_TRUE(input) << input.error().to_string();
    const HelixOptions options = options_of(run);
    auto engine = HelixEngine::make(*input, options, traffic);
    ASSERT_TRUE(engine) << engine.error().to_string();
    const auto report = engine->run(nullptr, nullptr);
    ASSERT_TRUE(report) << report.error().to_string();
    const HelixReport& r = *report;
    const std::array<double, 11> figures = {
        input->max_compute, flow ? input->max_flow : 0, r.decode_tps,    r.prompt.mean,
        r.decode.mean,      r.prompt.p50,               r.prompt.p99,    r.decode.p50,
        r.decode.p99,       r.last_finished,            r.total_tps};
    EXPECT_EQ(figures, run.figures);
    const std::array<int64_t, 5> counts = {r.total_tokens, r.finished_queries, r.active, r.rejected,
                                           r.events.total()};
    EXPECT_EQ(counts, run.counts);
    EXPECT_EQ(crc32c(finished_csv(r)), run.finished);
  }
}

TEST(HelixReference, FlowsThatAreNoneAreRefused) {
  NEEDS_SHARED_DATA();
  const std::string data = helix_data();
  const std::string folder = data + "/layouts/example_single24_70b/ilp/";
  const std::string path = ::testing::TempDir() + "helix_reference_flows.json";
  const auto good = load_json(data + "/runs/flows/example_single24_70b_ilp.json");
  ASSERT_TRUE(good);
  // Every edge's flow replaced: a word, less than nothing, nothing at all.
  for (const Json& flow : {Json("much"), Json(-1.0), Json(0)}) {
    Json edges = Json::array();
    for (const Json& edge : (*good)["edges"].items()) {
      edges.push(Json::array({edge[0], edge[1], edge[2], flow}));
    }
    Json tree = Json::object({{"max_flow", 1.0}});
    tree.set("edges", std::move(edges));
    ASSERT_TRUE(write_file_atomic(path, tree.dump()));
    const auto input = load_helix_input({folder + "simulator_cluster.ini", folder + "ilp_sol.ini",
                                         "llama2-70b", data + "/profiles", path, ""},
                                        true);
    ASSERT_FALSE(input) << flow.dump();
    EXPECT_EQ(input.error().code(), Code::kInvalidArgument);
    EXPECT_NE(input.error().to_string().find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace towline::sim
