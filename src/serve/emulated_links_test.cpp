// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/emulated_links.hpp"

#include <gtest/gtest.h>

#include <tuple>

#include "base/json.hpp"

namespace towline::serve {
namespace {

spec::Scenario scenario(const std::string& links) {
  const Result<Json> tree = parse_toml(R"(schema = 1
model = "m.gguf"
[[workers]]
name = "a"
site = "attic"
[[workers]]
name = "b"
site = "attic"
[[workers]]
name = "c"
site = "cellar"
)" + links, "test");
  EXPECT_TRUE(tree) << tree.error().to_string();
  auto s = spec::parse_scenario(*tree, "test");
  EXPECT_TRUE(s) << s.error().to_string();
  return std::move(s).value();
}

TEST(EmulatedLinks, SitesAndNamesBothWays) {
  const auto s = scenario(R"([[links]]
between = ["attic", "cellar"]
latency = "50 ms"
jitter = "2 ms"
bandwidth = "100 mbit"
loss = 0.01
[[links]]
between = ["coordinator", "c"]
latency = "7 ms"
[[links]]
between = ["a", "b"]
bandwidth = "8 mbit"
)");
  const EmulatedLinks links = EmulatedLinks::of(s, nullptr);
  EXPECT_FALSE(links.empty());
  for (const auto& [from, to] : {std::pair("a", "c"), {"c", "a"}, {"b", "c"}, {"c", "b"}}) {
    const net::Faults& f = links.from(from).at(to);
    EXPECT_EQ(f.delay, milliseconds(50));
    EXPECT_EQ(f.jitter, milliseconds(2));
    EXPECT_EQ(f.bytes_per_second, 12.5e6);
    EXPECT_EQ(f.loss, 0.01);
  }
  EXPECT_EQ(links.from("coordinator").size(), 1u);
  EXPECT_EQ(links.from("coordinator").at("c").delay, milliseconds(7));
  EXPECT_EQ(links.from("c").at("coordinator").delay, milliseconds(7));
  EXPECT_EQ(links.from("b").at("a").bytes_per_second, 1e6);
  EXPECT_FALSE(links.from("a").contains("a"));
  EXPECT_FALSE(links.from("a").contains("coordinator"));
  EXPECT_TRUE(links.from("nobody").empty());
}

TEST(EmulatedLinks, TextIsWhatTheOtherSideReads) {
  const auto s = scenario("[[links]]\nbetween = [\"attic\", \"cellar\"]\nlatency = \"33.25 ms\"\n"
                          "bandwidth = 1234567\nloss = 0.125\nduplicate = 0.25\nreorder = 0.375\n"
                          "corrupt = 0.0625\ncut = 0.03125\nseed = 77\n");
  const EmulatedLinks links = EmulatedLinks::of(s, nullptr);
  const Json text = EmulatedLinks::to_json(links.from("a"));
  const auto read = net::parse_faults(text["c"].as_string());
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(*read, links.from("a").at("c"));
  const net::Faults& f = *read;
  EXPECT_EQ(std::tie(f.duplicate, f.reorder, f.corrupt, f.cut),
            std::tuple(0.25, 0.375, 0.0625, 0.03125));
  EXPECT_EQ(f.seed, 77u);
}

TEST(EmulatedLinks, OfAClusterFileWhereTheScenarioIsSilent) {
  spec::ClusterDesc cluster;
  cluster.nodes = {{"a", 0, 1, ""}, {"b", 0, 1, ""}, {"c", 0, 1, ""}};
  cluster.links = {{0, 1, BytesPerSec(5e6), Seconds(0.001)},
                   {1, 0, BytesPerSec(6e6), Seconds(0.002)},
                   {0, 2, BytesPerSec(7e6), Seconds(0.003)},
                   {spec::kSource, 0, BytesPerSec(8e6), Seconds(0.004)},
                   {2, spec::kSink, BytesPerSec(9e6), Seconds(0.005)}};
  const auto s = scenario("[[links]]\nbetween = [\"a\", \"c\"]\nlatency = \"9 ms\"\n");
  const EmulatedLinks links = EmulatedLinks::of(s, &cluster);
  EXPECT_EQ(links.from("a").at("b").bytes_per_second, 5e6);
  EXPECT_EQ(links.from("b").at("a").delay, milliseconds(2));
  EXPECT_EQ(links.from("a").at("c").delay, milliseconds(9));
  EXPECT_EQ(links.from("a").at("c").bytes_per_second, 0);
  EXPECT_EQ(links.from("coordinator").at("a").delay, milliseconds(4));
  EXPECT_EQ(links.from("c").at("coordinator").bytes_per_second, 9e6);
  EXPECT_TRUE(EmulatedLinks::of(scenario(""), nullptr).empty());
}

}  // namespace
}  // namespace towline::serve
