// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/run_trace.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"

namespace towline::worker {
namespace {

RankPlace place() {
  RankPlace p;
  p.rank = 1;
  p.of = 2;
  return p;
}

// Two lanes' steps in one run: 3 rows of a prompt and one generated token.
struct TwoSteps {
  TwoSteps() {
    rows[0] = {0, nullptr, 0, 3, 3, true};
    state.spec.prompt_length = 7;
    rows[1] = {1, &state, 9, 10, 10, true};
    items[0].step = {LaneId(4), 11};
    items[0].hop.layers = items[1].hop.layers = {2, 6};
    items[0].rows = std::span(rows).first(1);
    items[1].step = {LaneId(5), 2};
    items[1].rows = std::span(rows).last(1);
  }
  policy::SlotState state;
  Row rows[2];
  RunItem items[2];
};

TEST(RunTrace, WritesASpanForEachRun) {
  const std::string folder = ::testing::TempDir() + format("run-trace-{}", ::getpid());
  std::filesystem::create_directories(folder);
  RunTrace trace;
  const TwoSteps two;
  trace.add(Instant{1}, Instant{2}, two.items, true);  // not recording yet
  trace.start();
  EXPECT_TRUE(trace.recording());
  trace.add(Instant{5'000'001}, Instant{7'500'021}, two.items, true);
  trace.add(Instant{8'000'000}, Instant{8'000'100}, std::span(two.items).last(1), false);
  const Result<Json> answer = trace.finish(place(), "attic", folder);
  ASSERT_TRUE(answer) << answer.error().to_string();
  EXPECT_FALSE(trace.recording());
  EXPECT_EQ((*answer)["spans"].as_int(), 2);
  EXPECT_EQ((*answer)["dropped"].as_int(), 0);
  const std::string path = (*answer)["file"].as_string();
  EXPECT_EQ(path, format("{}/towline-{}-rank-1.trace.json", folder, ::getpid()));
  const Result<Json> read = parse_json(*read_file(path), path);
  ASSERT_TRUE(read) << read.error().to_string();
  const Json& events = (*read)["traceEvents"];
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[size_t{0}]["args"]["name"].as_string(), "attic");
  EXPECT_EQ(events[size_t{1}]["args"]["name"].as_string(), "rank 1 of 2");
  const Json& run = events[size_t{2}];
  EXPECT_EQ(run["ph"].as_string(), "X");
  EXPECT_EQ(run["ts"].as_double(), 5000.001);
  EXPECT_EQ(run["dur"].as_double(), 2500.020);
  EXPECT_EQ(run["tid"].as_int(), 1);
  EXPECT_EQ(run["args"].dump(),
            R"({"lane":4,"step":11,"steps":2,"sequences":2,"rows":4,"decodes":1,"drawn":2,)"
            R"("prompt_context":3,"decode_context":9,"layers":[2,6]})");
  EXPECT_EQ(events[size_t{3}]["name"].as_string(), "failed run");
  // Stopped: there is nothing more to write.
  EXPECT_EQ(trace.finish(place(), "attic", folder)->dump(), R"({"rank":1,"spans":0,"dropped":0})");
  std::filesystem::remove_all(folder);
}

TEST(RunTrace, IsBoundedAndCountsWhatItLeavesOut) {
  RunTrace trace;
  trace.start();
  const TwoSteps two;
  for (size_t i = 0; i < RunTrace::kMostSpans + 3; ++i) {
    trace.add(Instant{1}, Instant{2}, two.items, true);
  }
  const Result<Json> refused = trace.finish(place(), "attic", "/nowhere/at/all");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().to_string().find("/nowhere/at/all"), std::string::npos);
  trace.start();  // begins anew
  EXPECT_NE(trace.text(place(), "attic").find("rank 1 of 2"), std::string::npos);
  EXPECT_EQ(trace.text(place(), "attic").find("\"X\""), std::string::npos);
}

}  // namespace
}  // namespace towline::worker
