// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RunTrace: what a rank evaluated, and when: one span for each run of its executor, written as a
// Chrome trace (chrome://tracing, Perfetto). The collective call `profile` turns it on and off.
//
// A span says what a run's time depends on by the profile (spec/profile.hpp): its layers, prompt
// rows and decodes, the tokens before them, and the tokens drawn. `towline profile check` compares.
//
// Times are of the steady clock, which all processes of a machine share: the files of its ranks,
// put together, fit. Memory is bounded: beyond kMostSpans spans are counted, not kept.
//
// Threading: one thread, the rank's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "worker/executor.hpp"

namespace towline::worker {

class RunTrace {
 public:
  static constexpr size_t kMostSpans = 100'000;

  bool recording() const { return recording_; }
  // From now on; what was recorded before and not written is forgotten.
  void start();
  // Does nothing unless recording. `ok`: the run did not fail.
  void add(Instant begin, Instant end, std::span<const RunItem> items, bool ok);
  // Stops, and writes FOLDER/towline-PID-rank-R.trace.json, whole or not at all. The answer:
  // {"rank", "spans", "dropped", "file"}; without a file if it was not recording.
  // `title` is for people.
  Result<Json> finish(const RankPlace& place, const std::string& title, const std::string& folder);

  // The file's text.
  std::string text(const RankPlace& place, const std::string& title) const;

 private:
  struct Span {
    int64_t begin_ns, end_ns;
    int32_t steps, rows, sequences;
    int32_t decodes, drawn;
    int64_t prompt_context, decode_context;  // tokens before each row, summed up
    LayerRange layers;  // empty: not the same for all items
    int32_t lane;       // of the first item
    int64_t step;
    bool ok;
  };
  bool recording_ = false;
  std::vector<Span> spans_;
  int64_t dropped_ = 0;
};

}  // namespace towline::worker
