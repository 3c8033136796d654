// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/fmt.hpp"

namespace towline::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr int kWidth = 30;

}  // namespace

Progress::Progress(std::string label, bool forced)
    : label_(std::move(label)),
      terminal_(::isatty(STDERR_FILENO) != 0),
      forced_(forced),
      start_(Clock::now()),
      last_(start_ - kRedraw) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\n", stderr);
}

void Progress::report(int64_t done, int64_t total) {
  if (total <= 0 || (!terminal_ && !forced_)) return;
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const auto rate = static_cast<int64_t>(static_cast<double>(done) / std::max(seconds, 1e-3));
  const std::string text = format("{:3.0f}% of {}, {}/s", std::floor(share * 100),
                                  format_bytes(total), format_bytes(rate));
  if (!terminal_) {
    const auto tenth = static_cast<int64_t>(share * 10);
    if (tenth != last_tenth_) std::fputs(format("{}: {}\n", label_, text).c_str(), stderr);
    last_tenth_ = tenth;
    return;
  }
  if (done < total && Clock::now() - last_ < kRedraw) return;
  last_ = Clock::now();
  drawn_ = true;
  const auto filled = static_cast<size_t>(share * kWidth);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fputs(format("\r{} [{}] {}\x1b[K", label_, bar, text).c_str(), stderr);
}

std::string format_bytes(int64_t bytes) {
  if (bytes < 1000) return format("{} bytes", bytes);
  auto value = static_cast<double>(bytes);
  const char* const units[] = {"", "kB", "MB", "GB", "TB", "PB", "EB"};
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(units)) {
    value /= 1000;
    ++unit;
  }
  return format("{:.1f} {}", value, units[unit]);
}

std::string format_count(int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

}  // namespace towline::cli
