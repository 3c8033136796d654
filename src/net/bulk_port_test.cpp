// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/bulk_port.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::net {
namespace {

Deadline soon() { return deadline_in(seconds(300)); }

struct Side {
  Side(const std::shared_ptr<InprocNet>& net, const std::string& name, const Faults& faults) {
    TransportOptions o;
    o.kind = TransportKind::kInproc;
    o.inproc = net;
    o.identity = name;
    o.listen = "inproc://" + name;
    o.reconnect_window = seconds(60);
    o.faults = faults;
    transport = *Transport::open(o, inbox);
    port = *BulkPort::open(*transport);
  }
  Inbox inbox;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<BulkPort> port;
};

// Random puts end up as if done by memcpy, in order, whatever the line does; a signal
// means that all before it is there.
TEST(BulkPort, PutsAreMemcpyInOrder) {
  for_seeds(6, [](Rng& rng) {
    const auto net = make_inproc_net();
    Faults f;
    if (rng.below(2)) f = *parse_faults("loss=0.02,duplicate=0.05,reorder=0.05,cut=0.01");
    Side a(net, "a", f), b(net, "b", f);
    std::vector<uint8_t> memory(1 << 20), expected(memory.size());
    ASSERT_TRUE(b.port->register_region(7, memory));
    auto link = a.port->connect("inproc://b", soon());
    ASSERT_TRUE(link) << link.error().to_string();
    for (uint64_t round = 1; round <= 10; ++round) {
      for (int i = 0; i < 5; ++i) {
        const size_t offset = rng.below(memory.size());
        const size_t size = rng.below(memory.size() - offset + 1);
        std::vector<uint8_t> bytes(size, static_cast<uint8_t>(rng()));
        std::copy(bytes.begin(), bytes.end(), expected.begin() + offset);
        ASSERT_TRUE((*link)->put(7, offset, bytes, soon()));
      }
      if (round % 2 == 0) {
        ASSERT_TRUE((*link)->signal(3, round, soon()));
        ASSERT_TRUE(b.port->wait(3, round, soon()));
      } else {
        ASSERT_TRUE((*link)->flush(soon()));
      }
      ASSERT_TRUE(memory == expected);
    }
    EXPECT_EQ(a.inbox.size(), 0u);  // bulk channels are not the application's
    EXPECT_EQ(b.inbox.size(), 0u);
  });
}

TEST(BulkPort, WritesOutsideARegionEndTheLink) {
  const auto net = make_inproc_net();
  Side a(net, "a", {}), b(net, "b", {});
  std::vector<uint8_t> memory(1000, 1);
  ASSERT_TRUE(b.port->register_region(7, memory));
  EXPECT_EQ(b.port->register_region(7, memory).error().code(), Code::kAlreadyExists);
  const std::vector<uint8_t> bytes(11, 9);
  for (const auto& [region, offset] : {std::pair{7u, 990ull}, {8u, 0ull}, {7u, ~0ull}}) {
    auto link = *a.port->connect("inproc://b", soon());
    ASSERT_TRUE(link->put(region, offset, bytes, soon()));
    const Result<void> flushed = link->flush(soon());
    ASSERT_FALSE(flushed);
    EXPECT_NE(flushed.error().message().find("put of 11 bytes"), std::string::npos)
        << flushed.error().message();
  }
  b.port->unregister_region(7);
  auto link = *a.port->connect("inproc://b", soon());
  ASSERT_TRUE(link->put(7, 0, bytes, soon()));
  EXPECT_FALSE(link->flush(soon()));
  EXPECT_EQ(memory, std::vector<uint8_t>(1000, 1));
}

TEST(BulkPort, NeedsAPortOnTheOtherSide) {
  const auto net = make_inproc_net();
  Side a(net, "a", {}), b(net, "b", {});
  EXPECT_FALSE(BulkPort::open(*b.transport));
  b.port.reset();
  const auto link = a.port->connect("inproc://b", soon());
  ASSERT_FALSE(link);
  EXPECT_NE(link.error().message().find("no bulk transfers"), std::string::npos);
}

TEST(BulkPort, AWaitThatIsNotAnsweredEnds) {
  const auto net = make_inproc_net();
  Side a(net, "a", {});
  EXPECT_EQ(a.port->wait(1, 1, deadline_in(milliseconds(2))).error().code(), Code::kDeadline);
  EXPECT_EQ(a.port->signal_value(1), 0u);
}

}  // namespace
}  // namespace towline::net
