// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/stage_cost.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "sim/helix_load.hpp"

namespace towline::sim {
namespace {

// One machine of one layer, from a profile.
HelixInput input_of(const spec::DeviceProfile& device) {
  spec::Profile profile;
  profile.model = {"m", 1, Bytes(2), Bytes(1000), Bytes(1000)};
  profile.devices.push_back(device);
  spec::HelixSimCluster cluster;
  cluster.coordinator_nic_in.value = cluster.coordinator_nic_out.value = 1e9;
  spec::HelixSimCluster::Node node;
  node.name = spec::helix_node_name(0);
  node.machine_type = device.type;
  node.nic_in.value = node.nic_out.value = node.disk.value = 1e9;
  node.kv_capacity = 1000;
  cluster.nodes.push_back(node);
  spec::HelixSolution solution;
  solution.nodes.push_back({0, 1});
  auto input = make_helix_input(cluster, solution, profile, {});
  EXPECT_TRUE(input) << (input ? "" : input.error().to_string());
  return input ? *std::move(input) : HelixInput();
}

spec::DeviceProfile any_device(Rng& rng) {
  spec::DeviceProfile d;
  d.type = "box";
  double prompt = 0, decode = 0;
  d.prompt.push_back({0, Seconds(0)});
  d.decode.push_back({0, Seconds(0)});
  for (int i = 1; i <= 8; ++i) {
    d.prompt.push_back({64.0 * i, Seconds(prompt += 1e-4 + 1e-3 * rng.unit())});
    d.decode.push_back({8.0 * i, Seconds(decode += 1e-5 + 1e-4 * rng.unit())});
  }
  d.kv_blocks = {200};
  d.prompt_max_requests = {1};
  d.decode_max_tokens = {64};
  d.start_speed = 1000;
  d.roomy_layers = d.tight_layers = 1;
  d.shared_weights = rng.below(2) == 0;
  if (rng.below(2) == 0) d.head = {{0, Seconds(0)}, {1, Seconds(1e-4)}, {32, Seconds(3e-3)}};
  if (rng.below(3) > 0) {
    d.decode_context_seconds = 1e-9 * rng.unit();
    d.prompt_context_seconds = 1e-9 * rng.unit();
    d.decode_context = static_cast<int32_t>(rng.below(600));
    d.prompt_context = rng.below(2) == 0;
  }
  return d;
}

// What an emulated worker sleeps is what the simulator counts.
TEST(StageCost, IsTheProfilesLayerTime) {
  for_seeds(200, [](Rng& rng) {
    const spec::DeviceProfile device = any_device(rng);
    const HelixInput input = input_of(device);
    StageCost cost(input, {});
    for (int i = 0; i < 20; ++i) {
      spec::LayerBatch batch;
      batch.prompt_tokens = static_cast<int32_t>(rng.below(400));
      batch.decodes = static_cast<int32_t>(rng.below(60));
      batch.prompt_context = static_cast<int64_t>(rng.below(1'000'000));
      batch.decode_context = static_cast<int64_t>(rng.below(100'000));
      const double expected = spec::layer_time(device, batch).value;
      const double counted = cost.layer_seconds(0, batch.prompt_tokens, batch.decodes,
                                                batch.prompt_context, batch.decode_context);
      EXPECT_NEAR(counted, expected, 1e-12);
      const auto drawn = static_cast<int32_t>(rng.below(80));
      EXPECT_NEAR(cost.head_seconds(0, drawn), spec::head_time(device, drawn).value, 1e-12);
    }
  });
}

TEST(StageCost, ContextCountsBeyondWhatTheTablesHold) {
  spec::DeviceProfile d;
  d.prompt = {{0, Seconds(0)}, {100, Seconds(0.1)}};
  d.decode = {{0, Seconds(0)}, {10, Seconds(0.01)}};
  d.shared_weights = d.prompt_context = true;
  d.decode_context = 500;
  d.decode_context_seconds = 1e-6;
  d.prompt_context_seconds = 1e-7;
  // Ten decodes at the table's context, and at twice that.
  EXPECT_NEAR(spec::layer_time(d, {0, 10, 0, 5000}).value, 0.01, 1e-12);
  EXPECT_NEAR(spec::layer_time(d, {0, 10, 0, 10'000}).value, 0.015, 1e-12);
  // One prompt from its beginning; its second half, which looks back on the first.
  EXPECT_NEAR(spec::layer_time(d, {100, 0, 100 * 99 / 2, 0}).value, 0.1, 1e-12);
  EXPECT_NEAR(spec::layer_time(d, {50, 0, 50 * 50 + 50 * 49 / 2, 0}).value, 0.05 + 2500e-7, 1e-12);
  // Mixed: one pass over the weights, and the decode's whole context.
  EXPECT_NEAR(spec::layer_time(d, {99, 1, 100 * 99 / 2, 500}).value, 0.1 + 500e-6, 1e-12);
}

}  // namespace
}  // namespace towline::sim
