// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/profile.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace towline::spec {
namespace {

std::string golden_path() {
  const char* shared = std::getenv("TOWLINE_SHARED");
  return std::string(shared != nullptr ? shared : "../shared") +
         "/data/helix/profiles/derived/derived_throughput.json";
}

// Every number that Helix derives, for two models and six mixes, to the last bit.
TEST(Profile, DerivesHelixsTables) {
  if (!std::filesystem::exists(golden_path())) {
    GTEST_SKIP() << "no shared data at " << golden_path() << "; set TOWLINE_SHARED";
  }
  const Result<Json> golden = load_json(golden_path());
  ASSERT_TRUE(golden);
  int compared = 0;
  for (const auto& [key, mix_tree] : golden->members()) {
    const std::string model = key.starts_with("llama2_70b") ? "llama2-70b" : "llama1-30b";
    MachineMix mix;
    for (const auto& [type, count] : mix_tree["machine_num"].members()) {
      mix.emplace_back(type, static_cast<int32_t>(count.as_int()));
    }
    const Result<Profile> profile = builtin_profile(model);
    ASSERT_TRUE(profile);
    const auto tables = derive_rates(*profile, mix);
    ASSERT_TRUE(tables) << tables.error().to_string();
    for (const auto& [type, rows] : mix_tree["types"].members()) {
      const RateTable* table = find_table(*tables, type);
      ASSERT_NE(table, nullptr);
      EXPECT_EQ(table->typical_layers, mix_tree["typical_layers"][type].as_int());
      ASSERT_EQ(table->points.size(), rows.size());
      for (size_t i = 0; i < rows.size(); ++i) {
        const OperatingPoint& point = table->points[i];
        const Json& row = rows[i];
        SCOPED_TRACE(key + " " + type + " " + std::to_string(point.layers));
        const double rate = row["token_throughput"].as_double();
        EXPECT_EQ(point.rate.value, rate);
        EXPECT_EQ(point.kv_layer_tokens, row["kv_capacity_layer_tokens"].as_int());
        EXPECT_EQ(point.prompt_max_requests, row["prompt_max_requests"].as_int());
        EXPECT_EQ(point.prompt_max_tokens, row["prompt_max_tokens"].as_int());
        EXPECT_EQ(point.prompt_typical_requests, row["prompt_typical_requests"].as_double());
        EXPECT_EQ(point.prompt_typical_tokens, row["prompt_typical_tokens"].as_int());
        EXPECT_EQ(point.decode_max_context, row["decode_max_context"].as_int());
        EXPECT_EQ(point.decode_max_tokens, row["decode_max_tokens"].as_int());
        EXPECT_EQ(point.decode_typical_tokens, row["decode_typical_tokens"].as_int());
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 200);
}

TEST(Profile, FilesKeepEverything) {
  for (const std::string& name : builtin_models()) {
    const Result<Profile> profile = builtin_profile(name);
    ASSERT_TRUE(profile);
    const auto text = profile_to_json(*profile).dump(1);
    const auto tree = parse_json(text, "p");
    ASSERT_TRUE(tree);
    const auto again = parse_profile(*tree, "p");
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(*again, *profile);
    const auto toml = parse_toml(profile_to_toml(*profile), "p.toml");
    ASSERT_TRUE(toml) << toml.error().to_string();
    const auto from_toml = parse_profile(*toml, "p.toml");
    ASSERT_TRUE(from_toml) << from_toml.error().to_string();
    EXPECT_EQ(*from_toml, *profile);
  }
  // What only measurements and rooflines have.
  Profile profile = *builtin_profile("llama2-70b");
  DeviceProfile& device = profile.devices.front();
  device.decode_context_seconds = 1.25e-9;
  device.prompt_context_seconds = 3e-11;
  device.decode_context = 512;
  device.prompt_context = device.shared_weights = true;
  device.head = {{0, Seconds(0)}, {1, Seconds(0.002)}, {8, Seconds(0.0025)}};
  const auto toml = parse_toml(profile_to_toml(profile), "p.toml");
  ASSERT_TRUE(toml) << toml.error().to_string();
  EXPECT_EQ(*parse_profile(*toml, "p.toml"), profile);
  EXPECT_EQ(*parse_profile(profile_to_json(profile), "p"), profile);
}

TEST(Profile, TakesMeasuredRatesAsTheyAre) {
  const auto tree = parse_json(
      R"({"schema": 1, "model": {"name": "m", "layers": 4, "activation_bytes": 128,
          "layer_bytes": 1000}, "devices": [{"type": "box", "rates": [100, 120, 30]}]})",
      "p");
  ASSERT_TRUE(tree);
  const auto profile = parse_profile(*tree, "p");
  ASSERT_TRUE(profile) << profile.error().to_string();
  const auto tables = derive_rates(*profile, {{"box", 3}});
  ASSERT_TRUE(tables) << tables.error().to_string();
  ASSERT_EQ(tables->size(), 1u);
  ASSERT_EQ((*tables)[0].points.size(), 3u);
  EXPECT_EQ((*tables)[0].points[1].rate.value, 120);
}

TEST(Profile, RefusesBadFilesWithTheRemedy) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"schema": 2})", "schema must be 1"},
      {R"({"schema": 1, "model": {"layers": 0}})", "layers (1 to 10000)"},
      {R"({"schema": 1, "model": {"layers": 4, "activation_bytes": 1, "layer_bytes": 1}})",
       "'devices' is empty"},
      {R"({"schema": 1, "model": {"layers": 4, "activation_bytes": 1, "layer_bytes": 1},
          "devices": [{"type": "a", "rates": [-1]}]})",
       "rates must lie"},
      {R"({"schema": 1, "model": {"layers": 4, "activation_bytes": 1, "layer_bytes": 1},
          "devices": [{"type": "a", "kv_blocks": [5], "prompt_max_requests": [1],
          "decode_max_tokens": [1], "prompt": [[5, 1], [5, 2]]}]})",
       "must ascend"},
      {R"({"schema": 1, "model": {"layers": 4, "activation_bytes": 1, "layer_bytes": 1},
          "devices": [{"type": "a", "rates": [1]}, {"type": "a", "rates": [1]}]})",
       "twice"},
  };
  for (const auto& [text, says] : cases) {
    const auto tree = parse_json(text, "p");
    ASSERT_TRUE(tree);
    const auto profile = parse_profile(*tree, "p");
    ASSERT_FALSE(profile) << text;
    EXPECT_NE(profile.error().to_string().find(says), std::string::npos)
        << profile.error().to_string();
    EXPECT_EQ(exit_code(profile.error().code()), 2);
  }
  const auto unknown = derive_rates(*builtin_profile("llama2-70b"), {{"H100", 1}});
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().to_string().find("'H100'"), std::string::npos);
}

TEST(Profile, InterpolatesBetweenRowsAndHoldsTheEnds) {
  const std::vector<LayerTime> table = {{0, Seconds(0)}, {10, Seconds(1)}, {30, Seconds(2)}};
  EXPECT_EQ(interpolate(table, 5).value, 0.5);
  EXPECT_EQ(interpolate(table, 20).value, 1.5);
  EXPECT_EQ(interpolate(table, 30).value, 2);
  EXPECT_EQ(interpolate(table, 1000).value, 2);
}

}  // namespace
}  // namespace towline::spec
