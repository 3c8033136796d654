// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the tests of this folder share: the shipped Helix data, and random problems.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/rng.hpp"
#include "plan/problem.hpp"

#define NEEDS_SHARED_DATA()                                               \
  if (!std::filesystem::exists(towline::plan::helix_folder())) {          \
    GTEST_SKIP() << "no shared data at " << towline::plan::helix_folder() \
                 << "; set TOWLINE_SHARED";                               \
  }

namespace towline::plan {

inline std::string helix_folder() {
  const char* shared = std::getenv("TOWLINE_SHARED");
  return std::string(shared != nullptr ? shared : "../shared") + "/data/helix";
}

// clusters/<cluster>.ini with the shipped machine profile and the built-in tables of `model`.
inline Result<PlanProblem> helix_problem(const std::string& cluster, const std::string& model) {
  ASSIGN_OR_RETURN(spec::ClusterDesc desc,
                   spec::load_any_cluster(helix_folder() + "/clusters/" + cluster + ".ini",
                                          helix_folder() + "/profiles/machine_profile.ini"));
  ASSIGN_OR_RETURN(const spec::Profile profile, spec::builtin_profile(model));
  return make_problem(std::move(desc), profile);
}

// A complete cluster of `nodes` machines of three types with measured rates, and a model of 4 to 12
// layers that fits.
inline PlanProblem random_problem(Rng& rng, int32_t nodes) {
  spec::Profile profile;
  profile.model = {"toy", static_cast<int32_t>(2 * rng.between(2, 6)), Bytes(2), Bytes(1000),
                   Bytes(1'000'000)};
  spec::ClusterDesc cluster;
  cluster.name = "toy";
  cluster.coordinator_nic_in = cluster.coordinator_nic_out = BytesPerSec(1e9);
  for (const std::string name : {"small", "middle", "large"}) {
    spec::DeviceProfile device;
    device.type = name;
    const auto most = rng.between(2, profile.model.layers);
    for (int64_t k = 1; k <= most; ++k) {
      device.rates.push_back(1000 * (0.2 + rng.unit()) / static_cast<double>(k));
      device.kv_blocks.push_back(1000);
    }
    profile.devices.push_back(std::move(device));
    cluster.types.push_back(
        {name, Bytes(1'000'000'000), BytesPerSec(1e9), BytesPerSec(1e9), BytesPerSec(1e9)});
  }
  for (int32_t i = 0; i < nodes; ++i) {
    cluster.nodes.push_back({spec::helix_node_name(i), static_cast<int32_t>(rng.below(3)), 1, ""});
  }
  for (int32_t from = kSource; from < nodes; ++from) {
    for (int32_t to = 0; to <= nodes; ++to) {
      const int32_t end = to == nodes ? kSink : to;
      if (from == end || (from == kSource && end == kSink)) continue;
      const bool outer = from == kSource || end == kSink;
      cluster.links.push_back(
          {from, end, BytesPerSec(outer ? 1e8 : 1e6 * (0.05 + rng.unit())), Seconds(0.001)});
    }
  }
  Result<PlanProblem> problem = make_problem(cluster, profile);
  // Too small for the model: one more machine at a time.
  const bool fits = problem && check_capacity(*problem);
  return fits ? *std::move(problem) : random_problem(rng, nodes + 1);
}

// Where two texts part, with what stands there; "" if nowhere.
inline std::string first_difference(const std::string& made, const std::string& wanted) {
  if (made == wanted) return "";
  size_t at = 0;
  while (at < made.size() && at < wanted.size() && made[at] == wanted[at]) ++at;
  return "at byte " + std::to_string(at) + ": '" + made.substr(at, 60) + "' instead of '" +
         wanted.substr(at, 60) + "'";
}

}  // namespace towline::plan
