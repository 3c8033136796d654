// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Sessions as scripts: two machines, a made-up line between them, and time as a number.
#include "net/session.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <queue>

#include "base/for_seeds.hpp"
#include "net/faults.hpp"

namespace towline::net {
namespace {

Hello hello_of(const Session& s, const SessionOptions& o) {
  return {.name = "x",
          .incarnation = 1,
          .session = 1,
          .received = s.received(),
          .max_frame = o.max_frame,
          .window_frames = o.window_frames,
          .window_bytes = o.window_bytes};
}

// Two sessions over a line that obeys Faults; time moves from event to event.
class World {
 public:
  World(const SessionOptions& options, const Faults& faults)
      : options_(options), a(options), b(options), egress_{{faults, "a"}, {faults, "b"}} {
    connect();
  }
  void connect() {
    ++line_;
    up_ = true;
    const Hello ha = hello_of(a, options_), hb = hello_of(b, options_);
    a.line_up(now, hb);
    b.line_up(now, ha);
    settle();
  }
  void cut() {
    up_ = false;
    ++line_;
    a.line_down(now, "cut");
    b.line_down(now, "cut");
    settle();
  }
  // Carries out what the sessions want.
  void settle() {
    for (int side = 0; side < 2; ++side) {
      Session& s = side == 0 ? a : b;
      Session::Output out = std::exchange(s.output, {});
      for (Frame& f : out.delivered) delivered[side].push_back(std::move(f));
      if (out.closed) ++closed[side];
      for (const FrameBytes& frame : out.frames) {
        if (!up_) break;
        const FaultyEgress::Fate fate = egress_[side].next(now, frame->size());
        for (int copy = 0; copy < fate.copies; ++copy) {
          flight_.push({fate.due[copy], ++order_, line_, 1 - side, frame});
        }
        if (fate.cut) wants_cut_ = true;
      }
    }
    if (std::exchange(wants_cut_, false) && up_) cut();
  }
  // Lets the next thing happen; false when nothing is left to happen before `until`.
  bool advance(Instant until) {
    Instant next = std::min(a.next_deadline(), b.next_deadline());
    if (!flight_.empty()) next = std::min(next, flight_.top().due);
    if (next > until) {
      now = until;
      return false;
    }
    now = std::max(now, next);
    if (!flight_.empty() && flight_.top().due <= now) {
      const Flying f = flight_.top();
      flight_.pop();
      if (f.line == line_ && up_) {
        (f.to == 0 ? a : b).on_frame(now, *decode_frame(*f.frame, options_.max_frame));
      }
    } else {
      a.tick(now);
      b.tick(now);
    }
    settle();
    return true;
  }
  void send(Session& s, uint32_t number, size_t bytes) {
    const std::vector<uint8_t> payload(bytes, static_cast<uint8_t>(number));
    const std::span<const uint8_t> part(payload);
    s.send(now, draft_frame({&part, 1}), 1, number);
    settle();
  }
  void consume_all(int side) {
    (side == 0 ? a : b).consumed(now, delivered[side].size() - taken_[side]);
    taken_[side] = delivered[side].size();
    settle();
  }
  bool up() const { return up_; }

 private:
  struct Flying {
    Instant due;
    uint64_t order;
    int line, to;
    FrameBytes frame;
    bool operator>(const Flying& o) const { return due != o.due ? due > o.due : order > o.order; }
  };
  const SessionOptions options_;

 public:
  Instant now{1'000'000'000};
  Session a, b;
  std::deque<Frame> delivered[2];  // to a, to b
  int closed[2] = {0, 0};

 private:
  FaultyEgress egress_[2];
  std::priority_queue<Flying, std::vector<Flying>, std::greater<>> flight_;
  uint64_t order_ = 0;
  int line_ = 0;
  bool up_ = false, wants_cut_ = false;
  size_t taken_[2] = {0, 0};
};

// Whatever the line does, each frame arrives once and in order, and memory stays in the window.
TEST(Session, ExactlyOnceInOrderOnAnyLine) {
  for_seeds(60, [](Rng& rng) {
    SessionOptions o;
    o.reconnect_window = seconds(1000);
    o.window_frames = static_cast<uint32_t>(1 + rng.below(40));
    o.window_bytes = 1 + rng.below(4000);
    o.max_frame = 1 << 20;
    Faults f;
    f.delay = microseconds(static_cast<int64_t>(rng.below(50'000)));
    f.jitter = microseconds(static_cast<int64_t>(rng.below(20'000)));
    f.loss = rng.below(2) ? 0.2 * rng.unit() : 0;
    f.duplicate = 0.2 * rng.unit();
    f.reorder = 0.2 * rng.unit();
    f.cut = rng.below(2) ? 0.02 * rng.unit() : 0;
    f.seed = rng();
    o.lossy = f.lossy();
    World w(o, f);
    const uint32_t total = 150;
    uint32_t sent[2] = {0, 0};
    for (int i = 0; i < 200'000 && (w.delivered[0].size() < total || w.delivered[1].size() < total);
         ++i) {
      const int side = static_cast<int>(rng.below(2));
      Session& s = side == 0 ? w.a : w.b;
      const size_t bytes = rng.below(200);
      if (sent[side] < total && rng.below(3) == 0 && s.has_credit(bytes)) {
        EXPECT_LT(s.stats().unconsumed_frames, o.window_frames);
        w.send(s, sent[side]++, bytes);
      }
      if (rng.below(4) == 0) w.consume_all(static_cast<int>(rng.below(2)));
      if (!w.up() && rng.below(5) == 0) w.connect();
      w.advance(w.now + milliseconds(5));
    }
    for (int side = 0; side < 2; ++side) {
      ASSERT_EQ(w.delivered[side].size(), total);
      for (uint32_t n = 0; n < total; ++n) ASSERT_EQ(w.delivered[side][n].epoch, n);
      EXPECT_EQ(w.closed[side], 0);
    }
  });
}

TEST(Session, SilenceIsDeath) {
  SessionOptions o;
  World w(o, {});
  w.b = Session(o);  // deaf and dumb: never opened
  int events = 0;
  while (w.closed[0] == 0 && w.advance(w.now + seconds(100))) ++events;
  EXPECT_EQ(w.closed[0], 1);
  EXPECT_NE(w.a.close_reason().find("no sign of life"), std::string::npos);
  EXPECT_EQ(w.now - Instant{1'000'000'000}, o.peer_timeout + o.reconnect_window);
}

TEST(Session, IdleCostsOneHeartbeatEach) {
  SessionOptions o;
  World w(o, {});
  int steps = 0;
  while (w.advance(Instant{1'000'000'000} + seconds(60))) ++steps;
  EXPECT_LE(steps, 2 * 2 * 120);  // a tick and a frame for each side and each half second
  EXPECT_EQ(w.closed[0], 0);
}

TEST(Session, AStoppedDriverDoesNotCondemnThePeerAtOnce) {
  SessionOptions o;
  World w(o, {});
  w.now = w.now + seconds(50);  // we were stopped: no tick for 50 s
  w.a.tick(w.now);
  EXPECT_EQ(w.a.state(), ChannelState::kOpen);
  // It is not believed for ever.
  w.b = Session(o);
  while (w.closed[0] == 0 && w.advance(w.now + seconds(100))) {
  }
  EXPECT_TRUE(w.a.lost());
  EXPECT_LE(w.now - Instant{51'000'000'000}, o.peer_timeout / 2 + o.reconnect_window);
}

// With the least peer_timeout there is, each sleep is half of it: that is no stop of our own.
TEST(Session, SleepingUntilTheNextHeartbeatIsNoStop) {
  SessionOptions o;
  o.peer_timeout = o.heartbeat * 2;
  const Instant begin{1'000'000'000};
  Instant now = begin;
  Session s(o);
  s.line_up(now, hello_of(s, o));
  while (!s.finished() && now < begin + seconds(100)) {
    now = s.next_deadline() + milliseconds(1);  // nobody wakes in time
    s.tick(now);
    s.output = {};
  }
  EXPECT_TRUE(s.lost());
  EXPECT_LE(now - begin, o.peer_timeout * 2);
}

TEST(Session, AStoppedDriverGivesABrokenLineHalfItsTimeAnewButOnce) {
  SessionOptions o;
  World w(o, {});
  w.cut();
  w.now = w.now + seconds(1);
  w.a.tick(w.now);
  EXPECT_EQ(w.a.state(), ChannelState::kInterrupted) << "its answer may lie unread";
  w.now = w.now + seconds(1);
  w.a.tick(w.now);
  EXPECT_EQ(w.a.state(), ChannelState::kClosed);
  EXPECT_TRUE(w.a.lost());
}

TEST(Session, ALineThatDoesNotComeBackEndsWithItsReason) {
  SessionOptions o;
  World w(o, {});
  w.send(w.a, 0, 10);
  w.cut();
  EXPECT_EQ(w.a.state(), ChannelState::kInterrupted);
  while (w.advance(w.now + seconds(10))) {
  }
  EXPECT_EQ(w.a.close_reason(), "cut");
  EXPECT_EQ(w.closed[0], 1);
  EXPECT_EQ(w.closed[1], 1);
  EXPECT_TRUE(w.a.finished());
}

TEST(Session, GoodbyeArrivesAfterAllThatWasSent) {
  SessionOptions o;
  o.window_frames = 4;
  World w(o, *parse_faults("delay=10ms"));
  for (uint32_t i = 0; i < 4; ++i) w.send(w.a, i, 10);
  w.a.close(w.now, "done");
  w.settle();
  while (w.advance(w.now + seconds(1))) {
  }
  EXPECT_EQ(w.delivered[1].size(), 4u);
  EXPECT_EQ(w.b.close_reason(), "closed by the peer: done");
  EXPECT_FALSE(w.a.lost() || w.b.lost()) << "it was wanted";
  EXPECT_TRUE(w.a.finished());
  EXPECT_TRUE(w.b.finished());
}

TEST(Session, APeerThatBreaksTheRulesIsClosedWithTheRule) {
  const auto run = [](auto&& forge) {
    SessionOptions o;
    o.window_frames = 2;
    World w(o, {});
    RawFrame frame;
    frame.header.type = FrameType::kData;
    forge(frame);
    w.b.on_frame(w.now, std::move(frame));
    w.settle();
    EXPECT_EQ(w.closed[1], 1);
    return w.b.close_reason();
  };
  EXPECT_EQ(run([](RawFrame& f) { f.header.seq = 9; }),
            "the peer sends more than it has credits for");
  EXPECT_EQ(run([](RawFrame& f) { f.header.seq = 1; f.header.ack = 3; }),
            "the peer acknowledges frames that were never sent");
  EXPECT_EQ(run([](RawFrame& f) { f.header.type = FrameType::kHello; }),
            "the peer greets again in the middle of a conversation");
}

}  // namespace
}  // namespace towline::net
