// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Text for HTML and SVG pages.
#pragma once

#include <string>
#include <string_view>

namespace towline {

// For element text and quoted attributes alike: < > & " and ' become entities.
std::string html_escaped(std::string_view text);

}  // namespace towline
