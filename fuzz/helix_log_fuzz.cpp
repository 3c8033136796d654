// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What `towline report` reads (spec/helix_log.hpp), line by line, as both logs; and Python's
// literals (spec/py_value.hpp), of which Helix's files are made. What is accepted prints to a line
// that reads as the same.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.hpp"
#include "spec/helix_log.hpp"
#include "spec/py_value.hpp"

namespace {

using namespace towline::spec;

std::string_view without_newline(std::string_view line) { return line.substr(0, line.size() - 1); }

void literals(std::string_view line) {
  if (const auto value = evaluate_py(line)) {
    const std::string printed = value->repr();
    const auto again = evaluate_py(printed);
    CHECK(again.has_value() && again->value() == value->value(), printed);
  }
  if (const auto list = parse_py_list(line)) {
    const std::string printed = print_py_list(*list);
    const auto again = parse_py_list(printed);
    CHECK(again.has_value() && print_py_list(*again) == printed, printed);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  HelixLogStatistics statistics(1, 100);
  int64_t tokens = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (const auto event = parse_helix_event(line)) {
      const std::string printed = print_helix_event(*event);
      const auto again = parse_helix_event(without_newline(printed));
      CHECK(again.has_value() && *again == *event, printed);
      statistics.add(*event);
    }
    if (const auto route = parse_helix_route(line)) {
      const std::string printed = print_helix_route(*route);
      const auto again = parse_helix_route(without_newline(printed));
      CHECK(again.has_value() && *again == *route, printed);
      tokens += route->input + route->output;
      CHECK(tokens >= 0, tokens);
    }
    literals(line);
  }
  const HelixLogSummary summary = statistics.summary();
  CHECK(summary.unanswered >= 0 && summary.finished_prompts >= 0, summary.unanswered);
  return 0;
}
