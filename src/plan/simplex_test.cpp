// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/simplex.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::plan {
namespace {

TEST(Simplex, SolvesATextbookProgramme) {
  // maximise 3x + 5y subject to x <= 4, 2y <= 12, 3x + 2y <= 18
  Simplex lp({4, 12, 18});
  lp.add_column(3, std::vector<double>{1, 0, 3});
  lp.add_column(5, std::vector<double>{0, 2, 2});
  ASSERT_TRUE(lp.solve());
  EXPECT_NEAR(lp.value(), 36, 1e-9);
  EXPECT_NEAR(lp.solution()[0], 2, 1e-9);
  EXPECT_NEAR(lp.solution()[1], 6, 1e-9);
}

TEST(Simplex, SaysWhenItIsUnbounded) {
  Simplex lp({1});
  lp.add_column(1, std::vector<double>{-1});
  EXPECT_FALSE(lp.solve());
}

// The solution is feasible, and the prices prove that it is optimal (weak duality).
TEST(Simplex, PricesProveOptimality) {
  for_seeds(300, [](Rng& rng) {
    const auto rows = static_cast<size_t>(rng.between(1, 12));
    const auto columns = static_cast<size_t>(rng.between(1, 60));
    std::vector<double> limits(rows);
    for (double& limit : limits) limit = static_cast<double>(rng.below(10));
    Simplex lp(limits);
    std::vector<std::vector<double>> uses;
    std::vector<double> values;
    for (size_t j = 0; j < columns; ++j) {
      std::vector<double> use(rows);
      for (double& u : use) u = static_cast<double>(rng.below(4));
      use[rng.below(rows)] += 1;
      values.push_back(static_cast<double>(rng.between(-2, 9)));
      uses.push_back(use);
      lp.add_column(values.back(), use);
      if (rng.below(3) == 0) {
        ASSERT_TRUE(lp.solve());  // columns may arrive later
      }
    }
    ASSERT_TRUE(lp.solve());
    const std::vector<double> x = lp.solution();
    const std::vector<double> prices = lp.prices();
    double value = 0;
    double dual = 0;
    for (size_t i = 0; i < rows; ++i) {
      double used = 0;
      for (size_t j = 0; j < columns; ++j) used += uses[j][i] * x[j];
      EXPECT_LE(used, limits[i] + 1e-7);
      EXPECT_GE(prices[i], -1e-7);
      dual += prices[i] * limits[i];
    }
    for (size_t j = 0; j < columns; ++j) {
      double cost = 0;
      for (size_t i = 0; i < rows; ++i) cost += prices[i] * uses[j][i];
      EXPECT_GE(cost, values[j] - 1e-7);
      EXPECT_GE(x[j], -1e-9);
      value += values[j] * x[j];
    }
    EXPECT_NEAR(value, lp.value(), 1e-7);
    EXPECT_NEAR(value, dual, 1e-6);
  });
}

}  // namespace
}  // namespace towline::plan
