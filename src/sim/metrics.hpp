// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Percentiles of the simulator's reports: exact from a list, or from a histogram where there is a
// value per token. The p-th percentile is the element at int(p * n) of the sorted list.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "sim/stage_engine.hpp"

namespace towline::sim {

// Sorts `values` in place.
Percentiles percentiles_of(std::vector<double>& values);

// Of a sorted list: `points` values, evenly spaced in rank, the first and the last included.
std::vector<double> quantile_curve(const std::vector<double>& sorted, size_t points = 401);

// Counts of nanoseconds in buckets that are at most 1.6 % wide; a percentile is the upper end of
// its bucket. All sums are of integers, so the order in which values come does not matter.
class LogHistogram {
 public:
  LogHistogram() : buckets_(kBuckets, 0) {}

  // `count` times the same value, not negative.
  void add(int64_t ns, int64_t count = 1) {
    if (count == 0) return;
    sum_ += ns * count;
    count_ += count;
    max_ = ns > max_ ? ns : max_;
    buckets_[bucket(static_cast<uint64_t>(ns))] += count;
  }
  Percentiles percentiles() const;  // seconds

 private:
  static constexpr int kBits = 6;  // 64 buckets for every doubling
  static constexpr size_t kBuckets = (65 - kBits) << kBits;
  static size_t bucket(uint64_t v) {
    if (v < (1u << kBits)) return v;
    const int shift = 63 - kBits - std::countl_zero(v);
    return (static_cast<size_t>(shift) << kBits) + (v >> shift);
  }
  // The greatest value of a bucket.
  static uint64_t top(size_t bucket) {
    if (bucket < (1u << kBits)) return bucket;
    const size_t shift = (bucket >> kBits) - 1;
    return ((((bucket & ((1u << kBits) - 1)) | (1u << kBits)) + 1) << shift) - 1;
  }
  std::vector<int64_t> buckets_;
  int64_t count_ = 0, sum_ = 0, max_ = 0;
};

}  // namespace towline::sim
