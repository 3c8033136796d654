// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/churn.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/for_seeds.hpp"
#include "base/rng.hpp"

namespace towline::spec {
namespace {

ChurnTrace read(const std::string& text, uint64_t seed = 1) {
  auto trace = parse_churn(text, "t", seed);
  EXPECT_TRUE(trace) << (trace ? "" : trace.error().to_string());
  return trace ? *std::move(trace) : ChurnTrace();
}

std::string failure(const std::string& text) {
  const auto trace = parse_churn(text, "t", 1);
  EXPECT_FALSE(trace) << text;
  return trace ? "" : trace.error().to_string();
}

TEST(Churn, NamedMachinesComeAndGo) {
  const ChurnTrace t = read("0,add,a\n0,add,b\n1500,remove,a\n2000,remove,a\n4000,add,c\n");
  EXPECT_EQ(t.machines, 3);
  EXPECT_EQ(t.up_at_start, (std::vector<bool>{true, true, false}));
  EXPECT_EQ(t.events, (std::vector<ChurnEvent>{{1.5, 0, false}, {4.0, 2, true}}));
  EXPECT_EQ(t.seconds, 4.0);
}

TEST(Churn, FaultsOfOneMachineMayOverlap) {
  const ChurnTrace t = read(R"([
    {"node_id": "x", "event_time": 1, "event_type": "fault_start"},
    {"node_id": "x", "event_time": 2, "event_type": "fault_start"},
    {"node_id": "y", "event_time": 2, "event_type": "fault_end"},
    {"node_id": "x", "event_time": 3, "event_type": "fault_end"},
    {"node_id": "x", "event_time": 4, "event_type": "fault_end"}])");
  EXPECT_EQ(t.machines, 2);
  EXPECT_EQ(t.events, (std::vector<ChurnEvent>{{86'400.0, 0, false}, {4 * 86'400.0, 0, true}}));
}

TEST(Churn, CountsAreKeptWhoeverGoes) {
  const std::string ticks = R"({"metadata": {"gap_seconds": 10}, "data": [3, 3, 1, 2, 0, 4]})";
  const std::string lines = "0,3\n10000,3\n20000,1\n30000,2\n40000,0\n50000,4\n";
  const std::string dated =
      "2021-12-11, 11:11:30, 3\n2021-12-11, 11:11:40, 3\n2021-12-11, 11:11:50, 1\n"
      "2021-12-11, 11:12:00, 2\n2021-12-11, 11:12:10, 0\n2021-12-11, 11:12:20, 4\n";
  for_seeds(20, [&](Rng& rng) {
    const uint64_t seed = rng();
    for (const std::string& text : {ticks, lines, dated}) {
      const ChurnTrace t = read(text, seed);
      ASSERT_EQ(t.machines, 4);
      const int wanted[] = {3, 3, 1, 2, 0, 4};
      std::vector<bool> up = t.up_at_start;
      size_t next = 0;
      for (int tick = 0; tick < 6; ++tick) {
        for (; next < t.events.size() && t.events[next].at <= 10.0 * tick; ++next) {
          ASSERT_NE(up[t.events[next].machine], t.events[next].up);
          up[t.events[next].machine] = t.events[next].up;
        }
        ASSERT_EQ(std::count(up.begin(), up.end(), true), wanted[tick]) << tick;
      }
      ASSERT_EQ(next, t.events.size());
    }
  });
}

TEST(Churn, FaultsAreNamed) {
  EXPECT_NE(failure("").find("no machines"), std::string::npos);
  EXPECT_NE(failure("1000,add,a\n0,add,b").find("entry 2"), std::string::npos);
  EXPECT_NE(failure("0,3\n1,x").find("number of machines"), std::string::npos);
  EXPECT_NE(failure("0,sell,a").find("add|remove"), std::string::npos);
  EXPECT_NE(failure("{\"data\": []}").find("gap_seconds"), std::string::npos);
  EXPECT_NE(failure("[{\"event_time\": 1}]").find("node_id"), std::string::npos);
  EXPECT_NE(failure("[{\"node_id\": \"a\", \"event_time\": 1, \"event_type\": \"?\"}]")
                .find("fault_start"),
            std::string::npos);
  EXPECT_NE(failure("0,1e9").find("100000"), std::string::npos);
}

}  // namespace
}  // namespace towline::spec
