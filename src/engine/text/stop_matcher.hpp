// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StopMatcher: finds stop strings in streamed text and never releases a part of one.
//
// The match is the occurrence that ends first; of those that end together, the one that begins
// first. So the result depends on the text alone, not on how it was cut into pieces. A plain value:
// copying it forks the stream. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace towline::engine {

class StopMatcher {
 public:
  // Empty strings in `stops` are ignored. With `include_stop` the released text ends with the stop
  // string instead of just before it.
  explicit StopMatcher(std::vector<std::string> stops = {}, bool include_stop = false);

  struct Step {
    std::string text;      // may be shown now; it is final
    bool matched = false;  // a stop string was completed; `text` ends before (or with) it
    std::string stop;      // which
  };
  // After a match every further push returns {"", true, stop}.
  Step push(std::string_view text);
  // The text held back because it might have begun a stop string.
  std::string flush();
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  bool include_stop_;
  std::string held_;
  std::string stop_;
  bool matched_ = false;
};

}  // namespace towline::engine
