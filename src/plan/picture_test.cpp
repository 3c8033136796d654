// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/picture.hpp"

#include <gtest/gtest.h>

namespace towline::plan {
namespace {

FlowReport small_report() {
  Instance instance;
  instance.layers = 2;
  instance.rates = {{10, 5}, {8, 5}, {9, 5}};
  instance.links = {{kSource, 0, 100}, {0, 1, 100}, {1, kSink, 100}};
  instance.names = {"a<b>&\"c\"", "second", "third"};
  return report_flow(instance, Placement{{{0, 1}, {1, 2}, {}}}, false);
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Picture, DrawsNodesLinksAndTheCut) {
  const std::string svg = picture_svg(small_report());
  EXPECT_EQ(count(svg, "<path "), 3u);
  EXPECT_EQ(count(svg, "<g><title>"), 2u);
  EXPECT_EQ(count(svg, "1 idle"), 1u);
  EXPECT_EQ(count(svg, "#d11a2a\" stroke-width=\"2.5\""), 1u);  // the node that limits
  EXPECT_NE(svg.find("8.00 tokens/s of at most"), std::string::npos);
}

TEST(Picture, EscapesNamesAndClosesItsTags) {
  const std::string page = picture_html(small_report());
  EXPECT_EQ(page.find("a<b>"), std::string::npos);
  EXPECT_NE(page.find("a&lt;b&gt;&amp;&quot;c&quot;"), std::string::npos);
  for (const std::string tag : {"svg", "g", "text", "title", "path", "pre", "body", "html"}) {
    EXPECT_EQ(count(page, "<" + tag + " ") + count(page, "<" + tag + ">"),
              count(page, "</" + tag + ">"))
        << tag;
  }
}

TEST(Picture, LeavesTheLeastFlowsOut) {
  EXPECT_EQ(count(picture_svg(small_report(), 1), "<path "), 1u);
}

}  // namespace
}  // namespace towline::plan
