// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Text that a file or a peer wrote, in a sentence for people.
#pragma once

#include <string>
#include <string_view>

namespace towline {

// `text` on one line: control characters (a terminal would obey them) and bytes that are no UTF-8
// are shown as \xNN.
std::string printable(std::string_view text);

}  // namespace towline
