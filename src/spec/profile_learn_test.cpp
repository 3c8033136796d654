// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/profile_learn.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::spec {
namespace {

constexpr int32_t kLayers = 24;

DeviceProfile random_device(Rng& rng) {
  DeviceProfile device;
  device.type = "here";
  device.prompt.push_back({0, Seconds(0)});
  device.decode.push_back({0, Seconds(0)});
  device.head.push_back({0, Seconds(0)});
  for (const double tokens : {1, 16, 64, 128, 256, 512}) {
    device.prompt.push_back({tokens, Seconds(1e-4 * (1 + tokens * rng.unit()))});
  }
  for (const double tokens : {1, 2, 4, 8, 16}) {
    device.decode.push_back({tokens, Seconds(1e-3 * (1 + tokens * rng.unit()))});
    device.head.push_back({tokens, Seconds(1e-3 * tokens * (1 + rng.unit()))});
  }
  device.kv_blocks = {1000};
  device.start_speed = device.roomy_layers = device.tight_layers = 1;
  device.shared_weights = rng.below(2) == 0;
  device.prompt_context = rng.below(2) == 0;
  device.decode_context = 100;
  device.decode_context_seconds = 1e-7 * rng.unit();
  device.prompt_context_seconds = 1e-8 * rng.unit();
  return device;
}

RunRecord random_run(Rng& rng) {
  RunRecord run;
  run.layers = {0, kLayers};
  if (rng.below(2) == 0) run.layers.end = static_cast<int32_t>(rng.between(1, kLayers));
  run.batch.decodes = static_cast<int32_t>(rng.between(1, 20));
  run.batch.decode_context = run.batch.decodes * rng.between(1, 300);
  if (rng.below(3) == 0) {
    run.batch.prompt_tokens = static_cast<int32_t>(rng.between(1, 400));
    run.batch.prompt_context =
        int64_t{run.batch.prompt_tokens} * (run.batch.prompt_tokens - 1) / 2;
  }
  run.drawn = run.batch.decodes;
  return run;
}

// On a machine that is slower by the same factor everywhere, the factor is found exactly,
// however few runs were seen and wherever.
TEST(ProfileLearn, OneFactorEverywhereIsFoundExactly) {
  for_seeds(200, [](Rng& rng) {
    const DeviceProfile device = random_device(rng);
    const double factor = 0.3 + 3 * rng.unit();
    std::vector<RunRecord> runs;
    const int64_t count = rng.between(1, 30);
    for (int64_t i = 0; i < count; ++i) {
      runs.push_back(random_run(rng));
      runs.back().begin = static_cast<double>(i);
      runs.back().seconds = factor * run_seconds(device, kLayers, runs.back());
    }
    const auto learned = learn_times(device, kLayers, runs);
    ASSERT_TRUE(learned);
    EXPECT_EQ(learned->runs, count);
    EXPECT_NEAR(learned->factor, factor, 1e-9);
    EXPECT_NEAR(learned->drift, 1, 1e-9);
    for (int i = 0; i < 20; ++i) {
      const RunRecord other = random_run(rng);
      EXPECT_NEAR(run_seconds(learned->device, kLayers, other),
                  factor * run_seconds(device, kLayers, other), 1e-9);
    }
  });
}

// Where much was seen, the times are those seen, whatever the profile had.
TEST(ProfileLearn, RowsThatWereSeenOftenGetTheirOwnTimes) {
  for_seeds(50, [](Rng& rng) {
    const DeviceProfile device = random_device(rng);
    std::vector<double> factors;
    std::vector<RunRecord> runs;
    for (const LayerTime& row : device.decode) {
      factors.push_back(0.5 + rng.unit());
      for (int i = 0; row.tokens > 0 && i < 2000; ++i) {
        RunRecord run;
        run.layers = {0, kLayers};
        run.batch.decodes = run.drawn = static_cast<int32_t>(row.tokens);
        run.batch.decode_context = run.batch.decodes * int64_t{device.decode_context};
        run.begin = static_cast<double>(runs.size());
        run.seconds = factors.back() * run_seconds(device, kLayers, run);
        runs.push_back(run);
      }
    }
    const auto learned = learn_times(device, kLayers, runs);
    ASSERT_TRUE(learned);
    ASSERT_EQ(learned->decode.size(), 5u);
    for (size_t i = 0; i < learned->decode.size(); ++i) {
      const LearnedRow& row = learned->decode[i];
      EXPECT_NEAR(row.after / row.before, factors[i + 1], 0.02);
      EXPECT_EQ(row.runs, 2000);
      EXPECT_EQ(learned->device.decode[i + 1].time.value, row.after);
    }
  });
}

TEST(ProfileLearn, SaysHowFarTheMachineDrifted) {
  Rng rng(7);
  const DeviceProfile device = random_device(rng);
  RunRecord run;
  run.layers = {0, kLayers};
  run.batch.decodes = 1;
  std::vector<RunRecord> runs(1000, run);
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i].begin = static_cast<double>(i);
    runs[i].seconds = run_seconds(device, kLayers, run) * (i < 500 ? 1 : 1.5);
  }
  const auto learned = learn_times(device, kLayers, runs);
  ASSERT_TRUE(learned);
  EXPECT_NEAR(learned->drift, 1.5, 1e-6);
  EXPECT_NEAR(learned->factor, 1.25, 1e-9);
}

TEST(ProfileLearn, RefusesWhatTeachesNothing) {
  Rng rng(1);
  const DeviceProfile device = random_device(rng);
  const auto nothing = learn_times(device, kLayers, {});
  ASSERT_FALSE(nothing);
  RunRecord mixed;  // through different layers
  mixed.batch.decodes = 1;
  mixed.seconds = 1;
  EXPECT_FALSE(learn_times(device, kLayers, {&mixed, 1}));
  DeviceProfile rates;
  rates.type = "rates only";
  const RunRecord run = random_run(rng);
  EXPECT_FALSE(learn_times(rates, kLayers, {&run, 1}));
}

}  // namespace
}  // namespace towline::spec
