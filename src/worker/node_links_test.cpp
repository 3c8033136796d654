// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Links between nodes over real transports. What the other side does is waited for; the time that
// NodeLinks goes by is a number.
#include "worker/node_links.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "base/fmt.hpp"

namespace towline::worker {
namespace {

using Event = net::Inbox::Event;

constexpr Duration kHeldUp = seconds(600);  // nobody who is held up for less is taken for dead
const NodeId kA(0), kB(1);

std::string hex(uint64_t incarnation) { return format("{:016x}", incarnation); }

struct Side {
  Side(const std::string& name, const std::shared_ptr<net::InprocNet>& net, bool listens,
       Duration window = Duration(0)) {
    net::TransportOptions o;
    o.kind = net::TransportKind::kInproc;
    o.inproc = net;
    o.identity = name;
    if (listens) o.listen = "inproc://" + name;
    o.heartbeat = o.peer_timeout = kHeldUp;
    o.peer_timeout = kHeldUp * 2;
    o.handshake_timeout = kHeldUp;
    o.reconnect_window = window;
    auto made = net::Transport::open(o, inbox);
    EXPECT_TRUE(made) << made.error().to_string();
    transport = *std::move(made);
    links.emplace(*transport, kHeldUp);
  }
  uint64_t incarnation() const { return transport->self().incarnation; }

  // Handles what comes until it holds.
  void until(const std::function<bool()>& holds) {
    while (!holds()) {
      std::optional<Event> event = inbox.wait(net::deadline_in(seconds(300)));
      ASSERT_TRUE(event) << "nothing comes any more";
      if (event->kind == Event::kOpened) {
        ++opened;
        links->on_opened(event->opened);
      } else if (event->kind == Event::kClosed) {
        ++closed;
        links->on_closed(event->channel, event->reason);
      } else if (event->kind == Event::kFrame) {
        got.emplace_back(event->frame.payload.begin(), event->frame.payload.end());
      }
      (void)links->flush(Epoch(1));
    }
  }
  void send(NodeId to, const std::string& text) {
    links->send(to, {protocol::MessageKind::kTokenFeed, {text.begin(), text.end()}, nullptr, {}});
    (void)links->flush(Epoch(1));
  }
  void until_broken() {
    until([&] { return links->news(); });
    EXPECT_EQ(links->broken().size(), 1u);
    links->told();
  }
  // Lets it dial until it gets through.
  void until_whole() {
    links->tick(now);
    while (links->broken().size() > 0) {
      const int events = opened + closed;
      now = now + seconds(10);
      links->tick(now);
      until([&] { return links->broken().size() == 0 || opened + closed > events; });
      links->tick(now);
    }
    EXPECT_TRUE(links->news());
    links->told();
  }

  net::Inbox inbox;
  std::unique_ptr<net::Transport> transport;
  std::optional<NodeLinks> links;
  std::vector<std::string> got;
  int opened = 0, closed = 0;
  Instant now{1'000'000'000};
};

Json roster_of(const Side& a, const Side& b) {
  const auto entry = [](NodeId id, const Side& side) {
    return Json::object({{"id", int64_t{id.value}},
                         {"address", side.transport->address()},
                         {"incarnation", hex(side.incarnation())}});
  };
  return Json::object({{"nodes", Json::array({entry(kA, a), entry(kB, b)})}});
}

void introduce(Side& a, Side& b) {
  a.links->on_roster(roster_of(a, b));
  b.links->on_roster(roster_of(a, b));
}

TEST(NodeLinks, ABrokenLinkIsDialledAgainAndWholeOnceItsBreakingWasTold) {
  const auto net = net::make_inproc_net();
  Side a("a", net, true), b("b", net, true);
  introduce(a, b);
  a.send(kB, "one");
  a.until([&] { return a.opened == 1; });
  b.until([&] { return b.got.size() == 1; });
  a.transport->cut("b");
  a.until([&] { return a.links->news(); });
  const Json broken = a.links->broken();
  ASSERT_EQ(broken.size(), 1u);
  EXPECT_EQ(broken[size_t{0}]["to"].as_int(), kB.value);
  EXPECT_EQ(broken[size_t{0}]["incarnation"].as_string(), hex(b.incarnation()));
  EXPECT_FALSE(broken[size_t{0}]["both"].as_bool());
  EXPECT_EQ(broken[size_t{0}]["reason"].as_string(), "cut on request");
  a.send(kB, "lost");
  // Before it is told, nothing is done about it.
  a.links->tick(a.now + seconds(1000));
  EXPECT_EQ(a.links->next_deadline(), net::kNoWait);
  a.links->told();
  a.links->tick(a.now);
  EXPECT_EQ(a.links->next_deadline(), a.now + milliseconds(300));
  a.links->tick(a.now + milliseconds(299));
  EXPECT_EQ(a.links->next_deadline(), a.now + milliseconds(300));
  a.links->tick(a.now + milliseconds(300));
  EXPECT_EQ(a.links->next_deadline(), kNever) << "it is dialled";
  a.until_whole();
  a.send(kB, "two");
  b.until([&] { return b.got.size() == 2; });
  EXPECT_EQ(b.got, (std::vector<std::string>{"one", "two"}));
}

TEST(NodeLinks, PausesGrowToFiveSecondsAndALinkThatStandsBeginsAnew) {
  const auto net = net::make_inproc_net();
  Side a("a", net, true), b("b", net, true);
  introduce(a, b);
  a.send(kB, "one");
  a.until([&] { return a.opened == 1; });
  std::vector<int64_t> pauses;
  const auto cut = [&](Duration stood) {
    a.links->tick(a.now);
    a.now = a.now + stood;
    a.links->tick(a.now);
    a.transport->cut("b");
    a.until_broken();
    a.links->tick(a.now);
    pauses.push_back((a.links->next_deadline() - a.now).value / milliseconds(1).value);
    const int before = a.opened;
    a.now = a.links->next_deadline();
    a.links->tick(a.now);
    a.until([&] { return a.opened > before; });
    a.links->tick(a.now);
    EXPECT_EQ(a.links->broken().size(), 0u);
    a.links->told();
  };
  for (int i = 0; i < 7; ++i) cut(seconds(1));
  cut(seconds(10));
  EXPECT_EQ(pauses, (std::vector<int64_t>{300, 600, 1200, 2400, 4800, 5000, 5000, 300}));
}

TEST(NodeLinks, WhoCannotBeDialledDialsAgainForBoth) {
  const auto net = net::make_inproc_net();
  Side a("a", net, false), b("b", net, true);
  introduce(a, b);
  a.until([&] { return a.opened == 1; });
  b.until([&] { return b.opened == 1; });
  a.send(kB, "to b");
  b.send(kA, "to a");
  a.until([&] { return a.got.size() == 1; });
  b.until([&] { return b.got.size() == 1; });
  a.transport->cut("b");
  a.until_broken();
  b.until_broken();
  EXPECT_TRUE(a.links->broken()[size_t{0}]["both"].as_bool());
  EXPECT_TRUE(b.links->broken()[size_t{0}]["both"].as_bool());
  b.send(kA, "lost");
  b.links->tick(b.now + seconds(1000));
  EXPECT_EQ(b.links->next_deadline(), kNever) << "it has nobody to dial";
  a.until_whole();
  b.until([&] { return b.opened == 2; });
  b.until_whole();
  b.send(kA, "again");
  a.send(kB, "again");
  a.until([&] { return a.got.size() == 2; });
  b.until([&] { return b.got.size() == 2; });
  EXPECT_EQ(a.got, (std::vector<std::string>{"to a", "again"}));
  // It dials again though the channel looks whole from here: for it, that one has ended.
  ASSERT_TRUE(a.transport->dial(b.transport->address(), net::deadline_in(kHeldUp)));
  b.until_broken();
  b.until_whole();
  b.send(kA, "on the new one");
  a.until([&] { return a.got.size() == 3; });
  EXPECT_EQ(a.got.back(), "on the new one");
}

TEST(NodeLinks, AnotherNodeAtTheAddressDoesNotMakeItWhole) {
  const auto net = net::make_inproc_net();
  Side a("a", net, true);
  auto b = std::make_unique<Side>("b", net, true);
  introduce(a, *b);
  a.send(kB, "one");
  a.until([&] { return a.opened == 1; });
  b.reset();
  a.until_broken();
  Side other("b", net, true);
  a.links->tick(a.now);
  a.now = a.now + seconds(10);
  a.links->tick(a.now);
  a.until([&] { return a.opened == 2; });
  a.links->tick(a.now);
  ASSERT_EQ(a.links->broken().size(), 1u);
  EXPECT_EQ(a.links->broken()[size_t{0}]["reason"].as_string(),
            "another node answers at its address");
  // Until the coordinator says that this is the node now.
  a.links->on_roster(roster_of(a, other));
  EXPECT_EQ(a.links->broken().size(), 0u);
  a.send(kB, "two");
  a.until([&] { return a.opened == 3; });
  other.until([&] { return other.got.size() == 1; });
  EXPECT_EQ(other.got[0], "two");
  // Nor is anything kept for one that has gone.
  a.links->on_roster(Json::object({{"nodes", Json::array()}}));
  a.send(kB, "three");
  other.until([&] { return other.closed == 2; });
  EXPECT_EQ(other.got.size(), 1u);
}

// A line on which nothing passes, until it is good again.
TEST(NodeLinks, HealsWhenTheLineDoes) {
  const auto net = net::make_inproc_net();
  Side a("a", net, true, kHeldUp), b("b", net, true, kHeldUp);
  net::Faults faults;
  faults.cut = 1;
  a.transport->set_faults("b", faults);
  introduce(a, b);
  a.send(kB, "lost");
  for (int breaks = 0; breaks < 3; ++breaks) {
    a.until_broken();
    if (breaks == 2) a.transport->set_faults("b", {});
    a.until_whole();
    a.send(kB, breaks == 2 ? "through" : "lost");
  }
  b.until([&] { return !b.got.empty(); });
  EXPECT_EQ(b.got, std::vector<std::string>{"through"});
}

}  // namespace
}  // namespace towline::worker
