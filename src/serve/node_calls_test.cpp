// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/node_calls.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::serve {
namespace {

using protocol::Method;

Instant at(int64_t s) { return Instant{seconds(s).value}; }

protocol::RpcReply reply_to(uint64_t id) {
  protocol::RpcReply reply;
  reply.id = id;
  reply.ok = true;
  return reply;
}

TEST(NodeCalls, ANodeThatDoesNotAnswerInTimeHasFailedAndItsLaterAnswerIsDropped) {
  std::vector<protocol::RpcRequest> sent;
  NodeCalls calls([&](int64_t, const protocol::RpcRequest& request) -> Result<void> {
    sent.push_back(request);
    return {};
  });
  calls.tick(at(100));
  NodeCalls::Answers answers;
  int ends = 0;
  const int64_t nodes[] = {1, 2};
  calls.call(nodes, Method::kDumpState, Json::object(), [&](const NodeCalls::Answers& all) {
    answers = all;
    ++ends;
  }, seconds(5));
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].deadline_ms, 5000u);
  calls.on_reply(1, reply_to(sent[0].id));
  EXPECT_EQ(calls.next_deadline(), at(105));
  calls.tick(at(104));
  EXPECT_EQ(ends, 0);
  calls.forgive(seconds(10));  // nobody listened from 104 to 114
  calls.tick(at(114));
  EXPECT_EQ(ends, 0);
  EXPECT_EQ(calls.next_deadline(), at(115));
  calls.tick(at(115));
  ASSERT_EQ(ends, 1);
  EXPECT_EQ(calls.next_deadline(), kNever);
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_TRUE(answers[0].second);
  ASSERT_FALSE(answers[1].second);
  EXPECT_EQ(answers[1].second.error().code(), Code::kDeadline);
  EXPECT_EQ(answers[1].second.error().message(),
            "no answer within 5 s: a step may hang there; 'towline call health' "
            "says what its ranks are at");
  calls.on_reply(2, reply_to(sent[1].id));
  calls.on_gone(2, "it left");
  EXPECT_EQ(ends, 1);
  EXPECT_EQ(calls.under_way(), 0u);
  // Who asks just that is not told to ask it.
  calls.call(std::vector<int64_t>{1}, Method::kHealth, Json::object(),
             [&](const NodeCalls::Answers& got) { answers = got; }, milliseconds(500));
  calls.tick(at(116));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].second.error().message().find("call health"), std::string::npos);
  EXPECT_NE(answers[0].second.error().message().find("within 0.5 s"), std::string::npos);
}

// Whatever comes, each call ends once, and not later than its time.
TEST(NodeCalls, EveryCallEndsOnceAndInTime) {
  for_seeds(200, [](Rng& rng) {
    std::vector<std::pair<int64_t, uint64_t>> asked;
    NodeCalls calls([&](int64_t node, const protocol::RpcRequest& request) -> Result<void> {
      if (rng.below(8) == 0) return Error(Code::kUnavailable, "gone");
      asked.emplace_back(node, request.id);
      return {};
    });
    struct Seen {
      Instant latest;
      size_t nodes;
      int ends = 0;
    };
    std::map<int, Seen> seen;
    Instant now = at(1);
    calls.tick(now);
    for (int i = 0; i < 200; ++i) {
      const uint64_t dice = rng.below(10);
      if (dice < 2) {
        std::vector<int64_t> nodes;
        for (int64_t n = 0; n < 4; ++n) {
          if (rng.below(2) == 0) nodes.push_back(n);
        }
        const Duration patience = seconds(rng.between(1, 20));
        seen[i] = {now + patience, nodes.size()};
        calls.call(nodes, Method::kDumpState, Json::object(),
                   [&seen, &now, i](const NodeCalls::Answers& all) {
                     Seen& call = seen.at(i);
                     ++call.ends;
                     EXPECT_EQ(all.size(), call.nodes);
                     EXPECT_LE(now, call.latest);
                   },
                   patience);
      } else if (dice < 5 && !asked.empty()) {
        const auto [node, id] = asked[rng.below(asked.size())];  // twice, too
        calls.on_reply(node, reply_to(id));
      } else if (dice == 5) {
        calls.on_gone(rng.between(0, 3), "it left");
      } else {
        now = std::min(now + milliseconds(rng.between(0, 3000)),
                       std::max(now, calls.next_deadline()));
        calls.tick(now);
      }
    }
    while (calls.under_way() > 0) calls.tick(now = calls.next_deadline());
    for (const auto& [i, call] : seen) EXPECT_EQ(call.ends, 1) << i;
  });
}

}  // namespace
}  // namespace towline::serve
