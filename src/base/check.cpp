// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/check.hpp"

#include <execinfo.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace towline {

void check_failed(const char* condition, const char* file, int line, const std::string& values) {
  std::fprintf(stderr, "CHECK failed: %s (%s) at %s:%d\n", condition,
               values.empty() ? "no values" : values.c_str(), file, line);
  void* frames[64];
  const int count = backtrace(frames, 64);
  backtrace_symbols_fd(frames, count, STDERR_FILENO);
  std::abort();
}

}  // namespace towline
