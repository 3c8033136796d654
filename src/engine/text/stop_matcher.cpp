// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/stop_matcher.hpp"

#include <algorithm>
#include <utility>

namespace towline::engine {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {
  std::erase(stops_, "");
}

StopMatcher::Step StopMatcher::push(std::string_view text) {
  if (matched_) return {"", true, stop_};
  held_ += text;
  size_t best_begin = std::string::npos;
  size_t best_end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin)) {
      best_begin = begin;
      best_end = end;
      stop_ = stop;
    }
  }
  if (best_end != std::string::npos) {
    matched_ = true;
    Step step{held_.substr(0, include_stop_ ? best_end : best_begin), true, stop_};
    held_.clear();
    return step;
  }
  // Hold the longest end of the text that begins a stop string.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  Step step{held_.substr(0, held_.size() - keep), false, ""};
  held_.erase(0, held_.size() - keep);
  return step;
}

std::string StopMatcher::flush() { return std::exchange(held_, {}); }

}  // namespace towline::engine
