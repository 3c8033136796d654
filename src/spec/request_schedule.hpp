// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RequestSchedule: which requests come when. `towline bench URL` sends it, `towline simulate`
// lives it: the same options give both the same requests at the same times, to the nanosecond,
// so that a run can be predicted before it is made.
//
// Lengths come from a trace, in its order, or are all alike. Times come from the trace if it
// has any, stretched to the rate if one is given; else they are drawn from the arrival process,
// as a pure function of the seed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "spec/workload.hpp"

namespace towline::spec {

struct ScheduleOptions {
  std::string trace;                // empty: `input` and `output` for every request
  int32_t input = 128, output = 64;
  int64_t requests = INT64_MAX;     // at most; a trace may end before
  double seconds = 0;               // none arrives later than this; 0: no such end
  bool timed = true;                // false: a closed loop asks when it likes; all times are 0
  ArrivalProcess process;           // its rate is `rate`
  double rate = 0;                  // requests/s; 0: as the trace has them
  uint64_t seed = 0;
  bool keep_tokens = false;         // with the prompts' tokens, where the trace has them
  double trace_rate = 0;            // what trace_rate() says, if the caller knows; 0: it is asked
};

// Requests/s of the first `requests` of a trace by its own times; 0 if it has none.
Result<double> trace_rate(const std::string& path, int64_t requests = INT64_MAX);

class RequestSchedule {
 public:
  // Fails if nothing says when to send, or the trace cannot be read.
  static Result<RequestSchedule> open(ScheduleOptions options);
  // The next request, or nothing at the end. Times never decrease.
  Result<std::optional<TraceRequest>> next();
  // Nothing more comes.
  void stop() { left_ = 0; }

 private:
  RequestSchedule() = default;

  ScheduleOptions options_;
  std::optional<TraceReader> trace_;
  std::optional<ArrivalClock> clock_;
  double stretch_ = 1;              // of the trace's times
  int64_t left_ = 0, end_ns_ = INT64_MAX;
};

}  // namespace towline::spec
