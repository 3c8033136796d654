// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "obs/metrics.hpp"

#include <gtest/gtest.h>

namespace towline::obs {
namespace {

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, PrintsCountersGaugesAndHistograms) {
  Metrics m;
  m.counter("a_total", "Things.", {{"kind", "x"}}).add(2);
  m.counter("a_total", "Things.", {{"kind", "x"}}).add(3);
  m.gauge("b", "Level.").set(1.5);
  Histogram h = m.histogram("c_seconds", "Time.", {0.1, 1});
  h.observe(0.05);
  h.observe(0.5);
  h.observe(7);
  const std::string text = m.text();
  EXPECT_TRUE(has_line(text, "# TYPE a_total counter")) << text;
  EXPECT_TRUE(has_line(text, "a_total{kind=\"x\"} 5")) << text;
  EXPECT_TRUE(has_line(text, "b 1.5")) << text;
  EXPECT_TRUE(has_line(text, "c_seconds_bucket{le=\"1\"} 2")) << text;
  EXPECT_TRUE(has_line(text, "c_seconds_bucket{le=\"+Inf\"} 3")) << text;
  EXPECT_TRUE(has_line(text, "c_seconds_count 3")) << text;
}

TEST(Metrics, RaiseToNeverLowers) {
  Metrics m;
  Counter c = m.counter("t_total", "Total.");
  c.raise_to(10);
  c.raise_to(4);
  EXPECT_EQ(c.value(), 10);
  c.raise_to(11);
  EXPECT_EQ(c.value(), 11);
}

TEST(Metrics, LabelValuesAreEscaped) {
  Metrics m;
  m.gauge("g", "Level.", {{"name", "a\"b\\c\nd"}}).set(1);
  EXPECT_TRUE(has_line(m.text(), R"(g{name="a\"b\\c\nd"} 1)")) << m.text();
}

}  // namespace
}  // namespace towline::obs
