// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/request_schedule.hpp"

#include "base/fmt.hpp"

namespace towline::spec {

Result<double> trace_rate(const std::string& path, int64_t requests) {
  ASSIGN_OR_RETURN(TraceReader reader, TraceReader::open(path));
  int64_t last = 0, count = 0;
  for (; count < requests; ++count) {
    ASSIGN_OR_RETURN(const std::optional<TraceRequest> item, reader.next());
    if (!item) break;
    last = item->arrival_ns;
  }
  return last > 0 ? static_cast<double>(count) / (static_cast<double>(last) * 1e-9) : 0.0;
}

Result<RequestSchedule> RequestSchedule::open(ScheduleOptions options) {
  RequestSchedule s;
  bool own_times = false;
  if (!options.trace.empty()) {
    ASSIGN_OR_RETURN(s.trace_, TraceReader::open(options.trace));
    s.trace_->keep_tokens(options.keep_tokens);
    own_times = s.trace_->has_arrivals();
  }
  if (options.timed && own_times && options.rate > 0) {
    double rate = options.trace_rate;
    if (rate <= 0) {
      ASSIGN_OR_RETURN(rate, trace_rate(options.trace, options.requests));
    }
    if (rate > 0) s.stretch_ = rate / options.rate;
  }
  if (options.timed && !own_times) {
    if (!(options.rate > 0)) {
      return errorf(Code::kInvalidArgument,
                    "nothing says when requests come{}: give --rate, or a --trace with times",
                    options.trace.empty() ? "" : " (" + options.trace + " has no arrival times)");
    }
    options.process.rate = options.rate;
    s.clock_.emplace(options.process, options.seed);
  }
  s.left_ = options.requests;
  if (options.seconds > 0) s.end_ns_ = static_cast<int64_t>(options.seconds * 1e9);
  s.options_ = std::move(options);
  return s;
}

Result<std::optional<TraceRequest>> RequestSchedule::next() {
  if (left_ <= 0) return std::optional<TraceRequest>();
  --left_;
  std::optional<TraceRequest> item = TraceRequest{0, options_.input, options_.output};
  if (trace_) {
    ASSIGN_OR_RETURN(item, trace_->next());
    if (!item) return item;
  }
  if (clock_) {
    item->arrival_ns = clock_->next();
  } else if (!options_.timed) {
    item->arrival_ns = 0;
  } else if (stretch_ != 1) {
    item->arrival_ns = static_cast<int64_t>(static_cast<double>(item->arrival_ns) * stretch_);
  }
  if (item->arrival_ns > end_ns_) {
    stop();
    return std::optional<TraceRequest>();
  }
  return item;
}

}  // namespace towline::spec
