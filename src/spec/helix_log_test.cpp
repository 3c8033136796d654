// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/helix_log.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/for_seeds.hpp"

namespace towline::spec {
namespace {

TEST(HelixLog, ReadsTheDocumentedLines) {
  const auto event = parse_helix_event("(1.26171, 0, 'out', 'prompt', 0, 406)");
  ASSERT_TRUE(event);
  EXPECT_EQ(*event, (HelixEvent{1.26171, 0, false, true, 0, 406}));
  const auto route = parse_helix_route("(4, 120, 12, [16, 5, 0], [0, 3, -1], [3, 80, -1])");
  ASSERT_TRUE(route);
  EXPECT_EQ(*route, (HelixRoute{4, 120, 12, {{16, {0, 3}}, {5, {3, 80}}}}));
  // Swarm and random runs end their lists with the model's layers instead of -1.
  const auto swarm = parse_helix_route("(4, 120, 12, [16, 5, 0], [0, 3, 80], [3, 80, 80])");
  ASSERT_TRUE(swarm);
  EXPECT_EQ(*swarm, *route);
}

TEST(HelixLog, PrintsWhatItReads) {
  for_seeds(200, [](Rng& rng) {
    HelixEvent event{rng.unit() * 1000, static_cast<int64_t>(rng.below(500)),
                     rng.below(2) == 0, rng.below(2) == 0, static_cast<int64_t>(rng.below(4096)),
                     static_cast<int64_t>(rng.below(4096))};
    const auto again = parse_helix_event(print_helix_event(event).substr(
        0, print_helix_event(event).size() - 1));
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, event);
    HelixRoute route{static_cast<int64_t>(rng.below(500)), 7, 9, {}};
    for (uint64_t i = rng.below(20); i > 0; --i) {
      const auto begin = static_cast<int32_t>(rng.below(80));
      route.stops.push_back({static_cast<int32_t>(rng.below(24)) + 1, {begin, begin + 3}});
    }
    std::string line = print_helix_route(route);
    line.pop_back();
    const auto back = parse_helix_route(line);
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, route);
  });
}

TEST(HelixLog, RefusesWhatIsNoLog) {
  for (const char* line : {"", "(", "(1, 2)", "(nan, 0, 'out', 'prompt', 0, 1)",
                           "(1.0, 0, 'up', 'prompt', 0, 1)", "(1.0, 0, 'in', 'other', 0, 1)",
                           "(1.0, 0, 'in', 'decode', 0, 1) x", "(1.0, 99999999999999999999, 'in",
                           "(1.0, 0, 'in', 'decode', 0, 9223372036854775807)",
                           "(1.0, 0, 'in', 'decode', -1, 1)"}) {
    EXPECT_FALSE(parse_helix_event(line)) << line;
  }
  for (const char* line : {"(4, 1, 2, [1, 0], [0], [3])", "(4, 1, 2, [1], [0], [3])",
                           "(4, 1, 2, [1, 0], [0, -1], [3, -1]",
                           "(4, 9223372036854775807, 1, [0], [-1], [-1])",
                           "(4, 1, -2, [0], [-1], [-1])", "(4, 1, 2, [,], [], [])"}) {
    EXPECT_FALSE(parse_helix_route(line)) << line;
  }
}

TEST(HelixLog, StatisticsCountTheWindow) {
  HelixLogStatistics statistics(10, 20);
  const auto add = [&](double time, int64_t request, bool result, bool prompt) {
    statistics.add({time, request, result, prompt, 0, 1});
  };
  add(1, 7, false, true);
  add(11, 7, true, true);      // a prompt of 10 s
  add(11, 7, false, false);
  add(12, 7, true, false);     // decodes of 1, 3 and (outside) 10 s
  add(12, 7, false, false);
  add(15, 7, true, false);
  add(15, 7, false, false);
  add(25, 7, true, false);
  add(26, 8, false, true);     // never back
  const HelixLogSummary s = statistics.summary();
  EXPECT_EQ(s.requests, 2);
  EXPECT_EQ(s.unanswered, 1);
  EXPECT_EQ(s.prompt.count, 1);
  EXPECT_DOUBLE_EQ(s.prompt.mean, 10);
  EXPECT_EQ(s.decode.count, 2);
  EXPECT_DOUBLE_EQ(s.decode.mean, 2);
  EXPECT_DOUBLE_EQ(s.decode_tps, 2 / 3.0);
  EXPECT_EQ(s.between_decodes.count, 1);
  EXPECT_DOUBLE_EQ(s.between_decodes.mean, 3);
}

TEST(HelixLog, FilesAreReadLineByLine) {
  const std::string path = ::testing::TempDir() + "towline-events-" + std::to_string(::getpid());
  const std::string line = "(1.0, 0, 'in', 'decode', 0, 1)";
  const auto read = [&](const std::string& text) -> Result<int> {
    std::ofstream(path, std::ios::binary) << text;
    int events = 0;
    TRY(read_helix_events(path, [&](const HelixEvent&) { ++events; }));
    return events;
  };
  EXPECT_EQ(*read(line + "\n\n \r\n" + line), 2);  // the last one has no end
  EXPECT_EQ(*read(line + "\n"), 1);
  EXPECT_EQ(*read(""), 0);
  const auto endless = read(line + "\n" + std::string(3 << 20, ' ') + line + "\n");
  ASSERT_FALSE(endless);
  EXPECT_NE(endless.error().to_string().find(path + ":2: a line of more than"), std::string::npos)
      << endless.error().to_string();
  std::filesystem::remove(path);
}

// The published figures of this run: 148.3 decode tokens/s, 2.660 s a prompt, 2.020 s a decode.
TEST(HelixLog, PublishedPrototypeRun) {
  const char* shared = std::getenv("TOWLINE_SHARED");
  const std::string root = shared != nullptr ? shared : "../shared";
  const std::string base = root + "/data/traces/real_helix/real_llama70b_helix_online__";
  if (!std::filesystem::exists(base + "events.txt")) GTEST_SKIP() << "no shared data at " << root;
  HelixLogStatistics statistics(200, 300);
  int64_t events = 0;
  ASSERT_TRUE(read_helix_events(base + "events.txt", [&](const HelixEvent& event) {
                statistics.add(event);
                ++events;
              }));
  EXPECT_EQ(events, 79087);
  const HelixLogSummary s = statistics.summary();
  EXPECT_NEAR(s.decode_tps, 148.3, 0.05);
  EXPECT_NEAR(s.prompt.mean, 2.660, 0.0005);
  EXPECT_NEAR(s.decode.mean, 2.020, 0.0005);
  const auto routes = load_helix_routes(base + "query_route.txt");
  ASSERT_TRUE(routes);
  EXPECT_EQ(routes->size(), 423u);
}

}  // namespace
}  // namespace towline::spec
