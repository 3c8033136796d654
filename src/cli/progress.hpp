// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Progress of long work, for people: a bar on stderr when that is a terminal; with --progress also
// elsewhere, a line every tenth of the way. Not thread-safe: callers report one at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace towline::cli {

class Progress {
 public:
  Progress(std::string label, bool forced);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void report(int64_t done_bytes, int64_t total_bytes);

 private:
  std::string label_;
  bool terminal_, forced_;
  bool drawn_ = false;
  int64_t last_tenth_ = -1;
  std::chrono::steady_clock::time_point start_, last_;
};

// "763.2 MB", "18 bytes": decimal units.
std::string format_bytes(int64_t bytes);
// 1234567 -> "1,234,567"
std::string format_count(int64_t n);

}  // namespace towline::cli
