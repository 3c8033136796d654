// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/region_links.hpp"

#include <gtest/gtest.h>

namespace towline::spec {
namespace {

TEST(RegionLinks, JoinsWhatTheFilesSayOfAPair) {
  RegionLinks links;
  ASSERT_TRUE(links.read("src_region,x,dst_region,avg_rtt,mdev_rtt\na,,b,100,2\na,,b,90,4\n", "l"));
  ASSERT_TRUE(links.read("src_region,dst_region,throughput_sent\na,b,8e9\na,b,4e9\nb,a,\n", "t"));
  ASSERT_TRUE(links.read("src,dest,cost\na,b,0.09\na,b,0.02\n", "c"));
  const RegionLink there = links.between("a", "b"), back = links.between("b", "a");
  EXPECT_DOUBLE_EQ(there.latency->value, 0.045);
  EXPECT_DOUBLE_EQ(there.jitter.value, 0.002);
  EXPECT_DOUBLE_EQ(there.bandwidth->value, 1e9);
  EXPECT_DOUBLE_EQ(there.price, 0.02);
  EXPECT_DOUBLE_EQ(back.latency->value, 0.045);  // a round trip is the same both ways
  EXPECT_FALSE(back.bandwidth);
  EXPECT_TRUE(links.knows("a"));
  EXPECT_FALSE(links.knows("c"));
  EXPECT_FALSE(links.between("a", "c").latency);
}

TEST(RegionLinks, FaultsAreNamed) {
  const auto failure = [](const std::string& text) {
    RegionLinks links;
    const auto read = links.read(text, "t");
    EXPECT_FALSE(read) << text;
    return read ? std::string() : read.error().to_string();
  };
  EXPECT_NE(failure("").find("empty"), std::string::npos);
  EXPECT_NE(failure("a,b\n").find("no known columns"), std::string::npos);
  EXPECT_NE(failure("src,dst,cost\na,b\n").find("t:2"), std::string::npos);
  EXPECT_NE(failure("src,dst,cost\na,b,-1\n").find("out of range"), std::string::npos);
}

}  // namespace
}  // namespace towline::spec
