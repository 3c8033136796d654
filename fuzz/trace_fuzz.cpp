// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Trace files of any format (spec/workload.hpp): no crash, and what is accepted keeps the promises.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.hpp"
#include "spec/workload.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using towline::spec::TraceReader;
  auto reader = TraceReader::from_text(
      std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  int64_t last = 0;
  while (reader) {
    const auto request = reader->next();
    if (!request || !request->has_value()) break;
    const towline::spec::TraceRequest r = request->value();
    CHECK(r.input >= 1 && r.input <= TraceReader::kMaxTokens, r.input);
    CHECK(r.output >= 1 && r.output <= TraceReader::kMaxTokens, r.output);
    CHECK(r.arrival_ns >= last, r.arrival_ns, last);
    last = r.arrival_ns;
  }
  return 0;
}
