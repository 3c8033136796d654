// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/simplex.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"

namespace towline::plan {
namespace {

constexpr double kTolerance = 1e-9;
constexpr int64_t kRefactorAfter = 64;
constexpr int kDegenerateBeforeBland = 30;

}  // namespace

Simplex::Simplex(std::vector<double> limits) : limits_(std::move(limits)), level_(limits_) {
  const size_t rows = limits_.size();
  inverse_.assign(rows * rows, 0);
  for (size_t i = 0; i < rows; ++i) {
    CHECK(limits_[i] >= 0, limits_[i]);
    inverse_[i * rows + i] = 1;
    basis_.push_back(-1 - static_cast<int32_t>(i));
  }
}

int32_t Simplex::add_column(double value, std::span<const double> use) {
  CHECK(use.size() == limits_.size(), use.size(), limits_.size());
  values_.push_back(value);
  uses_.insert(uses_.end(), use.begin(), use.end());
  return columns() - 1;
}

double Simplex::column_value(int32_t j) const { return j < 0 ? 0 : values_[j]; }

std::vector<double> Simplex::reduced(int32_t j) const {
  const size_t rows = limits_.size();
  std::vector<double> result(rows, 0);
  for (size_t i = 0; i < rows; ++i) {
    const double* row = inverse_.data() + i * rows;
    if (j < 0) {
      result[i] = row[-1 - j];
      continue;
    }
    const double* use = uses_.data() + static_cast<size_t>(j) * rows;
    for (size_t r = 0; r < rows; ++r) result[i] += row[r] * use[r];
  }
  return result;
}

std::vector<double> Simplex::prices() const {
  const size_t rows = limits_.size();
  std::vector<double> prices(rows, 0);
  for (size_t i = 0; i < rows; ++i) {
    const double value = column_value(basis_[i]);
    if (value == 0) continue;
    for (size_t r = 0; r < rows; ++r) prices[r] += value * inverse_[i * rows + r];
  }
  return prices;
}

// The column or slack with the best reduced cost (or the first with a good one: Bland's rule, which
// cannot cycle). Returns `columns()` if the basis is optimal.
int32_t Simplex::choose_entering(const std::vector<double>& prices, bool first_found) const {
  const size_t rows = limits_.size();
  int32_t best = columns();
  double best_gain = kTolerance;
  for (int32_t j = 0; j < columns(); ++j) {
    const double* use = uses_.data() + static_cast<size_t>(j) * rows;
    double gain = values_[j];
    for (size_t r = 0; r < rows; ++r) gain -= prices[r] * use[r];
    if (gain > best_gain) {
      best = j;
      best_gain = gain;
      if (first_found) return best;
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    if (-prices[r] > best_gain) {
      best = -1 - static_cast<int32_t>(r);
      best_gain = -prices[r];
      if (first_found) return best;
    }
  }
  return best;
}

// Rebuilds the inverse from the basis by Gauss-Jordan with row pivoting; keeps drift away.
void Simplex::refactor() {
  const size_t rows = limits_.size();
  std::vector<double> matrix(rows * rows, 0);
  for (size_t i = 0; i < rows; ++i) {
    const int32_t j = basis_[i];
    for (size_t r = 0; r < rows; ++r) {
      matrix[r * rows + i] = j < 0 ? (r == static_cast<size_t>(-1 - j) ? 1.0 : 0.0)
                                   : uses_[static_cast<size_t>(j) * rows + r];
    }
  }
  std::vector<double> inverse(rows * rows, 0);
  for (size_t i = 0; i < rows; ++i) inverse[i * rows + i] = 1;
  for (size_t c = 0; c < rows; ++c) {
    size_t pivot = c;
    for (size_t r = c + 1; r < rows; ++r) {
      if (std::abs(matrix[r * rows + c]) > std::abs(matrix[pivot * rows + c])) pivot = r;
    }
    if (std::abs(matrix[pivot * rows + c]) < 1e-12) return;  // keep the updated inverse
    for (size_t r = 0; r < rows; ++r) {
      std::swap(matrix[pivot * rows + r], matrix[c * rows + r]);
      std::swap(inverse[pivot * rows + r], inverse[c * rows + r]);
    }
    const double scale = 1 / matrix[c * rows + c];
    for (size_t r = 0; r < rows; ++r) {
      matrix[c * rows + r] *= scale;
      inverse[c * rows + r] *= scale;
    }
    for (size_t r = 0; r < rows; ++r) {
      const double factor = matrix[r * rows + c];
      if (r == c || factor == 0) continue;
      for (size_t k = 0; k < rows; ++k) {
        matrix[r * rows + k] -= factor * matrix[c * rows + k];
        inverse[r * rows + k] -= factor * inverse[c * rows + k];
      }
    }
  }
  inverse_ = std::move(inverse);
  for (size_t i = 0; i < rows; ++i) {
    level_[i] = 0;
    for (size_t r = 0; r < rows; ++r) level_[i] += inverse_[i * rows + r] * limits_[r];
    level_[i] = std::max(level_[i], 0.0);
  }
  since_refactor_ = 0;
}

bool Simplex::solve(int64_t max_pivots) {
  const size_t rows = limits_.size();
  int degenerate = 0;
  for (int64_t pivots = 0; pivots < max_pivots; ++pivots) {
    if (since_refactor_ >= kRefactorAfter) refactor();
    const int32_t entering = choose_entering(prices(), degenerate > kDegenerateBeforeBland);
    if (entering == columns()) return true;
    const std::vector<double> change = reduced(entering);
    size_t leaving = rows;
    double step = 0;
    for (size_t i = 0; i < rows; ++i) {
      if (change[i] <= kTolerance) continue;
      const double ratio = level_[i] / change[i];
      const bool tie = leaving < rows && ratio == step;
      if (leaving == rows || ratio < step || (tie && basis_[i] < basis_[leaving])) {
        leaving = i;
        step = ratio;
      }
    }
    if (leaving == rows) return false;  // unbounded
    degenerate = step <= kTolerance ? degenerate + 1 : 0;
    for (size_t i = 0; i < rows; ++i) {
      if (i != leaving) level_[i] = std::max(level_[i] - step * change[i], 0.0);
    }
    level_[leaving] = step;
    basis_[leaving] = entering;
    const double scale = 1 / change[leaving];
    for (size_t r = 0; r < rows; ++r) inverse_[leaving * rows + r] *= scale;
    for (size_t i = 0; i < rows; ++i) {
      if (i == leaving || change[i] == 0) continue;
      for (size_t r = 0; r < rows; ++r) {
        inverse_[i * rows + r] -= change[i] * inverse_[leaving * rows + r];
      }
    }
    ++since_refactor_;
  }
  return false;
}

double Simplex::value() const {
  double total = 0;
  for (size_t i = 0; i < basis_.size(); ++i) total += column_value(basis_[i]) * level_[i];
  return total;
}

std::vector<double> Simplex::solution() const {
  std::vector<double> x(values_.size(), 0);
  for (size_t i = 0; i < basis_.size(); ++i) {
    if (basis_[i] >= 0) x[basis_[i]] = level_[i];
  }
  return x;
}

}  // namespace towline::plan
