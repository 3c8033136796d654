// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline net serve | ping | keys`: the first test between two machines: can they talk, how fast,
// and what goes wrong if not. No model is needed.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/link_probe.hpp"
#include "cli/stop_signals.hpp"
#include "net/keys.hpp"
#include "net/transport.hpp"

namespace towline::cli {
namespace {

using net::Inbox;

// What serve and ping have in common.
struct CommonOptions {
  LinkEnd end{
      .identity = format("net-{}", ::getpid()), .key_file = {}, .insecure = false, .faults = {}};
  bool json = false;

  void add_to(OptionTable& t) {
    t.value("identity", &end.identity, "name shown to the peer");
    t.value("keys", &end.key_file, "the cluster's keys, for zmq:// addresses ('towline net keys')");
    t.flag("insecure", &end.insecure, "zmq without keys and encryption");
    t.value("faults", &end.faults,
            "a bad network on purpose, for what is sent from here: delay=50ms,"
            "jitter=5ms,rate=100Mbit,loss=0.01,duplicate=,reorder=,corrupt=,cut=,seed=");
    t.value("silence", &end.silence,
            "seconds without a sign of life after which a peer counts as dead")
        .range(0.5, 86'400);
    t.flag("json", &json, "print JSON");
  }
};

// --- serve ---------------------------------------------------------------------------------------

struct NetServeOptions {
  CommonOptions common;
  std::vector<std::string> addresses = {"tcp://127.0.0.1:7100"};
  bool once = false;
};

OptionTable table(NetServeOptions& o) {
  OptionTable t("net serve", "Answer 'towline net ping' until Ctrl-C.");
  t.positional("addresses", &o.addresses, "where to listen: tcp://host:port, zmq://host:port, "
               "shm://name, mpi://rank (under mpirun); port 0 picks a free one");
  t.flag("once", &o.once, "end when the last peer has left");
  o.common.add_to(t);
  t.example("towline net serve tcp://0.0.0.0:7100");
  t.example(
      "towline net keys cluster.keys && towline net serve zmq://0.0.0.0:7101 --keys cluster.keys");
  return t;
}

void answer(const Inbox::Event& event, net::Channel& channel, uint64_t& counted) {
  const net::Deadline soon = net::deadline_in(seconds(10));
  Result<void> sent;
  if (event.frame.kind == kProbeEcho) {
    sent = channel.send(kProbeEcho, event.frame.epoch, event.frame.payload, soon);
  } else if (event.frame.kind == kProbeData) {
    counted += event.frame.payload.size();
  } else if (event.frame.kind == kProbeDone) {
    sent = channel.send(kProbeDone, 0, {reinterpret_cast<const uint8_t*>(&counted), sizeof counted},
                        soon);
    counted = 0;
  }
  if (!sent) channel.close(sent.error().message());
}

Result<int> run_serve(std::span<const std::string> args) {
  NetServeOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  Inbox inbox;
  std::vector<std::unique_ptr<net::Transport>> transports;
  Json listening = Json::array();
  for (const std::string& address : o.addresses) {
    ASSIGN_OR_RETURN(const net::TransportKind kind, net::kind_of_address(address));
    ASSIGN_OR_RETURN(auto transport, o.common.end.open(kind, address, inbox));
    if (!o.common.json) std::puts(format("listening on {}", transport->address()).c_str());
    listening.push(transport->address());
    transports.push_back(std::move(transport));
  }
  if (o.common.json) {
    std::puts(Json::object({{"listening", listening}, {"pid", ::getpid()}}).dump().c_str());
  }
  std::fflush(stdout);

  const StopSignals stop({SIGINT, SIGTERM});
  const std::stop_callback wake(stop.token(), [&inbox] { inbox.wake(); });
  struct Peer {
    std::shared_ptr<net::Channel> channel;
    uint64_t counted = 0;
  };
  std::map<net::ChannelId, Peer> peers;
  while (true) {
    const std::optional<Inbox::Event> event = inbox.wait(kNever);
    if (!event || event->kind == Inbox::Event::kWake) break;
    if (event->kind == Inbox::Event::kOpened) {
      peers[event->channel] = {event->opened, 0};
      std::fputs(format("net: '{}' connected\n", event->opened->peer().name).c_str(), stderr);
    } else if (event->kind == Inbox::Event::kFrame) {
      Peer& peer = peers[event->channel];
      answer(*event, *peer.channel, peer.counted);
    } else if (event->kind == Inbox::Event::kClosed) {
      std::fputs(
          format("net: '{}' left: {}\n", peers[event->channel].channel->peer().name, event->reason)
              .c_str(),
          stderr);
      peers.erase(event->channel);
      if (o.once && peers.empty()) break;
    }
  }
  return 0;
}

// --- ping ----------------------------------------------------------------------------------------

struct NetPingOptions {
  CommonOptions common;
  std::vector<std::string> addresses;
  LinkProbe probe;
};

OptionTable table(NetPingOptions& o) {
  OptionTable t("net ping",
                "Measure latency and bandwidth to a 'towline net serve', over each transport.");
  t.positional("addresses", &o.addresses, "as printed by 'towline net serve'").required();
  t.value("sizes", &o.probe.sizes, "payload bytes of the round trips, comma separated");
  t.value("count", &o.probe.count, "round trips for each size").range(1, 10'000'000);
  t.value("gap-us", &o.probe.gap_us,
          "pause between round trips: 0 is the hot path, 2000 is like steps of a model")
      .range(0, 10'000'000);
  t.value("megabytes", &o.probe.megabytes, "sent one way for the bandwidth; 0 leaves it out")
      .range(0, 1'000'000);
  t.value("timeout", &o.probe.timeout, "seconds to wait for the peer").range(0.1, 3600);
  o.common.add_to(t);
  t.example("towline net ping tcp://10.0.0.7:7100");
  t.example("towline net ping zmq://10.0.0.7:7101 --keys cluster.keys --json");
  t.example("mpirun -n 1 towline net serve mpi://0 --once : -n 1 towline net ping mpi://0");
  return t;
}

Json to_json(const LinkProbe::Figures& f, const LinkProbe& probe) {
  Json latencies = Json::array();
  for (const LinkProbe::Latency& l : f.latency) {
    latencies.push(Json::object({{"bytes", l.bytes}, {"p50_us", l.p50}, {"p90_us", l.p90},
                                 {"p99_us", l.p99}, {"max_us", l.max}}));
  }
  Json out = Json::object({{"address", f.address}, {"transport", f.transport}, {"peer", f.peer},
                           {"connect_ms", f.connect_ms}, {"round_trips", probe.count},
                           {"gap_us", probe.gap_us}, {"latency", latencies}});
  if (f.bytes_per_second > 0) out.set("bytes_per_second", f.bytes_per_second);
  return out;
}

void print(const LinkProbe::Figures& f) {
  std::puts(format("{}: '{}', connected in {:.1f} ms", f.address, f.peer, f.connect_ms).c_str());
  std::puts("  bytes      p50 us      p90 us      p99 us      max us   (round trip)");
  for (const LinkProbe::Latency& l : f.latency) {
    std::puts(
        format("{:>7} {:>11.1f} {:>11.1f} {:>11.1f} {:>11.1f}", l.bytes, l.p50, l.p90, l.p99, l.max)
            .c_str());
  }
  if (f.bytes_per_second > 0) {
    std::puts(format("  one way {:.1f} MB/s ({:.0f} Mbit/s)", f.bytes_per_second * 1e-6,
                     f.bytes_per_second * 8e-6).c_str());
  }
  std::fflush(stdout);
}

Result<int> run_ping(std::span<const std::string> args) {
  NetPingOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  o.probe.end = o.common.end;
  Json results = Json::array();
  for (const std::string& address : o.addresses) {
    ASSIGN_OR_RETURN(const LinkProbe::Figures figures, o.probe.run(address));
    if (!o.common.json) print(figures);
    results.push(to_json(figures, o.probe));
  }
  if (o.common.json) std::puts(Json::object({{"schema", 1}, {"peers", results}}).dump().c_str());
  std::fflush(stdout);  // MPI's end may wait for the other rank's
  return 0;
}

// --- keys ----------------------------------------------------------------------------------------

struct NetKeysOptions {
  std::string path;
};

OptionTable table(NetKeysOptions& o) {
  OptionTable t("net keys", "Make the key file of a cluster (CURVE).");
  t.describe("Who has the file may join and talk; everything is encrypted. Copy it to every node "
             "(it is readable by its owner only) and name it there with --keys.");
  t.positional("file", &o.path, "the file to write; never overwritten").required();
  t.example("towline net keys cluster.keys");
  return t;
}

Result<int> run_keys(std::span<const std::string> args) {
  NetKeysOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const net::ClusterKeys keys, net::make_keys());
  TRY(net::write_keys(o.path, keys));
  std::puts(format("wrote '{}' (public key {})", o.path, keys.public_key).c_str());
  return 0;
}

}  // namespace

const Command kNetServe = {"net serve", "answer 'net ping' from another machine", run_serve,
                           [](void (*sink)(const OptionTable&)) {
                             NetServeOptions o;
                             o.common.end.identity = "net-PID";
                             sink(table(o));
                           }};
const Command kNetPing = {"net ping", "latency and bandwidth to another machine, by transport",
                          run_ping, [](void (*sink)(const OptionTable&)) {
                            NetPingOptions o;
                            o.common.end.identity = "net-PID";
                            sink(table(o));
                          }};
const Command kNetKeys = {"net keys", "make the key file of a cluster", run_keys,
                          [](void (*sink)(const OptionTable&)) {
                            NetKeysOptions o;
                            sink(table(o));
                          }};

}  // namespace towline::cli
