// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The expected values were printed by CPython 3.11's random module.
#include "base/mt19937_py.hpp"

#include <gtest/gtest.h>

namespace towline {
namespace {

TEST(PyRandom, GivesTheStreamOfCPython) {
  PyRandom random(0);
  EXPECT_EQ(random.random(), 0.8444218515250481);
  EXPECT_EQ(random.random(), 0.7579544029403025);
  EXPECT_EQ(random.random(), 0.420571580830845);
  for (const int64_t expected : {530, 1047, 995, 829}) {
    EXPECT_EQ(random.randint(0, 1199), expected);
  }
  std::vector<int> items = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  random.shuffle(items);
  EXPECT_EQ(items, (std::vector<int>{2, 0, 3, 8, 6, 1, 9, 5, 7, 4}));
  EXPECT_EQ(random.sample_indices(24, 5), (std::vector<size_t>{3, 19, 8, 17, 22}));
  EXPECT_EQ(random.sample_indices(276, 6), (std::vector<size_t>{75, 158, 50, 37, 169, 241}));
  EXPECT_EQ(random.sample_indices(1000, 7),
            (std::vector<size_t>{573, 103, 362, 444, 323, 625, 655}));
  EXPECT_EQ(random.gauss(1, 2), 5.455154584140436);
  EXPECT_EQ(random.gauss(1, 2), -1.7104829871025342);
  EXPECT_EQ(random.expovariate(2.5), 0.2592770033237467);
  EXPECT_EQ(random.below(1'000'000'000'000), 574947128222u);
  EXPECT_EQ(random.uniform(-3, 5), -0.9160615168643247);
  EXPECT_EQ(random.random_bits(40), 1012774882746u);
}

TEST(PyRandom, TakesSeedsOfTwoWords) {
  EXPECT_EQ(PyRandom((uint64_t{1} << 40) + 7).random(), 0.6137037779936511);
}

}  // namespace
}  // namespace towline
