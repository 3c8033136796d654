// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Property tests: for_seeds(200, [](Rng& rng) { ... EXPECT_... }) runs the body with seeds 1..n and
// prints the seed of a failing run; TOWLINE_SEED=17 runs that one alone. Test code only.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

#include "base/rng.hpp"

namespace towline {

template <class Body>
void for_seeds(uint64_t count, Body&& body) {
  uint64_t first = 1;
  uint64_t last = count;
  if (const char* one = std::getenv("TOWLINE_SEED")) first = last = std::strtoull(one, nullptr, 10);
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(::testing::Message() << "re-run with TOWLINE_SEED=" << seed);
    Rng rng(seed);
    body(rng);
    if (::testing::Test::HasFailure()) return;
  }
}

// The same with seeds 1, 2, ... until the scripts have had `total` events in all, which the body
// counts: for_events(kMillionEvents, [](Rng& rng, int64_t& events) { ... ++events; ... }).
template <class Body>
void for_events(int64_t total, Body&& body) {
  int64_t events = 0;
  const char* const one = std::getenv("TOWLINE_SEED");
  for (uint64_t seed = one ? std::strtoull(one, nullptr, 10) : 1; events < total; ++seed) {
    SCOPED_TRACE(::testing::Message() << "re-run with TOWLINE_SEED=" << seed);
    Rng rng(seed);
    body(rng, events);
    if (::testing::Test::HasFailure() || one != nullptr) return;
    ASSERT_LT(seed, static_cast<uint64_t>(total)) << "scripts have no events";
  }
}

inline constexpr int64_t kMillionEvents = 1'000'000;  // what every machine of policy/ must bear

}  // namespace towline
