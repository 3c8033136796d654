// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/run_record.hpp"

#include <gtest/gtest.h>

#include <string>

namespace towline::spec {
namespace {

std::string span_text(const std::string& name, const std::string& args) {
  return R"({"ph":"X","name":")" + name +
         R"(","pid":1,"tid":0,"ts":2000000.5,"dur":1500.0,"args":)" + args + "}";
}

Result<std::vector<RunRecord>> parsed(const std::string& events) {
  const auto json = parse_json(R"({"traceEvents":[)" + events + "]}", "t");
  EXPECT_TRUE(json);
  return parse_runs(*json, "t.json");
}

TEST(RunRecord, ReadsWhatARankWrites) {
  const auto runs = parsed(
      R"({"ph":"M","name":"process_name","args":{"name":"x"}},)" +
      span_text("failed run", "{}") + "," +
      span_text("run", R"({"lane":4,"step":11,"steps":2,"sequences":2,"rows":4,"decodes":1,)"
                       R"("drawn":2,"prompt_context":3,"decode_context":9,"layers":[2,6]})"));
  ASSERT_TRUE(runs) << runs.error().to_string();
  ASSERT_EQ(runs->size(), 1u);
  const RunRecord& run = runs->front();
  EXPECT_DOUBLE_EQ(run.begin, 2.0000005);
  EXPECT_DOUBLE_EQ(run.seconds, 0.0015);
  EXPECT_EQ(run.lane, 4);
  EXPECT_EQ(run.step, 11);
  EXPECT_EQ(run.steps, 2);
  EXPECT_EQ(run.layers, (LayerRange{2, 6}));
  EXPECT_EQ(run.batch.prompt_tokens, 3);
  EXPECT_EQ(run.batch.decodes, 1);
  EXPECT_EQ(run.batch.prompt_context, 3);
  EXPECT_EQ(run.batch.decode_context, 9);
  EXPECT_EQ(run.drawn, 2);
}

TEST(RunRecord, RefusesWhatNoRankWrites) {
  EXPECT_FALSE(parse_runs(Json::object(), "empty"));
  for (const char* args :
       {"{}", R"({"rows":1})", R"({"rows":1,"layers":[0]})", R"({"rows":-1,"layers":[0,2]})",
        R"({"rows":1,"decodes":2,"layers":[0,2]})", R"({"rows":99999999999,"layers":[0,2]})",
        R"({"rows":1,"layers":[0,-2]})", R"({"rows":1,"layers":[0,2],"prompt_context":-1})"}) {
    const auto runs = parsed(span_text("run", args));
    ASSERT_FALSE(runs) << args;
    EXPECT_NE(runs.error().to_string().find("t.json"), std::string::npos);
  }
}

RunRecord plain(int64_t step, LayerRange layers, double begin, double seconds) {
  RunRecord run;
  run.lane = 0;
  run.step = step;
  run.layers = layers;
  run.batch.decodes = 1;
  run.begin = begin;
  run.seconds = seconds;
  return run;
}

// Two workers in a row: 2 ms from one to the other, 5 ms over the coordinator.
TEST(RunRecord, MessagesAreTheGapsWhereNobodyWaited) {
  std::vector<std::vector<RunRecord>> ranks(2);
  double at = 0;
  for (int64_t step = 0; step < 9; ++step) {
    ranks[0].push_back(plain(step, {0, 3}, at, 0.1));
    at += 0.1 + 0.002;
    ranks[1].push_back(plain(step, {3, 8}, at, 0.2));
    at += 0.2 + 0.005;
  }
  MessageTimes times = message_times(ranks, 8);
  EXPECT_NEAR(times.between, 0.002, 1e-9);
  EXPECT_NEAR(times.coordinator, 0.005, 1e-9);
  // Nothing is known of what the second worker did before its first run.
  EXPECT_EQ(times.betweens, 8);
  EXPECT_EQ(times.coordinators, 8);
  EXPECT_NEAR(times.mean(2), (0.002 + 0.005) / 3, 1e-9);
  // A run that the receiver had still to end, and a prompt in a step, are no messages' doing.
  ranks[1][3].seconds += 0.15;
  ranks[1][5].batch.prompt_tokens = 4;
  times = message_times(ranks, 8);
  EXPECT_EQ(times.betweens, 6);
  EXPECT_EQ(message_times({}, 8).mean(1), 0);
}

}  // namespace
}  // namespace towline::spec
