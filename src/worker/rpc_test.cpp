// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/rpc.hpp"

#include <gtest/gtest.h>

#include <set>

#include "worker/driver_group.hpp"
#include "worker/steady_load.hpp"

namespace towline::worker {
namespace {

// In the order of the registry every example is a call that succeeds
// (the model is loaded by start).
bool callable(const MethodRow& row) {
  return row.method != Method::kInitModel && row.method != Method::kShutdown;
}

// C14: every method of the registry answers on every rank of every way to run ranks.
TEST(Rpc, EveryMethodAnswersOnEveryRank) {
  for (const bool processes : {false, true}) {
    for (const int32_t ranks : {1, 3}) {
      Result<std::unique_ptr<RankGroup>> started = RankGroup::start(null_group(ranks, processes));
      ASSERT_TRUE(started) << started.error().to_string();
      RankGroup& group = **started;
      for (const MethodRow& row : methods()) {
        if (!callable(row)) continue;
        SCOPED_TRACE(row.name);
        const Result<uint64_t> id = group.call(row.method, *parse_json(row.example, "example"));
        ASSERT_TRUE(id) << id.error().to_string();
        const std::optional<GroupEvent> event = group.wait(net::deadline_in(seconds(300)));
        ASSERT_TRUE(event.has_value());
        EXPECT_EQ(event->id, *id);
        EXPECT_TRUE(event->ok()) << event->error;
        if (row.reduction == Reduction::kEach) {
          EXPECT_EQ(event->answer.size(), static_cast<size_t>(ranks));
        } else {
          EXPECT_FALSE(event->answer.is_null());
        }
      }
      // Twice is refused on all ranks alike; the last one ends the loops.
      EXPECT_EQ(group.call_now(Method::kInitModel, *parse_json(methods()[0].example, "example"),
                               seconds(300)).error().code(), Code::kAlreadyExists);
      EXPECT_TRUE(group.call_now(Method::kShutdown, Json::object(), seconds(300)));
    }
  }
}

TEST(Rpc, EveryMethodAnswersInDriverMode) {
  for (const int32_t ranks : {1, 2}) {
    Result<std::unique_ptr<DriverGroup>> driver = DriverGroup::start(null_group(ranks, true));
    ASSERT_TRUE(driver) << driver.error().to_string();
    for (const MethodRow& row : methods()) {
      if (!callable(row)) continue;
      SCOPED_TRACE(row.name);
      const Result<Json> answer =
          (*driver)->call(row.method, *parse_json(row.example, "example"));
      ASSERT_TRUE(answer) << answer.error().to_string();
      if (row.reduction == Reduction::kEach) {
        EXPECT_EQ(answer->size(), static_cast<size_t>(ranks));
      }
    }
  }
}

TEST(Rpc, RegistryIsWellFormed) {
  std::set<std::string_view> names;
  std::set<uint16_t> numbers;
  for (const MethodRow& row : methods()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_TRUE(numbers.insert(static_cast<uint16_t>(row.method)).second) << row.name;
    EXPECT_TRUE(parse_json(row.example, "example")) << row.name;
    EXPECT_EQ(find_method(row.name), &row);
    EXPECT_EQ(find_method(static_cast<uint16_t>(row.method)), &row);
    EXPECT_FALSE(row.summary.empty());
  }
  // The enum has no member without a row: numbers are 1, 2, ... without a gap.
  EXPECT_EQ(*numbers.begin(), 1u);
  EXPECT_EQ(numbers.size(), size_t{*numbers.rbegin()});
  EXPECT_EQ(find_method(999), nullptr);
  EXPECT_EQ(find_method("add_lora"), nullptr);
}

TEST(Rpc, WrongCallsAreErrorsInWords) {
  RankContext rank;
  rank.factory = make_executor;
  const auto error = [&](uint16_t method, std::string_view args) {
    const Result<Json> answer = call_method(rank, method, args);
    return answer ? "" : answer.error().to_string();
  };
  const auto number = [](Method m) { return static_cast<uint16_t>(m); };
  EXPECT_EQ(error(999, ""), "method 999 is not known here");
  EXPECT_EQ(error(number(Method::kWake), ""), "wake before the model is loaded");
  EXPECT_EQ(error(number(Method::kInitModel), "{}"),
            "init_model needs an \"executor\" description");
  EXPECT_EQ(error(number(Method::kInitModel), R"({"executor":{"kind":"x"}})"),
            "executor kind 'x' is not stage, emulated or null");
  EXPECT_NE(error(number(Method::kInitModel), "{"), "");
  ASSERT_EQ(error(number(Method::kInitModel), R"({"executor":{"kind":"null"}})"), "");
  EXPECT_EQ(error(number(Method::kSleep), R"({"level":3})"),
            "sleep level 3 is not 1 (KV) or 2 (weights too)");
  EXPECT_EQ(error(number(Method::kStageAdapter), "{}"), "adapter id -1 is not 0 or more");
  EXPECT_EQ(error(number(Method::kProfile), "{}"), "profile needs \"on\"");
}

}  // namespace
}  // namespace towline::worker
