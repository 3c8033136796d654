// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// One contract, every back end: each test here runs over all transports of this build.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <thread>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "net/frame.hpp"
#include "net/keys.hpp"
#include "net/transport.hpp"

namespace towline::net {
namespace {

// A bound for one wait, never expected to be reached; counted from its use.
const struct {
  operator Deadline() const { return deadline_in(seconds(120)); }
} kSoon;

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
    o.peer_timeout = seconds(600);  // whoever is held up is not dead
    if (listening) {
      switch (GetParam()) {
        case TransportKind::kInproc: o.listen = "inproc://" + identity; break;
        case TransportKind::kShm:
          o.listen = format("shm://towline-test-{}-{}", ::getpid(), identity);
          break;
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
  const Result<std::shared_ptr<Channel>> channel =
      a->connect(address, deadline_in(milliseconds(60)));
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

TEST(Address, HasTheFormOfItsKind) {
  for (const char* good : {"tcp://127.0.0.1:0", "zmq://[::1]:65535", "shm://x", "mpi://0"}) {
    EXPECT_TRUE(check_address(good)) << good;
  }
  for (const char* bad : {"tcp://127.0.0.1", "tcp://127.0.0.1:65536", "zmq://127.0.0.1:99999",
                          "tcp://:1", "zmq://host:", "tcp://host:-1", "shm://", "host:1", ""}) {
    EXPECT_FALSE(check_address(bad)) << bad;
  }
}

// libzmq itself listens on another port then.
TEST(ZmqTransport, APortIsNotTakenForAnother) {
  Inbox inbox;
  TransportOptions o;
  o.kind = TransportKind::kZmq;
  o.identity = "a";
  o.insecure = true;
  o.listen = "zmq://127.0.0.1:99999";
  const auto opened = Transport::open(o, inbox);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message().find("65535"), std::string::npos) << opened.error().message();
}

// The other side is a process of its own and is killed, or stopped, in the middle.
class PeerProcess : public Conformance {
 protected:
  // Before any transport of this process is open: the child must not inherit threads' locks.
  void start() {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const TransportOptions o = options("child", true);
    pid_ = ::fork();
    if (pid_ == 0) {
      Inbox inbox;
      Result<std::unique_ptr<Transport>> transport = Transport::open(o, inbox);
      if (!transport) ::_exit(1);
      const std::string line = (*transport)->address() + "\n";
      if (::write(pipe_ends[1], line.data(), line.size()) < 0) ::_exit(1);
      std::shared_ptr<Channel> channel;
      while (std::optional<Inbox::Event> event = inbox.wait(kNever)) {
        if (event->kind == Inbox::Event::kOpened) channel = event->opened;
        if (event->kind == Inbox::Event::kFrame) {
          (void)channel->send(1, 0, event->frame.payload, kNever);
        }
      }
      ::_exit(0);
    }
    ::close(pipe_ends[1]);
    char c = 0;
    while (::read(pipe_ends[0], &c, 1) == 1 && c != '\n') address_ += c;
    ::close(pipe_ends[0]);
    ASSERT_FALSE(address_.empty());
  }
  void TearDown() override {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  pid_t pid_ = -1;
  std::string address_;
};

TEST_P(PeerProcess, KilledIsNoticedWithAReasonAndLeavesNothing) {
  start();
  Inbox inbox;
  TransportOptions o = options("parent", false);
  o.peer_timeout = seconds(100);  // so that it is not the heartbeat that tells
  const auto transport = open(o, inbox);
  const Result<std::shared_ptr<Channel>> channel = transport->connect(address_, kSoon);
  ASSERT_TRUE(channel) << channel.error().to_string();
  EXPECT_EQ(next(inbox).kind, Inbox::Event::kOpened);
  ASSERT_TRUE((*channel)->send(1, 0, std::vector<uint8_t>(3 << 20), kSoon));
  EXPECT_EQ(next(inbox).frame.payload.size(), size_t{3} << 20);
  // What has no name in /dev/shm is not left there. (Of what others have there nothing follows.)
  for (const std::string& process : {std::string("self"), std::to_string(pid_)}) {
    const Result<std::string> maps = read_file(format("/proc/{}/maps", process));
    ASSERT_TRUE(maps) << maps.error().to_string();
    EXPECT_EQ(maps->find("/dev/shm"), std::string::npos);
  }
  ::kill(pid_, SIGKILL);
  const Inbox::Event end = next(inbox);
  EXPECT_EQ(end.kind, Inbox::Event::kClosed);
  EXPECT_FALSE(end.reason.empty());
  EXPECT_EQ((*channel)->send(1, 0, bytes_of("x"), kSoon).error().code(), Code::kUnavailable);
}

TEST_P(PeerProcess, StoppedIsNoticedByItsSilence) {
  start();
  Inbox inbox;
  TransportOptions o = options("parent", false);
  o.heartbeat = milliseconds(50);
  o.peer_timeout = seconds(1000);
  const auto transport = open(o, inbox);
  ASSERT_TRUE(transport->connect(address_, kSoon));
  EXPECT_EQ(next(inbox).kind, Inbox::Event::kOpened);
  ::kill(pid_, SIGSTOP);
  transport->set_peer_timeout(milliseconds(400));
  const Inbox::Event end = next(inbox);
  EXPECT_EQ(end.kind, Inbox::Event::kClosed);
  EXPECT_NE(end.reason.find("no sign of life"), std::string::npos) << end.reason;
}

TEST_P(Conformance, IdleCostsNothing) {
  OPEN_PAIR(p, options("a", false), options("b", true));
  const auto used = [] {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1'000'000'000 + t.tv_nsec;
  };
  // Processor time of both sides: 1 % of a core each. What opening left to do is not idleness, and
  // a core that others disturb counts theirs: one quiet span is enough, which who spins never has.
  int64_t least = INT64_MAX;
  for (int span = 0; span < 20 && least >= 12'000'000; ++span) {
    const int64_t before = used();
    EXPECT_FALSE(p.inbox_a.wait(deadline_in(milliseconds(600))));
    least = std::min(least, used() - before);
  }
  EXPECT_LT(least, 12'000'000);
}

// Bytes from somebody who is no peer, straight into the port: the line ends, nothing else does.
TEST(TcpTransport, StrangersAreTurnedAway) {
  TransportOptions o;
  o.kind = TransportKind::kTcp;
  o.identity = "b";
  o.listen = "tcp://127.0.0.1:0";
  Inbox inbox;
  const auto b = *Transport::open(o, inbox);
  const auto port =
      static_cast<uint16_t>(std::stoi(b->address().substr(b->address().rfind(':') + 1)));
  const auto frame = [](FrameType type, std::vector<uint8_t> payload) {
    const std::span<const uint8_t> part(payload);
    FrameHeader header;
    header.type = type;
    header.seq = 1;
    return *finish_frame(draft_frame({&part, 1}), header);
  };
  std::vector<uint8_t> giant = frame(FrameType::kHello, {});
  giant[12] = giant[13] = giant[14] = giant[15] = 0xff;
  std::vector<uint8_t> damaged = frame(FrameType::kHello, bytes_of("damaged greeting"));
  damaged[40] ^= 1;
  std::vector<uint8_t> truncated = frame(FrameType::kHello, bytes_of("truncated"));
  truncated.resize(35);
  const std::vector<std::vector<uint8_t>> cases = {
      bytes_of("GET / HTTP/1.1\r\nHost: example\r\n\r\n"),
      giant,
      damaged,
      truncated,
      frame(FrameType::kData, bytes_of("no greeting")),
      frame(FrameType::kHello, bytes_of("short")),
      {}};
  for (const std::vector<uint8_t>& bytes : cases) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    ::shutdown(fd, SHUT_WR);
    char answer[512];
    while (::recv(fd, answer, sizeof answer, 0) > 0) {
    }
    ::close(fd);
  }
  Inbox inbox_a;
  o.identity = "a";
  o.listen.clear();
  const auto a = *Transport::open(o, inbox_a);
  EXPECT_TRUE(a->connect(b->address(), kSoon));  // and peers are still welcome
}

// Its machine is suspended, say: the kernel takes the connection, and nobody answers.
TEST(ZmqTransport, ASilentPeerIsNotTakenForOneWithOtherKeys) {
  const int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof at;
  ASSERT_EQ(::bind(silent, reinterpret_cast<sockaddr*>(&at), length), 0);
  ASSERT_EQ(::listen(silent, 16), 0);
  ASSERT_EQ(::getsockname(silent, reinterpret_cast<sockaddr*>(&at), &length), 0);
  Inbox inbox;
  TransportOptions o;
  o.kind = TransportKind::kZmq;
  o.identity = "a";
  o.key_file = test_keys();
  o.handshake_timeout = milliseconds(100);
  const auto a = *Transport::open(o, inbox);
  const auto answer =
      a->connect(format("zmq://127.0.0.1:{}", ntohs(at.sin_port)), deadline_in(milliseconds(500)));
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().code(), Code::kPermissionDenied) << answer.error().to_string();
  ::close(silent);
}

TEST(ZmqTransport, OnlyTheClustersKeysAreAdmitted) {
  const std::string other = test_keys() + ".other";
  ASSERT_TRUE(write_keys(other, *make_keys()));
  Inbox inbox_b, inbox_a;
  TransportOptions o;
  o.kind = TransportKind::kZmq;
  o.identity = "b";
  o.listen = "zmq://127.0.0.1:0";
  EXPECT_EQ(Transport::open(o, inbox_b).error().code(),
            Code::kInvalidArgument);  // neither keys nor insecure
  o.key_file = test_keys();
  const auto b = *Transport::open(o, inbox_b);
  o.identity = "a";
  o.listen.clear();
  o.key_file = other;
  const auto wrong = *Transport::open(o, inbox_a);
  const Result<std::shared_ptr<Channel>> refused = wrong->connect(b->address(), kSoon);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kPermissionDenied);
  EXPECT_NE(refused.error().message().find(other), std::string::npos) << refused.error().message();
  o.key_file.clear();
  o.insecure = true;
  const auto open_one = *Transport::open(o, inbox_a);
  EXPECT_EQ(open_one->connect(b->address(), kSoon).error().code(), Code::kPermissionDenied);
  EXPECT_EQ(inbox_b.size(), 0u);
  ::unlink(other.c_str());
}

INSTANTIATE_TEST_SUITE_P(All, PeerProcess,
                         ::testing::Values(TransportKind::kShm, TransportKind::kTcp,
                                           TransportKind::kZmq),
                         [](const auto& p) { return std::string(kind_name(p.param)); });
INSTANTIATE_TEST_SUITE_P(All, Conformance,
                         ::testing::Values(TransportKind::kInproc, TransportKind::kShm,
                                           TransportKind::kTcp, TransportKind::kZmq),
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
