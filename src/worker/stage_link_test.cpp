// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/stage_link.hpp"

#include <gtest/gtest.h>

#include "worker/steady_load.hpp"

namespace towline::worker {
namespace {

constexpr uint32_t kInFlight = 4;
constexpr int32_t kBatch = 3;

// The last stage's link and the first stage's, which hears of it.
struct Edge {
  std::shared_ptr<net::RingWriter> ring;
  StageLink last, first;
  Edge() {
    net::RingOptions options;
    options.slots = 2 * kInFlight;
    options.arena_bytes = 1 << 16;
    ring = *net::RingWriter::create(options);
    last = StageLink(nullptr, ring, kInFlight);
    first = StageLink(ring->reader(0), nullptr, kInFlight);
  }
};

// A mirror that waits for the tokens of step 1, which are of positions 50 - i.
struct Waiting {
  SteadyLoad load{kBatch, 50, policy::DeltaForm::kImplied, true};
  policy::StepMirror mirror{SteadyLoad::limits(32000)};
  policy::LaneStep step{LaneId(0), 1};
  Waiting() {
    for (const policy::NodeStep& m : {load.admit(), load.next(), load.next()}) {
      EXPECT_TRUE(mirror.apply(m));
    }
    EXPECT_FALSE(mirror.tokens_ready(step));
  }
  std::vector<policy::FedToken> tokens() const {
    std::vector<policy::FedToken> all;
    for (int32_t i = 0; i < kBatch; ++i) all.push_back({{static_cast<uint32_t>(i), 1}, 50 - i, 7});
    return all;
  }
};

TEST(StageLink, RowsAreThoseOfTheFrame) {
  Edge e;
  const std::vector<float> one = {1, 2, 3}, two = {4, 5};
  ASSERT_TRUE(e.last.give_rows(3, one));
  ASSERT_TRUE(e.last.give_rows(3, two));  // was given: a frame leaves one message
  e.last.give_failure(5);
  ASSERT_TRUE(e.last.give_rows(6, two));
  e.last.give_failure(6);
  ASSERT_TRUE(e.last.give_rows(8, one));
  const auto rows = e.first.rows_of(3);
  ASSERT_TRUE(rows);
  EXPECT_EQ(std::vector<float>(rows->begin(), rows->end()), one);
  EXPECT_EQ(e.first.rows_of(5).error().code(), Code::kUnavailable);
  EXPECT_EQ(e.first.rows_of(8)->size(), 3u);  // 6 was failed here before its rows were read
  ASSERT_TRUE(e.last.give_rows(9, one));
  EXPECT_EQ(e.first.rows_of(4).error().code(), Code::kInternal);
  e.ring->close();
  EXPECT_EQ(e.first.rows_of(10).error().code(), Code::kUnavailable);
  EXPECT_FALSE(e.last.give_rows(10, one));
}

TEST(StageLink, TokensAreLearntWhenAStepNeedsThem) {
  Edge e;
  Waiting w;
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 2, {}));  // step 0, of which nothing is needed
  ASSERT_TRUE(e.last.give_tokens(2, w.tokens()));
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 3, std::span(&w.step, 1)));
  EXPECT_TRUE(w.mirror.tokens_ready(w.step));
}

TEST(StageLink, NobodyWaitsForTokensThatWillNotCome) {
  Edge e;
  Waiting w;
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 2, {}));
  e.last.give_failure(2);
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 3, std::span(&w.step, 1)));
  EXPECT_FALSE(w.mirror.tokens_ready(w.step));
}

TEST(StageLink, TokensOfBeforeAFullFormSayNothing) {
  Edge e;
  Waiting w;
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 2, {}));
  ASSERT_TRUE(e.last.give_tokens(2, w.tokens()));
  e.first.forget_tokens_before(3);
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 3, std::span(&w.step, 1)));
  EXPECT_FALSE(w.mirror.tokens_ready(w.step));
}

// A rank learns the same of old frames, whenever it looks: all that nobody works at any more.
TEST(StageLink, OldTokensAreLearntWithoutNeed) {
  Edge e;
  Waiting w;
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 2, {}));
  ASSERT_TRUE(e.last.give_tokens(2, w.tokens()));
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 2 + kInFlight - 1, {}));
  EXPECT_FALSE(w.mirror.tokens_ready(w.step));
  ASSERT_TRUE(e.first.learn_tokens(w.mirror, 2 + kInFlight, {}));
  EXPECT_TRUE(w.mirror.tokens_ready(w.step));
}

}  // namespace
}  // namespace towline::worker
