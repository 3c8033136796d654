// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/metrics.hpp"

#include <algorithm>

namespace towline::sim {

Percentiles percentiles_of(std::vector<double>& values) {
  Percentiles p;
  p.count = static_cast<int64_t>(values.size());
  if (values.empty()) return p;
  double sum = 0;
  for (const double v : values) sum += v;
  p.mean = sum / static_cast<double>(values.size());
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size()))];
  };
  p.p50 = at(0.50);
  p.p90 = at(0.90);
  p.p95 = at(0.95);
  p.p99 = at(0.99);
  p.max = values.back();
  return p;
}

std::vector<double> quantile_curve(const std::vector<double>& sorted, size_t points) {
  std::vector<double> curve;
  if (sorted.empty()) return curve;
  for (size_t i = 0; i < points; ++i) {
    const double place =
        static_cast<double>(i * (sorted.size() - 1)) / static_cast<double>(points - 1);
    const auto below = static_cast<size_t>(place);
    const double above = sorted[std::min(below + 1, sorted.size() - 1)];
    curve.push_back(sorted[below] + (above - sorted[below]) * (place - static_cast<double>(below)));
  }
  return curve;
}

Percentiles LogHistogram::percentiles() const {
  Percentiles p;
  p.count = count_;
  if (count_ == 0) return p;
  p.mean = static_cast<double>(sum_) * 1e-9 / static_cast<double>(count_);
  p.max = static_cast<double>(max_) * 1e-9;
  const auto at = [&](double share) {
    const auto wanted = static_cast<int64_t>(share * static_cast<double>(count_));
    int64_t seen = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      seen += buckets_[i];
      if (seen > wanted) return std::min(static_cast<double>(top(i)) * 1e-9, p.max);
    }
    return p.max;
  };
  p.p50 = at(0.50);
  p.p90 = at(0.90);
  p.p95 = at(0.95);
  p.p99 = at(0.99);
  return p;
}

}  // namespace towline::sim
