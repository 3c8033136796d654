// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A picture of a plan: nodes in rows by region and in columns by the layers they hold, links as
// wide as the flow they carry and coloured by how full they are, the minimum cut in red. One SVG
// without scripts or outside resources; picture_html() is a page around it with the report's table.
#pragma once

#include <string>

#include "plan/flow_report.hpp"

namespace towline::plan {

// What stands above it; an empty title: the report's maximum flow, bound and bottleneck.
struct PictureWords {
  std::string title, subtitle;
};

// Links without flow are left out beyond `most_links`; the greatest flows are kept.
std::string picture_svg(const FlowReport& report, size_t most_links = 2000,
                        const PictureWords& words = {});
std::string picture_html(const FlowReport& report);

}  // namespace towline::plan
