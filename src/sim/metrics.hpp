// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Percentiles of the simulator's reports: exact from a list, or from a histogram where there is a
// value per token. The p-th percentile is the element at int(p * n) of the sorted list.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "sim/stage_engine.hpp"

namespace towline::sim {

// Sorts `values` in place.
Percentiles percentiles_of(std::vector<double>& values);

// Buckets 2 % wide from a microsecond up; values are seconds.
class LogHistogram {
 public:
  void add(double seconds) {
    sum_ += seconds;
    ++count_;
    max_ = seconds > max_ ? seconds : max_;
    ++buckets_[bucket(seconds)];
  }
  Percentiles percentiles() const;

 private:
  static constexpr size_t kBuckets = 1400;  // 1 us to 10^6 s
  static constexpr double kStep = 1.02;
  static size_t bucket(double seconds) {
    if (!(seconds > 1e-6)) return 0;
    const double at = std::log(seconds * 1e6) / std::log(kStep);
    return at >= kBuckets - 1 ? kBuckets - 1 : static_cast<size_t>(at) + 1;
  }
  std::array<int64_t, kBuckets> buckets_{};
  int64_t count_ = 0;
  double sum_ = 0, max_ = 0;
};

}  // namespace towline::sim
