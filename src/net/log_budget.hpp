// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LogBudget: how many lines strangers may cause in the log. Whoever can reach a port can be refused
// there thousands of times a second; the first few of each period are written, and the next one
// that is written says how many were not.
//
// One thread, or under its owner's lock.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/log.hpp"
#include "base/units.hpp"
#include "net/clock.hpp"

namespace towline::net {

class LogBudget {
 public:
  static constexpr int kLines = 5;
  static constexpr Duration kPeriod = seconds(10);

  // True if a line may be written now; unwritten() is then what was suppressed before it.
  bool spend(Instant now) {
    if (now >= period_ends_) {
      period_ends_ = now + kPeriod;
      spent_ = 0;
    }
    if (spent_ == kLines) {
      ++suppressed_;
      return false;
    }
    ++spent_;
    unwritten_ = suppressed_;
    suppressed_ = 0;
    return true;
  }
  int64_t unwritten() const { return unwritten_; }

 private:
  Instant period_ends_{0};
  int spent_ = 0;
  int64_t suppressed_ = 0, unwritten_ = 0;
};

inline void warn_within(LogBudget& budget, std::string_view message, std::string_view reason) {
  if (!budget.spend(steady_now())) return;
  if (budget.unwritten() == 0) {
    log_warn("net", message, {{"reason", reason}});
  } else {
    log_warn("net", message, {{"reason", reason}, {"unwritten_before", budget.unwritten()}});
  }
}

}  // namespace towline::net
