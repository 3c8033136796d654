// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// One contract, every back end: each test here runs over all transports of this build.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "base/fmt.hpp"
#include "net/keys.hpp"
#include "net/transport.hpp"

namespace towline::net {
namespace {

const Deadline kSoon = deadline_in(seconds(120));  // a bound for the test, never expected

std::vector<uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
std::string text_of(const Frame& frame) { return {frame.payload.begin(), frame.payload.end()}; }

// A key file of this run; removed when the process ends.
const std::string& test_keys() {
  static const std::string path = [] {
    std::string made = ::testing::TempDir() + format("towline-net-test-{}.keys", ::getpid());
    const Result<ClusterKeys> keys = make_keys();
    EXPECT_TRUE(keys && write_keys(made, *keys));
    std::atexit([] { ::unlink(test_keys().c_str()); });
    return made;
  }();
  return path;
}

class Conformance : public ::testing::TestWithParam<TransportKind> {
 protected:
  TransportOptions options(const std::string& identity, bool listening) {
    TransportOptions o;
    o.kind = GetParam();
    o.identity = identity;
    o.inproc = net_;
    if (listening) {
      switch (GetParam()) {
        case TransportKind::kInproc: o.listen = "inproc://" + identity; break;
        case TransportKind::kShm: o.listen = format("shm://towline-test-{}-{}", ::getpid(), identity); break;
        case TransportKind::kTcp: o.listen = "tcp://127.0.0.1:0"; break;
        case TransportKind::kZmq: o.listen = "zmq://127.0.0.1:0"; break;
        case TransportKind::kMpi: break;
      }
    }
    if (GetParam() == TransportKind::kZmq) o.key_file = test_keys();
    return o;
  }
  std::unique_ptr<Transport> open(const TransportOptions& o, Inbox& inbox) {
    Result<std::unique_ptr<Transport>> transport = Transport::open(o, inbox);
    EXPECT_TRUE(transport) << transport.error().to_string();
    return std::move(transport).value();
  }
  // The next event that is not of a passing kind.
  static Inbox::Event next(Inbox& inbox) {
    while (true) {
      std::optional<Inbox::Event> event = inbox.wait(kSoon);
      EXPECT_TRUE(event.has_value());
      if (!event) return {};
      if (event->kind != Inbox::Event::kInterrupted && event->kind != Inbox::Event::kResumed) {
        return std::move(*event);
      }
    }
  }

  std::shared_ptr<InprocNet> net_ = make_inproc_net();
};

// Two transports and one open channel between them, seen from both sides.
struct Pair {
  Inbox inbox_a, inbox_b;
  std::unique_ptr<Transport> a, b;
  std::shared_ptr<Channel> from_a, from_b;
};

#define OPEN_PAIR(pair, options_a, options_b)                                           \
  Pair pair;                                                                            \
  pair.b = open(options_b, pair.inbox_b);                                               \
  pair.a = open(options_a, pair.inbox_a);                                               \
  {                                                                                     \
    Result<std::shared_ptr<Channel>> c = pair.a->connect(pair.b->address(), kSoon);     \
    ASSERT_TRUE(c) << c.error().to_string();                                            \
    pair.from_a = *c;                                                                   \
    ASSERT_EQ(next(pair.inbox_a).kind, Inbox::Event::kOpened);                          \
    Inbox::Event opened = next(pair.inbox_b);                                           \
    ASSERT_EQ(opened.kind, Inbox::Event::kOpened);                                      \
    pair.from_b = opened.opened;                                                        \
  }

TEST_P(Conformance, IntroducesBothSidesToEachOther) {
  OPEN_PAIR(p, options("a", false), options("b", true));
  EXPECT_EQ(p.from_a->peer(), p.b->self());
  EXPECT_EQ(p.from_b->peer(), p.a->self());
  EXPECT_TRUE(p.from_a->dialed());
  EXPECT_FALSE(p.from_b->dialed());
}

TEST_P(Conformance, DeliversInOrderBothWays) {
  OPEN_PAIR(p, options("a", false), options("b", true));
  constexpr int kFrames = 5000;
  std::thread sender([&] {
    for (int i = 0; i < kFrames; ++i) {
      const std::vector<uint8_t> payload(i % 97, static_cast<uint8_t>(i));
      ASSERT_TRUE(p.from_a->send(static_cast<uint16_t>(i % 1000), i, payload, kSoon));
    }
  });
  for (int i = 0; i < kFrames; ++i) {
    const Inbox::Event event = next(p.inbox_b);
    ASSERT_EQ(event.kind, Inbox::Event::kFrame);
    ASSERT_EQ(event.channel, p.from_b->id());
    ASSERT_EQ(event.frame.epoch, i);
    ASSERT_EQ(event.frame.kind, i % 1000);
    ASSERT_EQ(event.frame.payload, std::vector<uint8_t>(i % 97, static_cast<uint8_t>(i)));
    if (i % 100 == 0) {
      ASSERT_TRUE(p.from_b->send(7, i, bytes_of("back"), kSoon));
    }
  }
  for (int i = 0; i < kFrames; i += 100) ASSERT_EQ(next(p.inbox_a).frame.epoch, i);
  sender.join();
}

TEST_P(Conformance, CarriesLargeFramesWhole) {
  OPEN_PAIR(p, options("a", false), options("b", true));
  std::vector<uint8_t> big(24u << 20);
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  const std::span<const uint8_t> all(big);
  const std::span<const uint8_t> parts[] = {all.first(1000), all.subspan(1000)};
  ASSERT_TRUE(p.from_a->send(1, 0, parts, kSoon));
  EXPECT_TRUE(next(p.inbox_b).frame.payload == big);
}

TEST_P(Conformance, RefusesWhatThePeerDoesNotAccept) {
  TransportOptions b = options("b", true);
  b.max_frame_bytes = 2000;
  OPEN_PAIR(p, options("a", false), b);
  const Result<void> sent = p.from_a->send(1, 0, std::vector<uint8_t>(2001), kSoon);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), Code::kInvalidArgument);
  EXPECT_TRUE(p.from_a->send(1, 0, std::vector<uint8_t>(2000), kSoon));
  EXPECT_EQ(next(p.inbox_b).frame.payload.size(), 2000u);
}

TEST_P(Conformance, BoundsWhatWaitsAndReturnsCredits) {
  TransportOptions b = options("b", true);
  b.window_frames = 8;
  OPEN_PAIR(p, options("a", false), b);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(p.from_a->send(1, i, bytes_of("x"), kNoWait));
  const Result<void> ninth = p.from_a->send(1, 8, bytes_of("x"), kNoWait);
  ASSERT_FALSE(ninth);
  EXPECT_EQ(ninth.error().code(), Code::kExhausted);
  EXPECT_EQ(p.from_a->stats().unconsumed_frames, 8u);
  std::thread blocked([&] { EXPECT_TRUE(p.from_a->send(1, 8, bytes_of("x"), kSoon)); });
  for (int i = 0; i < 9; ++i) ASSERT_EQ(next(p.inbox_b).frame.epoch, i);
  blocked.join();
}

TEST_P(Conformance, GivesTheReasonToBothSides) {
  OPEN_PAIR(p, options("a", false), options("b", true));
  ASSERT_TRUE(p.from_b->send(1, 0, bytes_of("last words"), kSoon));
  p.from_b->close("out of cheese");
  const Inbox::Event here = next(p.inbox_b);
  EXPECT_EQ(here.kind, Inbox::Event::kClosed);
  EXPECT_EQ(here.reason, "out of cheese");
  EXPECT_EQ(text_of(next(p.inbox_a).frame), "last words");
  const Inbox::Event there = next(p.inbox_a);
  EXPECT_EQ(there.kind, Inbox::Event::kClosed);
  EXPECT_EQ(there.reason, "closed by the peer: out of cheese");
  const Result<void> late = p.from_a->send(1, 0, bytes_of("late"), kSoon);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Code::kUnavailable);
  EXPECT_NE(late.error().message().find("out of cheese"), std::string::npos);
}

TEST_P(Conformance, ClosingATransportTellsThePeer) {
  OPEN_PAIR(p, options("a", false), options("b", true));
  p.a.reset();
  EXPECT_EQ(next(p.inbox_a).reason, "transport closed");
  EXPECT_EQ(next(p.inbox_b).reason, "closed by the peer: transport closed");
}

TEST_P(Conformance, ResumesAfterACut) {
  TransportOptions a = options("a", false), b = options("b", true);
  a.reconnect_window = b.reconnect_window = seconds(60);
  OPEN_PAIR(p, a, b);
  std::thread sender([&] {
    for (int i = 0; i < 2000; ++i) ASSERT_TRUE(p.from_a->send(1, i, bytes_of("payload"), kSoon));
  });
  for (int i = 0; i < 2000; ++i) {
    const Inbox::Event event = next(p.inbox_b);
    ASSERT_EQ(event.kind, Inbox::Event::kFrame) << event.reason;
    ASSERT_EQ(event.frame.epoch, i);
    if (i % 500 == 250) (i % 1000 == 250 ? *p.a : *p.b).cut(i % 1000 == 250 ? "b" : "a");
  }
  sender.join();
  EXPECT_GE(p.from_a->stats().reconnects, 1u);
}

TEST_P(Conformance, NothingIsLostOnABadNetwork) {
  TransportOptions a = options("a", false), b = options("b", true);
  a.reconnect_window = b.reconnect_window = seconds(60);
  a.faults = *parse_faults("loss=0.02,duplicate=0.02,reorder=0.02,corrupt=0.005,cut=0.002,seed=5");
  b.faults = *parse_faults("loss=0.02,duplicate=0.02,reorder=0.02,corrupt=0.005,cut=0.002,seed=6");
  OPEN_PAIR(p, a, b);
  constexpr int kFrames = 1000;
  std::thread sender([&] {
    for (int i = 0; i < kFrames; ++i) ASSERT_TRUE(p.from_a->send(1, i, bytes_of("ping"), kSoon));
  });
  for (int i = 0; i < kFrames; ++i) {
    const Inbox::Event event = next(p.inbox_b);
    ASSERT_EQ(event.kind, Inbox::Event::kFrame) << event.reason;
    ASSERT_EQ(event.frame.epoch, i);
    ASSERT_TRUE(p.from_b->send(1, i, bytes_of("pong"), kSoon));
  }
  for (int i = 0; i < kFrames; ++i) {
    const Inbox::Event event = next(p.inbox_a);
    ASSERT_EQ(event.kind, Inbox::Event::kFrame) << event.reason;
    ASSERT_EQ(event.frame.epoch, i);
  }
  sender.join();
}

TEST_P(Conformance, NobodyThereIsASentenceInBoundedTime) {
  Inbox inbox_b, inbox_a;
  std::string address;
  {
    const auto b = open(options("b", true), inbox_b);
    address = b->address();
  }
  const auto a = open(options("a", false), inbox_a);
  const Result<std::shared_ptr<Channel>> channel = a->connect(address, deadline_in(milliseconds(60)));
  ASSERT_FALSE(channel);
  EXPECT_NE(channel.error().message().find(address), std::string::npos);
  EXPECT_EQ(inbox_a.size(), 0u);
}

TEST_P(Conformance, AnAddressOfAnotherKindIsRefused) {
  Inbox inbox;
  const auto a = open(options("a", false), inbox);
  EXPECT_EQ(a->connect("gopher://x", kSoon).error().code(), Code::kInvalidArgument);
  const char* other = GetParam() == TransportKind::kTcp ? "zmq://127.0.0.1:1" : "tcp://127.0.0.1:1";
  EXPECT_EQ(a->connect(other, kSoon).error().code(), Code::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(All, Conformance, ::testing::Values(TransportKind::kInproc, TransportKind::kTcp,
                                           TransportKind::kZmq),
                         [](const auto& p) { return std::string(kind_name(p.param)); });

TEST(Inbox, WakeAndDeadline) {
  Inbox inbox;
  EXPECT_FALSE(inbox.wait(kNoWait));
  inbox.wake();
  inbox.wake();
  EXPECT_EQ(inbox.wait(kNever)->kind, Inbox::Event::kWake);
  EXPECT_FALSE(inbox.wait(deadline_in(milliseconds(1))));
}

}  // namespace
}  // namespace towline::net
