// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/bounds.hpp"

#include <algorithm>

namespace towline::plan {
namespace {

// sum_i max_k k min(T_i(k), flow), in layer-tokens/s.
double supply(const Instance& instance, double flow) {
  double sum = 0;
  for (const std::vector<double>& rates : instance.rates) {
    double best = 0;
    for (size_t k = 1; k <= rates.size(); ++k) {
      best = std::max(best, static_cast<double>(k) * std::min(rates[k - 1], flow));
    }
    sum += best;
  }
  return sum;
}

}  // namespace

double capacity_bound(const Instance& instance) {
  return supply(instance, kMaxRate) / instance.layers;
}

double truncated_capacity_bound(const Instance& instance) {
  double low = 0;
  double high = capacity_bound(instance);
  // The bound is often attained with equality at a value of some T; the slack keeps rounding from
  // cutting it off, and is far below any difference that matters.
  const auto reaches = [&](double flow) {
    return supply(instance, flow) >= flow * instance.layers * (1 - 1e-12);
  };
  if (reaches(high)) return high;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (reaches(middle) ? low : high) = middle;
  }
  return high;
}

}  // namespace towline::plan
