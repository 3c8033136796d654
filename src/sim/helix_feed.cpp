// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// How queries come into the Helix mode: the offline feeder keeps the cluster full, the online
// feeder plays a trace. Both draw from one stream of random numbers, which the routers share.
#include <algorithm>
#include <cmath>
#include <limits>

#include "sim/helix_state.hpp"

namespace towline::sim {
namespace {

constexpr double kBinSeconds = 3;         // of the arrival counts
constexpr double kInitialSpacing = 0.1;   // seconds between the first queries
constexpr double kFeedDelay = 0.1;        // seconds until a newly fed query arrives

// Python's round(): half to even.
double round_half_even(double x) { return std::nearbyint(x); }

}  // namespace

std::pair<int32_t, int32_t> HelixEngine::State::sample_length() {
  return traffic.lengths[random.below(traffic.lengths.size())];
}

void HelixEngine::State::issue_query(double when, int32_t query_input, int32_t query_output) {
  uint32_t slot;
  if (free_queries.empty()) {
    slot = static_cast<uint32_t>(queries.size());
    queries.emplace_back();
  } else {
    slot = free_queries.back();
    free_queries.pop_back();
  }
  HelixQuery& q = queries[slot];
  policy::Pipeline route = std::move(q.route);  // keeps its memory
  route.clear();
  q = HelixQuery{};
  q.route = std::move(route);
  q.uid = next_query_uid++;
  q.request = next_request_uid++;
  q.input = query_input;
  q.output = query_output;
  q.created = q.moved = when;
  push(when, Kind::kNewRequest, policy::kSourceNode, slot);
}

void HelixEngine::State::feed_initial() {
  for (int32_t i = 0; i < options.initial_queries; ++i) {
    const auto [in, out] = sample_length();
    issue_query(report.started + i * kInitialSpacing, in, out);
  }
}

void HelixEngine::State::consider_feeding(bool was_prompt) {
  if (events.now() > report.started + (options.warm_up + options.duration)) return;
  // The heuristic routers cannot refuse, so they are fed one query for each that ends.
  const bool more = flow_router ? ledger.expected_bottleneck() <= options.feed_high_water
                                : !was_prompt;
  if (!more) return;
  const auto [in, out] = sample_length();
  issue_query(events.now() + kFeedDelay, in, out);
}

// Arrivals: each bin's count is drawn from the measured ones and scaled to the wanted rate, with
// the rounding error carried over; times within a bin are uniform.
void HelixEngine::State::generate_trace() {
  double sum_in = 0, sum_out = 0, sum_bins = 0;
  for (const auto& [in, out] : traffic.lengths) {
    sum_in += in;
    sum_out += out;
  }
  for (const double count : traffic.arrivals) sum_bins += count;
  const auto lengths = static_cast<double>(traffic.lengths.size());
  const double average = sum_in / lengths + sum_out / lengths;
  const double wanted = options.feed_rate / average;
  const double measured = sum_bins / static_cast<double>(traffic.arrivals.size());
  const double scale = kBinSeconds * wanted / measured;
  const auto whole_seconds = static_cast<int64_t>(options.duration);
  const int64_t bins = whole_seconds / static_cast<int64_t>(kBinSeconds);
  double carry = 0;
  double tokens = 0;
  std::vector<double> times;
  for (int64_t bin = 0; bin < bins; ++bin) {
    const double raw = scale * traffic.arrivals[random.below(traffic.arrivals.size())];
    const double count = round_half_even(raw + carry);
    carry = raw + carry - count;
    times.clear();
    for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
      times.push_back(report.started + static_cast<double>(bin * 3) + 3 * random.random());
    }
    std::sort(times.begin(), times.end());
    for (const double when : times) {
      const auto [in, out] = sample_length();
      trace.push_back({when, in, out});
      tokens += in + out;
    }
  }
  report.fed_tokens_per_second = tokens / options.duration;
}

bool HelixEngine::State::feed_online() {
  for (size_t i = 0; i < trace.size(); ++i) {
    issue_query(trace[i].when, trace[i].input, trace[i].output);
    const double until =
        i + 1 < trace.size() ? trace[i + 1].when : std::numeric_limits<double>::infinity();
    if (!simulate(until)) return false;
  }
  return true;
}

}  // namespace towline::sim
