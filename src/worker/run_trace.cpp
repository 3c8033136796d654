// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/run_trace.hpp"

#include <unistd.h>

#include <algorithm>

#include "base/file.hpp"
#include "base/fmt.hpp"

namespace towline::worker {

void RunTrace::start() {
  spans_.clear();
  dropped_ = 0;
  recording_ = true;
}

void RunTrace::add(Instant begin, Instant end, std::span<const RunItem> items, bool ok) {
  if (!recording_) return;
  if (spans_.size() == kMostSpans) {
    ++dropped_;
    return;
  }
  Span span{};
  span.begin_ns = begin.ns;
  span.end_ns = end.ns;
  span.steps = static_cast<int32_t>(items.size());
  span.ok = ok;
  span.lane = -1;
  span.step = -1;
  for (const RunItem& item : items) {
    span.sequences += static_cast<int32_t>(item.rows.size());
    for (const Row& row : item.rows) {
      span.rows += row.count();
      span.drawn += item.hop.samples() && row.samples;
      if (row.is_decode()) {
        ++span.decodes;
        span.decode_context += row.from;
      } else {
        span.prompt_context += int64_t{row.count()} * (row.from + row.to - 1) / 2;
      }
    }
  }
  if (!items.empty()) {
    const LayerRange layers = items.front().hop.layers;
    const bool same = std::ranges::all_of(
        items, [&](const RunItem& item) { return item.hop.layers == layers; });
    if (same) span.layers = layers;
    span.lane = items.front().step.lane.value;
    span.step = items.front().step.step;
  }
  spans_.push_back(span);
}

// The Trace Event Format: complete events ("X"), microseconds.
std::string RunTrace::text(const RankPlace& place, const std::string& title) const {
  const int pid = ::getpid();
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  out += format("{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{},\"args\":{{\"name\":{}}}}},\n",
                pid, Json(title).dump());
  out += format("{{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":{},\"tid\":{},\"args\":"
                "{{\"name\":\"rank {} of {}\"}}}}",
                pid, place.world_rank(), place.world_rank(), place.of * place.stages);
  for (const Span& s : spans_) {
    out += format(
        ",\n{{\"ph\":\"X\",\"name\":\"{}\",\"pid\":{},\"tid\":{},\"ts\":{}.{:03},"
        "\"dur\":{}.{:03},\"args\":{{\"lane\":{},\"step\":{},\"steps\":{},\"sequences\":{},"
        "\"rows\":{},\"decodes\":{},\"drawn\":{},\"prompt_context\":{},"
        "\"decode_context\":{},\"layers\":[{},{}]}}}}",
        s.ok ? "run" : "failed run", pid, place.world_rank(), s.begin_ns / 1000, s.begin_ns % 1000,
        (s.end_ns - s.begin_ns) / 1000, (s.end_ns - s.begin_ns) % 1000, s.lane, s.step, s.steps,
        s.sequences, s.rows, s.decodes, s.drawn, s.prompt_context, s.decode_context, s.layers.begin,
        s.layers.end);
  }
  return out + "\n]}\n";
}

Result<Json> RunTrace::finish(const RankPlace& place, const std::string& title,
                              const std::string& folder) {
  Json answer = Json::object({{"rank", place.world_rank()},
                              {"spans", static_cast<int64_t>(spans_.size())},
                              {"dropped", dropped_}});
  if (!recording_) return answer;
  recording_ = false;
  const std::string path =
      format("{}/towline-{}-rank-{}.trace.json", folder, ::getpid(), place.world_rank());
  TRY(write_file_atomic(path, text(place, title)));
  answer.set("file", path);
  spans_ = {};
  dropped_ = 0;
  return answer;
}

}  // namespace towline::worker
