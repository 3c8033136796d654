// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Run by mpirun with three or more ranks: the channel contract over the mpi back end, where the
// suite in src/net/conformance_test.cpp cannot go (one process is one rank). Each rank dials the
// next one and talks to both neighbours: order, large frames, a cut and its resumption, reasons.
#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/fmt.hpp"
#include "net/transport.hpp"

namespace {

using namespace towline;
using namespace towline::net;

int rank_number = -1;

#define REQUIRE(condition)                                                                       \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      std::fprintf(stderr, "rank %d: line %d: %s\n", rank_number, __LINE__, #condition);         \
      std::_Exit(1);                                                                             \
    }                                                                                            \
  } while (false)

Deadline soon() { return deadline_in(seconds(60)); }

// Takes events until the channel has delivered `count` more frames, checking their order.
struct Peer {
  std::shared_ptr<Channel> channel;
  uint32_t next = 0;
  size_t largest = 0;
  std::string closed;
};

void pump(Inbox& inbox, std::map<ChannelId, Peer>& peers, auto&& until) {
  while (!until()) {
    std::optional<Inbox::Event> event = inbox.wait(soon());
    REQUIRE(event.has_value());
    Peer& peer = peers[event->channel];
    if (event->kind == Inbox::Event::kOpened) peer.channel = event->opened;
    if (event->kind == Inbox::Event::kClosed) peer.closed = event->reason;
    if (event->kind != Inbox::Event::kFrame) continue;
    REQUIRE(event->frame.epoch == peer.next);
    ++peer.next;
    peer.largest = std::max(peer.largest, event->frame.payload.size());
    for (size_t i = 0; i < event->frame.payload.size(); i += 4099) {
      REQUIRE(event->frame.payload[i] == static_cast<uint8_t>(event->frame.epoch));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 0;
  Inbox inbox;
  TransportOptions o;
  o.kind = TransportKind::kMpi;
  o.listen = "mpi://";
  o.identity = "unnamed";
  o.reconnect_window = seconds(30);
  const char* number = std::getenv("OMPI_COMM_WORLD_RANK");
  if (number != nullptr) o.identity = format("rank-{}", number);
  Result<std::unique_ptr<Transport>> transport = Transport::open(o, inbox);
  if (!transport) {
    std::fprintf(stderr, "%s\n", transport.error().to_string().c_str());
    return transport.error().code() == Code::kUnsupported ? 77 : 1;
  }
  rank_number = std::atoi((*transport)->address().substr(6).c_str());

  REQUIRE(
      (*transport)->connect(format("mpi://{}", ranks), soon()).error().message().find("no rank") !=
      std::string::npos);
  REQUIRE(!Transport::open(o, inbox));  // MPI starts once
  const int to = (rank_number + 1) % ranks;
  Result<std::shared_ptr<Channel>> out = (*transport)->connect(format("mpi://{}", to), soon());
  REQUIRE(out);
  constexpr uint32_t kFrames = 300;
  std::map<ChannelId, Peer> peers;
  pump(inbox, peers, [&] { return peers.size() == 2; });  // one dialled, one accepted
  for (uint32_t i = 0; i < kFrames; ++i) {
    const std::vector<uint8_t> payload(i == 100 ? (8u << 20) : i % 5000, static_cast<uint8_t>(i));
    REQUIRE((*out)->send(1, i, payload, soon()));
    if (i == 150) (*transport)->cut(format("rank-{}", to));
  }
  const auto inbound_done = [&] {
    for (const auto& [id, peer] : peers) {
      if (!peer.channel->dialed()) return peer.next == kFrames;
    }
    return false;
  };
  pump(inbox, peers, inbound_done);
  for (auto& [id, peer] : peers) {
    if (peer.channel->dialed()) continue;
    REQUIRE(peer.largest == (8u << 20));
    peer.channel->close("all received");
  }
  pump(inbox, peers, [&] {
    for (const auto& [id, peer] : peers) {
      if (peer.closed.empty()) return false;
    }
    return true;
  });
  for (const auto& [id, peer] : peers) {
    REQUIRE(peer.closed ==
            (peer.channel->dialed() ? "closed by the peer: all received" : "all received"));
  }
  transport->reset();
  std::printf("rank %d of %d: all in order\n", rank_number, ranks);
  return 0;
}
