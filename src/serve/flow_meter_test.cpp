// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/flow_meter.hpp"

#include <gtest/gtest.h>

namespace towline::serve {
namespace {

Instant at(double s) { return Instant{static_cast<int64_t>(s * 1e9)}; }

TEST(FlowMeter, NothingBeforeTwoReadings) {
  FlowMeter meter;
  EXPECT_TRUE(meter.wants_reading(at(1)));
  EXPECT_EQ(meter.per_second(0), 0);
  meter.read(at(1), {{0, 500}});
  EXPECT_EQ(meter.per_second(0), 0);
  EXPECT_FALSE(meter.wants_reading(at(1.4)));
  EXPECT_TRUE(meter.wants_reading(at(1.5)));
}

TEST(FlowMeter, MeansOverTheWindowOnly) {
  FlowMeter meter;
  int64_t count = 0;
  for (int s = 0; s <= 60; ++s) {
    meter.read(at(s), {{3, count}});
    count += s < 30 ? 1000 : 10;
  }
  EXPECT_DOUBLE_EQ(meter.per_second(3), 10);
  EXPECT_DOUBLE_EQ(meter.window_seconds(), to_seconds(FlowMeter::kWindow));
  EXPECT_EQ(meter.per_second(4), 0);
}

TEST(FlowMeter, AfterASilenceTheNewestReadingStandsAlone) {
  FlowMeter meter;
  meter.read(at(0), {{1, 0}});
  meter.read(at(100), {{1, 1000}});
  EXPECT_DOUBLE_EQ(meter.per_second(1), 10);
  meter.read(at(111), {{1, 1000}});
  EXPECT_DOUBLE_EQ(meter.per_second(1), 0);
}

TEST(FlowMeter, RestartedCountersCountFromZero) {
  FlowMeter meter;
  meter.read(at(0), {{1, 900}});
  meter.read(at(1), {{1, 1000}});
  meter.read(at(2), {{1, 50}, {2, 7}});
  EXPECT_DOUBLE_EQ(meter.per_second(1), 75);  // 100, then 50 of the new one
  EXPECT_DOUBLE_EQ(meter.per_second(2), 3.5);
}

}  // namespace
}  // namespace towline::serve
