// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// CHECK: for bugs, and only for bugs. Always on. Prints the condition, the values, the place and a
// backtrace to stderr, then aborts; the supervisor and the peers see a death, which policy handles.
// Input from a user, a file or a peer never reaches a CHECK: that is a Result (base/result.hpp).
//
//   CHECK(begin <= end, begin, end);
//   DCHECK(...)   the same in debug and sanitizer builds, nothing in release (for kernels).
#pragma once

#include <fmt/core.h>

#include <string>

namespace towline {

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& values);

namespace detail {
inline std::string check_values() { return {}; }
template <class First, class... Rest>
std::string check_values(const First& first, const Rest&... rest) {
  std::string text = fmt::format("{}", first);
  ((text += ", " + fmt::format("{}", rest)), ...);
  return text;
}
}  // namespace detail
}  // namespace towline

#define CHECK(cond, ...)                                               \
  do {                                                                 \
    if (!(cond)) [[unlikely]]                                          \
      ::towline::check_failed(#cond, __FILE__, __LINE__,               \
                              ::towline::detail::check_values(__VA_ARGS__)); \
  } while (false)

#ifdef NDEBUG
#define DCHECK(cond, ...) \
  do {                    \
  } while (false && (cond))
#else
#define DCHECK(cond, ...) CHECK(cond __VA_OPT__(, ) __VA_ARGS__)
#endif
