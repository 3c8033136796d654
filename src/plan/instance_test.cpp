// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/instance.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::plan {
namespace {

constexpr std::string_view kTwoNodes =
    "# a comment\n4 2 4\n2 10 6.5\n3 9 8 7\n-1 0 100\n0 1 50\n1 -2 100\n-1 1 "
    "7e3\n";

std::string error_of(std::string_view text) {
  const Result<Instance> instance = parse_instance(text, "x.inst");
  return instance ? "no error" : instance.error().to_string();
}

TEST(Instance, ReadsWhatItPrints) {
  const Result<Instance> instance = parse_instance(kTwoNodes, "x.inst");
  ASSERT_TRUE(instance) << instance.error().to_string();
  EXPECT_EQ(instance->layers, 4);
  EXPECT_EQ(instance->nodes(), 2);
  EXPECT_EQ(instance->rate(1, 3), 7);
  EXPECT_EQ(instance->links.size(), 4u);
  EXPECT_EQ(instance->links[3].capacity, 7000);
  const std::string printed = print_instance(*instance);
  EXPECT_EQ(print_instance(*parse_instance(printed, "again")), printed);
}

TEST(Instance, FaultsAreOneSentenceWithTheLine) {
  EXPECT_EQ(error_of(""), "x.inst is empty; an instance begins with 'layers nodes links'");
  EXPECT_EQ(error_of("4 2\n"),
            "x.inst:1: an instance begins with 'layers nodes links', cannot read ''");
  EXPECT_EQ(error_of("4 1 1\n1 -3\n"),
            "x.inst:2: node 0: T(1) must be tokens/s from 0 to 1e15, found "
            "'-3.000000'");
  EXPECT_EQ(error_of("4 1 1\n1 nan\n"),
            "x.inst:2: node 0: T(1) must be tokens/s from 0 to 1e15, found 'nan'");
  EXPECT_EQ(error_of("4 1 1\n5 1 1 1 1 1\n"),
            "x.inst:2: node 0: the number of layers it can hold must be 0..4, "
            "found '5'");
  EXPECT_EQ(error_of("4 1 1\n1 5\n-1 3 9\n"),
            "x.inst:3: link to 3: must be a node 0..0 or -2 (the sink)");
  EXPECT_EQ(error_of("4 1 2\n1 5\n-1 0 9\n"), "x.inst:3: 2 links are announced, 1 given");
  EXPECT_EQ(error_of("4 1 0\n1 5\n-1 0 9\n"), "x.inst:3: more than the 0 links announced");
  EXPECT_EQ(error_of("4 99999 99999999\n"),
            "x.inst:1: 99999 nodes and 99999999 links are announced, the file "
            "is too short for them");
  EXPECT_EQ(error_of("4 1 1\n1 5\n-1 0 -9\n"),
            "x.inst:3: link -1 -> 0: the capacity must be tokens/s "
            "from 0 to 1e15, found -9");
}

TEST(Placement, ReadsWhatItPrintsAndKeepsIdleNodes) {
  const Instance instance = *parse_instance(kTwoNodes, "x.inst");
  const Result<Placement> placement = parse_placement("1 1 3\n0 0 0\n", "x.helix", instance);
  ASSERT_TRUE(placement) << placement.error().to_string();
  EXPECT_TRUE(placement->nodes[0].empty());
  EXPECT_EQ(placement->nodes[1], (LayerRange{1, 4}));
  EXPECT_EQ(print_placement(*placement), "0 0 0\n1 1 3\n");
}

TEST(Placement, RefusesWhatDoesNotFit) {
  const Instance instance = *parse_instance(kTwoNodes, "x.inst");
  const auto fails = [&](std::string_view text) {
    const Result<Placement> placement = parse_placement(text, "p", instance);
    return placement ? "no error" : placement.error().to_string();
  };
  EXPECT_EQ(fails("0 0 3\n"), "p:1: node 0: 3 layers do not fit; 0..2 do");
  EXPECT_EQ(fails("0 3 2\n"), "p:1: node 0: layers [3, 3+2) are outside the model's 4");
  EXPECT_EQ(fails("0 1 1\n0 2 1\n"), "p:2: node 0 is placed twice");
  EXPECT_EQ(fails("7 1 1\n"), "p:1: node 7: the cluster has nodes 0..1");
  EXPECT_EQ(fails("0 1\n"), "p:1: a placement line is 'node start count', cannot read ''");
}

TEST(Placement, MachinesLendADeviceOnce) {
  Instance instance = *parse_instance(kTwoNodes, "x.inst");
  instance.machines = {{.devices = 2, .nodes = {0, 1}, .node_devices = {2, 1}}};
  EXPECT_FALSE(parse_placement("0 0 1\n1 1 1\n", "p", instance));
  EXPECT_TRUE(parse_placement("1 1 1\n", "p", instance));
}

TEST(Usable, PartialAllowsABeginningInsideThePrevious) {
  EXPECT_TRUE(usable({0, 4}, {4, 6}, false));
  EXPECT_FALSE(usable({0, 4}, {3, 6}, false));
  EXPECT_TRUE(usable({0, 4}, {3, 6}, true));
  EXPECT_FALSE(usable({0, 4}, {3, 4}, true));
  EXPECT_FALSE(usable({0, 4}, {5, 6}, true));
}

// Damaged text never crashes a reader, and what is accepted is valid.
TEST(Instance, SaysWhenTheClusterIsTooSmallOrCutOff) {
  const auto why = [](const char* text) {
    const Result<void> room = check_room(*parse_instance(text, "t"));
    return room ? std::string() : room.error().to_string();
  };
  EXPECT_EQ(why("3 2 3\n2 9 8\n1 9\n-1 0 5\n0 1 5\n1 -2 5\n"), "");
  EXPECT_NE(why("4 2 3\n2 9 8\n1 9\n-1 0 5\n0 1 5\n1 -2 5\n").find("hold at most 3 layers"),
            std::string::npos);
  // A table that ends with rates of 0 holds less.
  EXPECT_NE(why("3 2 3\n2 9 0\n1 9\n-1 0 5\n0 1 5\n1 -2 5\n").find("hold at most 2 layers"),
            std::string::npos);
  EXPECT_NE(why("3 2 3\n2 9 8\n1 9\n-1 0 5\n0 1 0\n0 -2 5\n").find("only 1 of the 2 nodes"),
            std::string::npos);
  Instance machine = *parse_instance("4 3 6\n3 9 8 7\n2 9 8\n2 9 8\n-1 0 5\n-1 1 5\n-1 2 5\n"
                                     "0 -2 5\n1 -2 5\n2 -2 5\n", "t");
  EXPECT_TRUE(check_room(machine));
  machine.machines = {{.devices = 2, .nodes = {0, 1, 2}, .node_devices = {2, 1, 1}}};
  EXPECT_TRUE(check_room(machine));  // the two single devices
  machine.machines[0].devices = 1;
  EXPECT_FALSE(check_room(machine));
}

TEST(Instance, SurvivesDamage) {
  for_seeds(300, [](Rng& rng) {
    std::string text(kTwoNodes);
    for (uint64_t edits = rng.below(6) + 1; edits > 0; --edits) {
      const size_t at = rng.below(text.size());
      static constexpr std::string_view kBytes = "0123456789-. \n#eEn\x00x";
      text[at] = kBytes[rng.below(kBytes.size())];
    }
    const Result<Instance> instance = parse_instance(text, "damaged");
    if (instance) {
      EXPECT_TRUE(validate(*instance));
    }
  });
}

}  // namespace
}  // namespace towline::plan
