// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The clock of net: CLOCK_MONOTONIC, the same for all processes of a machine and all of net's
// deadlines. Not the clock of a base::Loop, which begins at zero when the loop is made.
#pragma once

#include <time.h>

#include "base/units.hpp"

namespace towline::net {

// A point in time on steady_now()'s clock. kNever waits for ever; kNoWait does not wait at all.
using Deadline = Instant;
inline constexpr Deadline kNoWait{0};

inline Instant steady_now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return Instant{t.tv_sec * 1'000'000'000 + t.tv_nsec};
}

inline Deadline deadline_in(Duration d) { return steady_now() + d; }

}  // namespace towline::net
