// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Traces of requests, churn and networks of any format (spec/workload.hpp, churn.hpp,
// region_links.hpp, servegen.hpp): no crash, and what is accepted keeps the promises.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.hpp"
#include "spec/churn.hpp"
#include "spec/region_links.hpp"
#include "spec/servegen.hpp"
#include "spec/workload.hpp"

namespace {

using namespace towline::spec;

void churn(std::string_view text) {
  const auto trace = parse_churn(text, "fuzz", 1);
  if (!trace) return;
  double last = 0;
  for (const ChurnEvent& e : trace->events) {
    CHECK(e.machine >= 0 && e.machine < trace->machines, e.machine, trace->machines);
    CHECK(e.at >= last && e.at <= trace->seconds, e.at, last);
    last = e.at;
  }
}

// The trace of a client up to a line of dashes, then its dataset.
void servegen(std::string_view text) {
  const size_t end = text.find("---\n");
  const std::string_view dataset =
      end == std::string_view::npos ? std::string_view() : text.substr(end + 4);
  auto client = ServeGenClient::parse(text.substr(0, end), dataset, "fuzz");
  if (!client) return;
  auto source = ServeGenSource::make({*std::move(client)}, 1, 0, 1, {{1, 1}});
  CHECK(source.has_value());
  int64_t last = 0;
  for (int i = 0; i < 100; ++i) {
    const auto request = source->next();
    if (!request || !request->has_value()) break;
    CHECK((*request)->arrival_ns >= last && (*request)->input >= 1 && (*request)->output >= 1,
          last);
    last = (*request)->arrival_ns;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using towline::spec::TraceReader;
  auto reader = TraceReader::from_text(
      std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  if (reader) reader->keep_tokens(true);
  int64_t last = 0;
  while (reader) {
    const auto request = reader->next();
    if (!request || !request->has_value()) break;
    const towline::spec::TraceRequest r = request->value();
    CHECK(r.input >= 1 && r.input <= TraceReader::kMaxTokens, r.input);
    CHECK(r.output >= 1 && r.output <= TraceReader::kMaxTokens, r.output);
    if (r.tokens != nullptr) {
      CHECK(r.tokens->prompt.size() == static_cast<size_t>(r.input), r.input);
      CHECK(r.tokens->output.size() <= static_cast<size_t>(r.output), r.output);
    }
    CHECK(r.arrival_ns >= last, r.arrival_ns, last);
    last = r.arrival_ns;
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  churn(text);
  servegen(text);
  RegionLinks links;
  (void)links.read(text, "fuzz");
  return 0;
}
