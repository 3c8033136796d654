// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The zmq back end against a peer that is a script over TCP (ZMTP 3.0, https://rfc.zeromq.org/spec/23).
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/fmt.hpp"
#include "net/clock.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

constexpr int kPatienceMs = 60'000;  // only a test that fails waits for so long

class Seen final : public WireEvents {
 public:
  void line_up(LineId line) override { up.insert(line); }
  void line_frame(LineId, RawFrame) override {}
  void line_down(LineId line, LineEnd, std::string) override { down.insert(line); }
  std::set<LineId> up, down;
};

// Takes connections, and greets as a ROUTER without keys.
class Peer {
 public:
  Peer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int small = 4096;
    ::setsockopt(listener_, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size), 0);
    address = format("zmq://127.0.0.1:{}", ntohs(at.sin_port));
  }
  ~Peer() { ::close(listener_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // -> its connection; -1 if nobody comes
  int greet_next() const {
    pollfd waited{.fd = listener_, .events = POLLIN, .revents = 0};
    if (::poll(&waited, 1, kPatienceMs) != 1) return -1;
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    std::string words("\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL", 16);
    words.resize(64);
    words += std::string("\4\x1c\5READY\13Socket-Type\0\0\0\6ROUTER", 30);
    EXPECT_EQ(::send(fd, words.data(), words.size(), MSG_NOSIGNAL), ssize_t(words.size()));
    return fd;
  }

  std::string address;

 private:
  const int listener_;
};

// At once, and with an error for whoever writes.
void cut(int fd) {
  const linger none{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  ::close(fd);
}

// libzmq tells a socket's monitor of the end of a connection, also when both were closed before.
TEST(ZmqWire, ALineThatIsCutAfterItWasGivenUpStopsNoOther) {
  Seen seen;
  std::mutex mutex;
  std::unique_lock lock(mutex);
  TransportOptions options;
  options.kind = TransportKind::kZmq;
  options.insecure = true;
  auto made = make_zmq_wire(options, seen);
  ASSERT_TRUE(made) << made.error().to_string();
  Wire& wire = **made;
  const Peer peer;
  const auto look_until = [&](const std::function<bool()>& holds) {
    const Instant latest = deadline_in(milliseconds(kPatienceMs));
    while (!holds() && steady_now() < latest) wire.poll(lock, deadline_in(milliseconds(100)));
    return holds();
  };
  const auto open = [&](LineId line) {
    wire.dial(line, peer.address);
    wire.poll(lock, kNoWait);
    const int fd = peer.greet_next();
    if (fd < 0) return fd;
    EXPECT_TRUE(look_until([&] { return seen.up.contains(line); })) << line;
    return fd;
  };
  const int first = open(1);
  // More than the kernel takes: a part waits in libzmq when the line is given up.
  wire.write(1, std::make_shared<std::vector<uint8_t>>(size_t{64} << 20));
  wire.hang_up(1);
  const int second = open(2);
  cut(first);
  const int third = open(3);
  ASSERT_GE(third, 0) << "nobody dialled";
  EXPECT_TRUE(seen.down.empty());
  cut(second);
  cut(third);
  EXPECT_TRUE(look_until([&] { return seen.down == std::set<LineId>{2, 3}; }));
}

}  // namespace
}  // namespace towline::net
