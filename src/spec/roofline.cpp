// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/roofline.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "base/fmt.hpp"

namespace towline::spec {
namespace {

constexpr double kStartUp = 150e-6;      // seconds a layer costs however small the batch
constexpr double kGroupEfficiency = 0.8;  // of tensor parallelism, each time the group doubles
constexpr double kMemoryShare = 0.85;    // of the memory, for weights and KV together
constexpr double kPromptBatchSeconds = 0.06;  // a layer's batch of prompts should not take longer
constexpr int32_t kMostPrompts = 4;
constexpr int32_t kMostDecodes = 480;
constexpr double kContext = kAverageInput + kAverageOutput / 2.0;  // tokens a decode attends to

struct Known {
  std::string_view type;
  double gigabytes, teraflops, gigabytes_per_second;
};
// Dense 2-byte (FP16/BF16) tensor rates and memory bandwidths from the makers' data sheets.
constexpr Known kKnown[] = {
    {"T4", 16, 65, 320},           {"L4", 24, 121, 300},         {"V100", 16, 125, 900},
    {"V100-32", 32, 125, 900},     {"A10", 24, 125, 600},        {"A10G", 24, 70, 600},
    {"A30", 24, 165, 933},         {"A40", 48, 150, 696},        {"A100", 40, 312, 1555},
    {"A100-80", 80, 312, 2039},    {"L40S", 48, 362, 864},       {"H100", 80, 989, 3350},
    {"RTX3090", 24, 71, 936},      {"RTX4090", 24, 165, 1008},   {"P100", 16, 18.7, 732},
};

struct Speeds {
  double flops, bandwidth, memory;
};

double prompt_seconds(const Speeds& at, double operations, double weight_bytes, double tokens) {
  return kStartUp + std::max(operations * tokens / at.flops, weight_bytes / at.bandwidth);
}

double decode_seconds(const Speeds& at, double operations, double weight_bytes, double kv_bytes,
                      double sequences) {
  const double traffic = weight_bytes + sequences * kContext * kv_bytes;
  return kStartUp + std::max(operations * sequences / at.flops, traffic / at.bandwidth);
}

std::vector<int32_t> groups_of(const ClusterDesc& cluster, int32_t type, int32_t largest) {
  std::set<int32_t> sizes;
  for (const ClusterNode& node : cluster.nodes) {
    if (node.type != type) continue;
    for (int32_t g = 1; g <= std::min(node.devices, largest); g *= 2) sizes.insert(g);
  }
  return {sizes.begin(), sizes.end()};
}

}  // namespace

std::optional<DeviceSpeed> known_device(std::string_view type) {
  const auto same = [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) ==
           std::toupper(static_cast<unsigned char>(b));
  };
  for (const Known& known : kKnown) {
    if (std::equal(type.begin(), type.end(), known.type.begin(), known.type.end(), same)) {
      return DeviceSpeed{std::string(known.type), Bytes(std::llround(known.gigabytes * 1e9)),
                         known.teraflops * 1e12, BytesPerSec(known.gigabytes_per_second * 1e9)};
    }
  }
  return std::nullopt;
}

Result<DeviceProfile> roofline_device(const ModelDesc& model, const DeviceSpeed& speed,
                                      int32_t group, double bytes_per_weight) {
  if (!(speed.flops > 0 && speed.flops < 1e19) || !(speed.memory_bandwidth.value > 0) ||
      !(speed.memory_bandwidth.value < 1e16) || speed.memory.value <= 0) {
    return errorf(Code::kInvalidArgument,
                  "machine type '{}': memory, flops and memory bandwidth must be above 0",
                  speed.type);
  }
  if (!(bytes_per_weight > 0 && bytes_per_weight <= 8)) {
    return errorf(Code::kInvalidArgument, "{} bytes a weight; give a figure above 0 and up to 8",
                  bytes_per_weight);
  }
  const double gain = group * std::pow(kGroupEfficiency, std::log2(group));
  const Speeds at{speed.flops * kArithmeticShare * gain,
                  speed.memory_bandwidth.value * kBandwidthShare * gain,
                  static_cast<double>(speed.memory.value) * group};
  const auto parameters = static_cast<double>(model.layer_parameters());
  const double weight_bytes = parameters * bytes_per_weight;
  const double operations = 2 * parameters;  // a token, one layer
  const auto kv_bytes = static_cast<double>(model.kv_bytes_per_token_layer().value);

  DeviceProfile device;
  device.type = group == 1 ? speed.type : format("{}x{}", speed.type, group);
  const auto most = static_cast<int32_t>(
      std::min<double>(model.layers, std::floor(at.memory / (2 * weight_bytes))));
  if (most < 1) {
    return errorf(Code::kInvalidArgument,
                  "machine type '{}': a layer of '{}' takes {:.2f} GB and half of the memory is "
                  "{:.2f} GB, so none fits; use larger machines or a quantised model",
                  device.type, model.name, weight_bytes * 1e-9, at.memory * 0.5e-9);
  }
  const double longest = prompt_seconds(at, operations, weight_bytes, kMaxInput);
  const auto prompts =
      std::clamp(static_cast<int32_t>(kPromptBatchSeconds / longest), 1, kMostPrompts);
  for (double tokens = 0; tokens <= kMaxInput * prompts + 250; tokens += 250) {
    device.prompt.push_back(
        {tokens, Seconds(tokens > 0 ? prompt_seconds(at, operations, weight_bytes, tokens) : 0)});
  }
  for (double n = 0; n <= kMostDecodes + 20; n += n < 20 ? 2 : n < 100 ? 5 : 20) {
    device.decode.push_back(
        {n, Seconds(n > 0 ? decode_seconds(at, operations, weight_bytes, kv_bytes, n) : 0)});
  }
  for (int32_t k = 1; k <= most; ++k) {
    const double room = std::max(0.0, kMemoryShare * at.memory - k * weight_bytes);
    const auto blocks = static_cast<int64_t>(room / (k * kv_bytes * kBlockTokens));
    device.kv_blocks.push_back(blocks);
    device.prompt_max_requests.push_back(prompts);
    device.decode_max_tokens.push_back(static_cast<int32_t>(std::clamp<int64_t>(
        blocks * kBlockTokens / (kAverageInput + kAverageOutput), 1, kMostDecodes)));
  }
  // Attention: a decode reads the K and V of its context; a prompt's row multiplies
  // with those before it, twice (scores, values), an operation being half of a
  // multiplication with its addition.
  device.decode_context = static_cast<int32_t>(kContext);
  device.decode_context_seconds = kv_bytes / at.bandwidth;
  device.prompt_context_seconds = 4.0 * model.q_width() / at.flops;
  device.shared_weights = true;
  device.start_speed = 1 / longest;
  device.roomy_layers = std::max(1, most * 2 / 3);
  device.tight_layers = most;
  return device;
}

Result<Profile> roofline_profile(const ModelDesc& model, const ClusterDesc& cluster,
                                 double bytes_per_weight, int32_t largest_group) {
  Profile profile;
  profile.model = shape_of(model);
  profile.model.layer_bytes = Bytes(
      std::llround(static_cast<double>(model.layer_parameters()) * bytes_per_weight));
  std::string refused;
  for (size_t t = 0; t < cluster.types.size(); ++t) {
    const MachineType& type = cluster.types[t];
    DeviceSpeed speed{type.name, type.memory, type.flops, type.memory_bandwidth};
    const std::optional<DeviceSpeed> known = known_device(type.name);
    if (speed.flops <= 0 && known) speed.flops = known->flops;
    if (speed.memory_bandwidth.value <= 0 && known) {
      speed.memory_bandwidth = known->memory_bandwidth;
    }
    const std::vector<int32_t> groups =
        groups_of(cluster, static_cast<int32_t>(t), largest_group);
    if (groups.empty()) continue;  // no such machine
    if (speed.flops <= 0 || speed.memory_bandwidth.value <= 0) {
      return errorf(Code::kInvalidArgument,
                    "machine type '{}' is not a known device: give its 'flops' and "
                    "'memory_bandwidth' in the cluster file, or a measured profile",
                    type.name);
    }
    for (const int32_t group : groups) {
      Result<DeviceProfile> device = roofline_device(model, speed, group, bytes_per_weight);
      if (device) {
        profile.devices.push_back(*std::move(device));
      } else {
        refused = device.error().message();
      }
    }
  }
  if (profile.devices.empty()) return Error(Code::kInvalidArgument, refused);
  return profile;
}

}  // namespace towline::spec
