// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/scenario.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::spec {
namespace {

Result<Scenario> parse(std::string_view text) {
  ASSIGN_OR_RETURN(const Json tree, parse_toml(text, "s.toml"));
  return parse_scenario(tree, "s.toml");
}

TEST(Scenario, ReadsWhatTheHeaderShows) {
  const auto s = parse(R"(
schema = 1
model = "demo.gguf"
[serving]
router = "swarm"
[net]
transport = "zmq"
curve = false
[[workers]]
name = "alpha"
layers = [0, 4]
speed = 2.0
site = "attic"
[[workers]]
type = "A100"
emulate = true
site = "cellar"
[[links]]
between = ["attic", "cellar"]
latency = "50 ms"
bandwidth = "100 mbit"
[workload]
trace = "azure.csv"
rate = 2.0
)");
  ASSERT_TRUE(s) << s.error().to_string();
  EXPECT_EQ(s->model, "demo.gguf");
  EXPECT_EQ(s->serving.router, "swarm");
  EXPECT_EQ(s->serving.step_tokens, 512);
  EXPECT_EQ(s->transport, "zmq");
  EXPECT_FALSE(s->curve);
  ASSERT_EQ(s->workers.size(), 2u);
  EXPECT_EQ(s->workers[0].layers, (LayerRange{0, 4}));
  EXPECT_EQ(s->workers[1].name, "worker-2");
  EXPECT_FALSE(s->workers[1].layers);
  const ScenarioLink* link = s->link_between("worker-2", "alpha");
  ASSERT_NE(link, nullptr);
  EXPECT_DOUBLE_EQ(link->latency.value, 0.05);
  EXPECT_DOUBLE_EQ(link->bandwidth.value, 12.5e6);
  EXPECT_EQ(s->link_between("alpha", "coordinator"), nullptr);
  EXPECT_EQ(s->workload.rate, 2.0);
}

TEST(Scenario, FaultsNameThePlaceTheValueAndTheRemedy) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {"model = \"x\"", "schema"},
      {"schema = 2", "2 is not 1"},
      {"schema = 1\nmodle = \"x\"", "no key 'modle'"},
      {"schema = 1\n[serving]\nrouter = \"fast\"", "one of iwrr"},
      {"schema = 1\n[serving]\nstep_tokens = 0", "from 1 to"},
      {"schema = 1\n[[workers]]\nlayers = [4, 4]", "begin below end"},
      {"schema = 1\n[[workers]]\nname = \"a\"\n[[workers]]\nname = \"a\"", "two workers"},
      {"schema = 1\n[[workers]]\nname = \"coordinator\"", "coordinator"},
      {"schema = 1\n[[workers]]\nname = \"a b\"", "no spaces"},
      {"schema = 1\n[[workers]]\nname = \"a\\u0000b\"", "printable"},
      {"schema = 1\n[[workers]]\nname = \"\\u00c4\"", "printable"},
      {"schema = 1\n[[workers]]\nname = "
       "\"a2345678901234567890123456789012345678901234567890123456789012345\"", "1 to 64"},
      {"schema = 1\n[[workers]]\nkv_tokens = 1073741825", "to 1073741824"},
      {"schema = 1\n[[workers]]\nspeed = nan", "nan is not a number"},
      {"schema = 1\n[[workers]]\nname = \"a\"\n[[links]]\nbetween = [\"a\", \"a\"]", "to itself"},
      {"schema = 1\n[[workers]]\nname = \"a\"\n[[links]]\nbetween = [\"a\", \"coordinator\"]\n"
       "[[links]]\nbetween = [\"coordinator\", \"a\"]\nlatency = 1", "given twice"},
      {"schema = 1\n[[workers]]\nname = \"a\"\n[[links]]\nbetween = [\"a\", \"coordinator\"]\n"
       "bandwidth = -5", "-5 is not a speed"},
      {"schema = 1\n[[workers]]\nemulate = true", "machine type"},
      {"schema = 1\n[[links]]\nlatency = \"1 ms\"", "'between' is missing"},
      {"schema = 1\n[[links]]\nbetween = [\"a\", \"b\"]", "neither a worker nor a site"},
      {"schema = 1\n[[links]]\nbetween = [\"a\", \"b\"]\nloss = 1.5", "from 0 to 0.99"},
      {"schema = 1\n[[links]]\nbetween = [\"a\", \"b\"]\ncut = 1", "from 0 to 0.99"},
      {"schema = 1\nworkers = 3", "a list of workers"},
      {"schema = 1\n[emulation]\nslowness = 0", "from 0.001 to"},
      {"schema = 1\n[emulation]\nplan_workers = true", "needs 'cluster'"},
      {"schema = 1\ncluster = \"c\"\nplan = \"p\"\n[emulation]\nplan_workers = true\n[[workers]]",
       "from the plan"},
  };
  for (const auto& c : cases) {
    const auto s = parse(c.text);
    ASSERT_FALSE(s) << c.text;
    EXPECT_NE(s.error().to_string().find(c.says), std::string::npos) << s.error().to_string();
  }
}

TEST(Scenario, RoutersHaveTheNamesOfTheCommandsToo) {
  for (const char* name :
       {"iwrr", "flow", "maxflow", "shortest_queue", "shortest-queue", "random"}) {
    const auto s = parse(std::string("schema = 1\n[serving]\nrouter = \"") + name + "\"");
    ASSERT_TRUE(s) << s.error().to_string();
  }
}

TEST(Scenario, PrintsWhatItReads) {
  for_seeds(200, [](Rng& rng) {
    Scenario s;
    s.model = "m.gguf";
    if (rng.below(2) == 0) s.name = "a \"quoted\" name";
    if (rng.below(2) == 0) s.plan = "plan.toml";
    s.serving.context = static_cast<int32_t>(rng.below(5000));
    s.serving.prefix_cache = rng.below(2) == 0;
    s.serving.async = rng.below(2) == 0;
    s.serving.extra_steps = static_cast<int32_t>(rng.below(5));
    s.transport = rng.below(2) == 0 ? "zmq" : "shm";
    for (uint64_t i = 0; i < 1 + rng.below(6); ++i) {
      ScenarioWorker w;
      w.name = "w" + std::to_string(i);
      if (rng.below(2) == 0) w.layers = {static_cast<int32_t>(i), static_cast<int32_t>(i) + 3};
      w.speed = 0.5 + rng.unit();
      w.tensor_parallel = 1 + static_cast<int32_t>(rng.below(4));
      w.stages = 1 + static_cast<int32_t>(rng.below(3));
      if (rng.below(2) == 0) w.site = "s" + std::to_string(rng.below(3));
      if (rng.below(3) == 0) {
        w.type = "T4";
        w.emulate = true;
      }
      s.workers.push_back(w);
    }
    s.links.push_back({"w0", "coordinator", Seconds(rng.unit()), Seconds(0), BytesPerSec(1e6), 0.1,
                       rng.unit() / 2, rng.unit() / 2, rng.unit() / 2, rng.unit() / 2,
                       static_cast<int64_t>(rng.below(1000))});
    if (rng.below(2) == 0) s.emulation = {"llama2-70b", 2.5, true, false};
    if (rng.below(2) == 0) {
      s.workload = {"t.csv", 2.5, 100, 7, 128, static_cast<int32_t>(rng.below(3))};
    }
    const auto back = parse(print_scenario(s));
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(*back, s);
  });
}

}  // namespace
}  // namespace towline::spec
