// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Base64 (RFC 4648, section 4: the alphabet with + and /, padded with =).
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace towline {

std::string base64_encode(std::string_view bytes);
// Strict: other characters, missing padding and bits that no encoder leaves are kDataCorrupt.
Result<std::string> base64_decode(std::string_view text);

}  // namespace towline
