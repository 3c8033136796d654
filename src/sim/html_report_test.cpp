// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/html_report.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "sim/metrics.hpp"
#include "sim/stage_grid.hpp"
#include "sim/testing_trial.hpp"

namespace towline::sim {
namespace {

TEST(QuantileCurve, GoesFromTheLeastToTheGreatest) {
  const std::vector<double> curve = quantile_curve({1, 2, 3, 4, 5}, 9);
  ASSERT_EQ(curve.size(), 9u);
  for (size_t i = 0; i < curve.size(); ++i) {
    EXPECT_DOUBLE_EQ(curve[i], 1 + 0.5 * static_cast<double>(i));
  }
  EXPECT_TRUE(quantile_curve({}).empty());
  EXPECT_EQ(quantile_curve({7}, 3), (std::vector<double>{7, 7, 7}));
}

struct Page {
  HelixInput input;
  StageOptions options;
  Trial trial;
  std::string html;
};

Page page(int64_t requests) {
  Page p;
  p.input = grid(2, 2);
  p.input.nodes[1].name = "<b>\"&'";  // names come from files
  std::vector<spec::TraceRequest> list;
  for (int64_t i = 0; i < requests; ++i) list.push_back({i * 300'000'000, 50, 20});
  p.options.sample_seconds = 1;
  p.options.slo_ttft = 2;
  p.options.disturbances = {{3, DisturbanceKind::kCrash, 1, 1},
                            {6, DisturbanceKind::kRejoin, 1, 1}};
  p.trial = run(p.input, p.options, list_source(list));
  p.html = html_report(p.input, p.options, p.trial.report);
  return p;
}

TEST(HtmlReport, HasEveryPartAndNeedsNothingElse) {
  const Page p = page(60);
  for (const char* part :
       {"First token", "Each further token", "End to end", "Where it flowed", "Output tokens/s",
        "Share of the time that each node computes", "Share of KV blocks held on each node",
        "crash", "rejoin", "Busiest links"}) {
    EXPECT_NE(p.html.find(part), std::string::npos) << part;
  }
  for (const char* outside :
       {"src=", "href=", "@import", "url(", "<script", "<b>\"", "nan", "inf"}) {
    EXPECT_EQ(p.html.find(outside), std::string::npos) << outside;
  }
  // Every element that is opened is closed.
  for (const char* name : {"svg", "table", "div", "text", "details"}) {
    size_t opened = 0, closed = 0;
    const std::string open = std::string("<") + name, close = std::string("</") + name + ">";
    for (size_t at = 0; (at = p.html.find(open, at)) != std::string::npos; ++at) {
      const char next = p.html[at + open.size()];
      opened += next == ' ' || next == '>';
    }
    for (size_t at = 0; (at = p.html.find(close, at)) != std::string::npos; ++at) ++closed;
    EXPECT_EQ(opened, closed) << name;
    EXPECT_GT(opened, 0u) << name;
  }
}

TEST(HtmlReport, TimelineAndLinksAreWhatHappened) {
  const Page p = page(60);
  const NodeTimeline& line = p.trial.report.timeline;
  ASSERT_GT(line.columns(), 4u);
  double computed = 0;
  for (const float share : line.busy[0]) computed += share * line.step;
  const double total = p.trial.report.ended - p.trial.report.started;
  EXPECT_NEAR(computed, p.trial.report.node_busy[0] * total, 1.0);
  // Node 1 is away from second 3 to 6, and loads for two seconds then.
  EXPECT_EQ(line.busy[1][4], 0);
  double sent = 0;
  for (size_t i = 0; i < p.input.links.size(); ++i) {
    if (p.input.links[i].from < 0) sent += p.trial.report.link_bytes[i];
  }
  EXPECT_GE(sent, 60 * (50 + 19) * p.input.token_bytes);
}

TEST(HtmlReport, OfARunInWhichNothingHappened) {
  const Page p = page(0);
  EXPECT_NE(p.html.find("</html>"), std::string::npos);
  EXPECT_EQ(p.html.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace towline::sim
