// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The one string formatter: fmt (compiled library), and errorf() on top of it.
#pragma once

#include <fmt/core.h>

#include <string>

#include "base/result.hpp"

namespace towline {

using fmt::format;

// errorf(Code::kNotFound, "model '{}' not found; list them with 'towline model info'", name)
template <class... Args>
Error errorf(Code code, fmt::format_string<Args...> text, Args&&... args) {
  return Error(code, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace towline
