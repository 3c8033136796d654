// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/request_schedule.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"

namespace towline::spec {
namespace {

class TraceFile {
 public:
  explicit TraceFile(const std::string& text)
      : path_(::testing::TempDir() + format("schedule-{}.csv", ::getpid())) {
    EXPECT_TRUE(write_file_atomic(path_, text));
  }
  ~TraceFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<TraceRequest> all(const ScheduleOptions& options) {
  auto schedule = RequestSchedule::open(options);
  EXPECT_TRUE(schedule) << (schedule ? "" : schedule.error().to_string());
  std::vector<TraceRequest> out;
  while (schedule) {
    const auto next = schedule->next();
    EXPECT_TRUE(next);
    if (!next || !*next) break;
    out.push_back(**next);
  }
  return out;
}

TEST(RequestSchedule, IsAFunctionOfTheSeed) {
  for_seeds(20, [](Rng& rng) {
    ScheduleOptions o;
    o.requests = 50;
    o.rate = 0.5 + 10 * rng.unit();
    o.seed = rng.below(1000);
    o.process.kind = rng.below(2) == 0 ? ArrivalKind::kPoisson : ArrivalKind::kGamma;
    const std::vector<TraceRequest> once = all(o);
    ASSERT_EQ(once.size(), 50u);
    EXPECT_EQ(all(o), once);
    for (size_t i = 1; i < once.size(); ++i) EXPECT_LE(once[i - 1].arrival_ns, once[i].arrival_ns);
    o.seed += 1;
    EXPECT_NE(all(o), once);
  });
}

TEST(RequestSchedule, TakesLengthsInTheTracesOrderAndDrawsTimesWhereItHasNone) {
  const TraceFile file("input_tokens,output_tokens\n5,6\n7,8\n9,10\n");
  ScheduleOptions o;
  o.trace = file.path();
  o.rate = 2;
  o.seed = 4;
  ArrivalClock clock({.rate = 2}, 4);
  std::vector<TraceRequest> expected;
  for (const auto& [in, out] : {std::pair{5, 6}, {7, 8}, {9, 10}}) {
    expected.push_back({clock.next(), in, out});
  }
  EXPECT_EQ(all(o), expected);
  o.timed = false;
  o.rate = 0;
  EXPECT_EQ(all(o), (std::vector<TraceRequest>{{0, 5, 6}, {0, 7, 8}, {0, 9, 10}}));
  o.timed = true;
  const auto refused = RequestSchedule::open(o);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().to_string().find("give --rate"), std::string::npos);
}

TEST(RequestSchedule, StretchesATracesTimesToTheRateOfWhatIsSent) {
  const TraceFile file(
      "arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n1,2,2\n4,3,3\n100,4,4\n");
  ScheduleOptions o;
  o.trace = file.path();
  EXPECT_EQ(all(o).back().arrival_ns, 100'000'000'000);
  o.requests = 3;
  o.rate = 1.5;  // these three come at 3/4 of a request a second by themselves
  EXPECT_EQ(all(o), (std::vector<TraceRequest>{{0, 1, 1}, {500'000'000, 2, 2},
                                               {2'000'000'000, 3, 3}}));
  EXPECT_EQ(*trace_rate(o.trace, 3), 0.75);
  o.seconds = 1;
  EXPECT_EQ(all(o).size(), 2u);
}

}  // namespace
}  // namespace towline::spec
