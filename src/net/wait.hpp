// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Waiting on a condition variable until a Deadline (net/clock.hpp).
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "net/clock.hpp"

namespace towline::net {

// Until `holds`, which is asked with the lock held; what it says at last.
template <class Predicate>
bool wait_for(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
              Deadline deadline, Predicate holds) {
  if (deadline == kNever) {
    changed.wait(lock, holds);
    return true;
  }
  if (holds()) return true;
  if (deadline <= steady_now()) return false;  // keeps the lock
  const std::chrono::steady_clock::time_point latest{std::chrono::nanoseconds(deadline.ns)};
  return changed.wait_until(lock, latest, holds);
}

}  // namespace towline::net
