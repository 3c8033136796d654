// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/load_client.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "base/for_seeds.hpp"
#include "serve/event_reader.hpp"
#include "serve/test_server.hpp"

namespace towline::serve {
namespace {

struct Outcome {
  std::vector<LoadResult> results;
  int64_t sent = 0, most = 0;
};

// Sends `count` requests to a server; calls `after` when so many results are in (0: never).
Outcome drive(LoadOptions options, int port, int count, int64_t apart_ns = 0, int stop_after = 0) {
  options.target.port = std::to_string(port);
  Loop loop;
  Outcome outcome;
  LoadClient* running = nullptr;
  LoadClient client(
      loop, options,
      [next = 0, count, apart_ns]() mutable -> std::optional<spec::TraceRequest> {
        if (next == count) return std::nullopt;
        return spec::TraceRequest{apart_ns * next++, 5, 4};
      },
      [&](LoadResult&& result) {
        outcome.results.push_back(std::move(result));
        if (stop_after > 0 && static_cast<int>(outcome.results.size()) == stop_after) {
          running->stop();
        }
      });
  running = &client;
  client.start([&] { loop.stop(); });
  loop.run();
  outcome.sent = client.sent();
  outcome.most = client.most_in_flight();
  EXPECT_EQ(client.in_flight(), 0);
  return outcome;
}

TEST(EventReader, ReadsTheSameHoweverTheBytesCome) {
  for_seeds(200, [](Rng& rng) {
    static constexpr std::string_view kPieces[] = {"data: ", "data:", "\r\n", "\n",
                                                   "x",      " ",     ": ping\n"};
    std::string text;
    for (uint64_t i = rng.below(40); i > 0; --i) text += kPieces[rng.below(std::size(kPieces))];
    const auto read = [&text](auto&& piece_size) {
      EventReader reader;
      std::vector<std::string> events;
      for (size_t at = 0; at < text.size();) {
        const size_t size = std::min<size_t>(piece_size(), text.size() - at);
        reader.feed(text.substr(at, size), [&](std::string_view e) { events.emplace_back(e); });
        at += size;
      }
      EXPECT_EQ(reader.held(), text.size() - (text.rfind('\n') + 1));  // npos + 1 is 0
      return events;
    };
    const std::vector<std::string> whole = read([&] { return text.size(); });
    EXPECT_EQ(read([] { return size_t{1}; }), whole);
    EXPECT_EQ(read([&] { return 1 + rng.below(9); }), whole);
  });
}

TEST(LoadClient, EveryRequestEndsOnceWithItsCounts) {
  TestServer server;
  for (const bool chat : {false, true}) {
    for (const int clients : {0, 3}) {
      LoadOptions options;
      options.chat = chat;
      options.clients = clients;
      const Outcome outcome = drive(options, server.port(), 20);
      ASSERT_EQ(outcome.results.size(), 20u);
      std::vector<int> seen(20);
      for (const LoadResult& r : outcome.results) {
        EXPECT_EQ(r.error, "");
        EXPECT_EQ(r.output, 4);
        EXPECT_GT(r.input, 0);
        EXPECT_GE(r.first, r.sent);
        EXPECT_GE(r.last, r.first);
        EXPECT_LE(r.gaps.size(), 3u);
        ++seen[static_cast<size_t>(r.index)];
      }
      EXPECT_EQ(seen, std::vector<int>(20, 1));
      EXPECT_LE(outcome.most, clients > 0 ? clients : 20);
    }
  }
}

TEST(LoadClient, RefusalsAndDeadServersAreResults) {
  TestServer server;
  LoadOptions options;
  options.model = "no such model";
  const Outcome refused = drive(options, server.port(), 2);
  ASSERT_EQ(refused.results.size(), 2u);
  for (const LoadResult& r : refused.results) {
    EXPECT_EQ(r.status, 404);
    EXPECT_NE(r.error.find("no such model"), std::string::npos) << r.error;
  }
  const Outcome dead = drive(LoadOptions{}, 1, 2);
  ASSERT_EQ(dead.results.size(), 2u);
  for (const LoadResult& r : dead.results) EXPECT_TRUE(r.error.starts_with("cannot connect"));
}

TEST(LoadClient, StopEndsWhatRuns) {
  TestServer server;
  LoadOptions options;
  options.clients = 4;
  const Outcome outcome = drive(options, server.port(), 1000, 0, 10);
  EXPECT_GE(outcome.results.size(), 10u);
  EXPECT_LE(outcome.results.size(), 14u);
  EXPECT_EQ(static_cast<int64_t>(outcome.results.size()), outcome.sent);
}

TEST(LoadClient, FindsTheModel) {
  TestServer server;
  ServerUrl url;
  url.port = std::to_string(server.port());
  const auto model = LoadClient::first_model(url, "");
  ASSERT_TRUE(model) << model.error().to_string();
  EXPECT_EQ(*model, "fake");
  url.port = "1";
  EXPECT_FALSE(LoadClient::first_model(url, ""));
}

}  // namespace
}  // namespace towline::serve
