// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the tests of this folder share: the shipped Helix data.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "sim/helix_load.hpp"

#define NEEDS_SHARED_DATA()                                           \
  if (!std::filesystem::exists(towline::sim::helix_data())) {         \
    GTEST_SKIP() << "no shared data at " << towline::sim::helix_data() \
                 << "; set TOWLINE_SHARED";                           \
  }

namespace towline::sim {

inline std::string helix_data() {
  const char* shared = std::getenv("TOWLINE_SHARED");
  return std::string(shared != nullptr ? shared : "../shared") + "/data/helix";
}

// The conversations of Azure: their lengths, and arrivals for the online mode.
inline HelixTraffic azure_traffic() {
  auto lengths = load_lengths(helix_data() + "/traces/lengths_azure_conv.csv");
  auto arrivals = load_arrival_bins(helix_data() + "/traces/arrivals_azure_conv.csv");
  EXPECT_TRUE(lengths && arrivals) << "in " << helix_data();
  return {std::move(lengths).value_or({}), std::move(arrivals).value_or({})};
}

}  // namespace towline::sim
