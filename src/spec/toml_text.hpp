// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Values as TOML text, for the native files that this folder prints.
#pragma once

#include <string>
#include <string_view>

namespace towline::spec {

std::string toml_string(std::string_view text);  // with quotes
std::string toml_number(double value);           // the shortest that reads back; finite

}  // namespace towline::spec
