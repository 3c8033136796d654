// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/roofline.hpp"

#include <gtest/gtest.h>

#include "spec/model_shapes.hpp"

namespace towline::spec {
namespace {

// What was measured on the machines that are known is met within a factor of 2.2.
TEST(Roofline, IsNearToMeasurements) {
  const ModelDesc model = *model_shape("llama2-70b");
  const Profile measured = *builtin_profile("llama2-70b");
  for (const char* type : {"T4", "L4", "V100", "A100"}) {
    const auto device = roofline_device(model, *known_device(type));
    ASSERT_TRUE(device) << device.error().to_string();
    const DeviceProfile& truth = *measured.find(type);
    for (const double tokens : {500.0, 1000.0, 2000.0}) {
      const double ratio =
          interpolate(device->prompt, tokens).value / interpolate(truth.prompt, tokens).value;
      EXPECT_TRUE(0.45 < ratio && ratio < 2.2) << type << " prompt " << tokens << ": " << ratio;
    }
    for (const double sequences : {10.0, 100.0, 200.0}) {
      const double ratio = interpolate(device->decode, sequences).value /
                           interpolate(truth.decode, sequences).value;
      EXPECT_TRUE(0.45 < ratio && ratio < 2.2) << type << " decode " << sequences << ": " << ratio;
    }
    EXPECT_NEAR(device->max_layers(), truth.max_layers(), 1) << type;
  }
}

TEST(Roofline, MakesTablesThatRatesCanBeDerivedFrom) {
  ClusterDesc cluster;
  cluster.types = {{"A100", Bytes(40'000'000'000), BytesPerSec(1e9), BytesPerSec(1e9),
                    BytesPerSec(1e9)},
                   {"box", Bytes(64'000'000'000), BytesPerSec(1e9), BytesPerSec(1e9),
                    BytesPerSec(1e9)}};
  cluster.types[1].flops = 1e12;
  cluster.types[1].memory_bandwidth = BytesPerSec(1e11);
  cluster.nodes = {{"a", 0, 2, ""}, {"b", 1, 1, ""}};
  const auto profile = roofline_profile(*model_shape("llama-3.1-8b"), cluster, 0.5625);
  ASSERT_TRUE(profile) << profile.error().to_string();
  ASSERT_EQ(profile->devices.size(), 3u);
  EXPECT_EQ(profile->devices[1].type, "A100x2");
  const auto tables = derive_rates(*profile, {{"A100x2", 1}, {"box", 1}});
  ASSERT_TRUE(tables) << tables.error().to_string();
  for (const RateTable& table : *tables) {
    ASSERT_FALSE(table.points.empty());
    for (const OperatingPoint& point : table.points) EXPECT_GT(point.rate.value, 0) << table.type;
  }
  // It also survives the file.
  const auto again = parse_profile(profile_to_json(*profile), "again");
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->devices.size(), profile->devices.size());
}

TEST(Roofline, SaysWhatItDoesNotKnow) {
  ClusterDesc cluster;
  cluster.types = {{"toaster", Bytes(1'000'000'000), BytesPerSec(1e9), BytesPerSec(1e9),
                    BytesPerSec(1e9)}};
  cluster.nodes = {{"a", 0, 1, ""}};
  const ModelDesc model = *model_shape("llama2-70b");
  const auto unknown = roofline_profile(model, cluster);
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().to_string().find("toaster"), std::string::npos);
  cluster.types[0].name = "T4";
  const auto small = roofline_profile(model, cluster);
  ASSERT_FALSE(small);
  EXPECT_NE(small.error().to_string().find("none fits"), std::string::npos);
}

}  // namespace
}  // namespace towline::spec
