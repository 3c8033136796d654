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
#include "cli/progress.hpp"
#include "cli/stop_signals.hpp"
#include "net/keys.hpp"
#include "net/transport.hpp"

namespace towline::cli {
namespace {

using net::Inbox;

// Kinds of this conversation. kData is counted, kDone answered with the number of bytes counted.
constexpr uint16_t kEcho = 0xff10, kData = 0xff11, kDone = 0xff12;
constexpr size_t kPiece = 256 << 10;

// What serve and ping have in common.
struct CommonOptions {
  std::string identity = format("net-{}", ::getpid());
  std::string key_file;
  std::string faults;
  double silence = 3;
  bool insecure = false;
  bool json = false;

  void add_to(OptionTable& t) {
    t.value("identity", &identity, "name shown to the peer");
    t.value("key-file", &key_file, "the cluster's keys, for zmq:// addresses ('towline net keys')");
    t.flag("insecure", &insecure, "zmq without keys and encryption");
    t.value("faults", &faults, "a bad network on purpose, for what is sent from here: delay=50ms,"
            "jitter=5ms,rate=100Mbit,loss=0.01,duplicate=,reorder=,corrupt=,cut=,seed=");
    t.value("silence", &silence, "seconds without a sign of life after which a peer counts as dead")
        .range(0.5, 86'400);
    t.flag("json", &json, "print JSON");
  }
  Result<std::unique_ptr<net::Transport>> open(net::TransportKind kind, const std::string& listen,
                                               Inbox& inbox) const {
    net::TransportOptions o;
    o.kind = kind;
    o.listen = listen;
    o.identity = identity;
    o.key_file = key_file;
    o.insecure = insecure;
    o.peer_timeout = Duration(static_cast<int64_t>(silence * 1e9));
    ASSIGN_OR_RETURN(o.faults, net::parse_faults(faults));
    return net::Transport::open(std::move(o), inbox);
  }
};

// --- serve ---------------------------------------------------------------------------------------------

struct NetServeOptions {
  CommonOptions common;
  std::vector<std::string> addresses = {"tcp://127.0.0.1:7100"};
  bool once = false;
};

OptionTable table(NetServeOptions& o) {
  OptionTable t("net serve", "Answer 'towline net ping' until Ctrl-C.");
  t.positional("addresses", &o.addresses, "where to listen: tcp://host:port, zmq://host:port, "
               "shm://name; port 0 picks a free one");
  t.flag("once", &o.once, "end when the last peer has left");
  o.common.add_to(t);
  t.example("towline net serve tcp://0.0.0.0:7100");
  t.example("towline net keys cluster.keys && towline net serve zmq://0.0.0.0:7101 --key-file cluster.keys");
  return t;
}

void answer(const Inbox::Event& event, net::Channel& channel, uint64_t& counted) {
  const net::Deadline soon = net::deadline_in(seconds(10));
  Result<void> sent;
  if (event.frame.kind == kEcho) {
    sent = channel.send(kEcho, event.frame.epoch, event.frame.payload, soon);
  } else if (event.frame.kind == kData) {
    counted += event.frame.payload.size();
  } else if (event.frame.kind == kDone) {
    sent = channel.send(kDone, 0, {reinterpret_cast<const uint8_t*>(&counted), sizeof counted}, soon);
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
    ASSIGN_OR_RETURN(auto transport, o.common.open(kind, address, inbox));
    if (!o.common.json) std::puts(format("listening on {}", transport->address()).c_str());
    listening.push(transport->address());
    transports.push_back(std::move(transport));
  }
  if (o.common.json) std::puts(Json::object({{"listening", listening}, {"pid", ::getpid()}}).dump().c_str());
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
      std::fputs(format("net: '{}' left: {}\n", peers[event->channel].channel->peer().name, event->reason).c_str(),
                 stderr);
      peers.erase(event->channel);
      if (o.once && peers.empty()) break;
    }
  }
  return 0;
}

// --- ping ----------------------------------------------------------------------------------------------

struct NetPingOptions {
  CommonOptions common;
  std::vector<std::string> addresses;
  std::vector<int> sizes = {64, 4096, 65536};
  int count = 1000;
  int gap_us = 0;
  int megabytes = 256;
  double timeout = 5;
};

OptionTable table(NetPingOptions& o) {
  OptionTable t("net ping", "Measure latency and bandwidth to a 'towline net serve', over each transport.");
  t.positional("addresses", &o.addresses, "as printed by 'towline net serve'").required();
  t.value("sizes", &o.sizes, "payload bytes of the round trips, comma separated");
  t.value("count", &o.count, "round trips for each size").range(1, 10'000'000);
  t.value("gap-us", &o.gap_us, "pause between round trips: 0 is the hot path, 2000 is like steps of a model")
      .range(0, 10'000'000);
  t.value("megabytes", &o.megabytes, "sent one way for the bandwidth; 0 leaves it out").range(0, 1'000'000);
  t.value("timeout", &o.timeout, "seconds to wait for the peer").range(0.1, 3600);
  o.common.add_to(t);
  t.example("towline net ping tcp://10.0.0.7:7100");
  t.example("towline net ping zmq://10.0.0.7:7101 --key-file cluster.keys --json");
  return t;
}

// Waits for the answer of that kind on the one channel of this inbox.
Result<net::Frame> expect(Inbox& inbox, uint16_t kind, net::Deadline deadline) {
  while (true) {
    std::optional<Inbox::Event> event = inbox.wait(deadline);
    if (!event) return Error(Code::kDeadline, "the peer does not answer any more");
    if (event->kind == Inbox::Event::kClosed) {
      return errorf(Code::kUnavailable, "the connection ended: {}", event->reason);
    }
    if (event->kind == Inbox::Event::kFrame && event->frame.kind == kind) return std::move(event->frame);
  }
}

struct Latency {
  int size = 0;
  double p50 = 0, p90 = 0, p99 = 0, max = 0;  // microseconds, round trip
};

Result<Latency> measure_latency(net::Channel& channel, Inbox& inbox, int size, const NetPingOptions& o) {
  const Duration limit(static_cast<int64_t>(o.timeout * 1e9));
  const std::vector<uint8_t> payload(static_cast<size_t>(size));
  const int warm_up = std::min(20, o.count);
  std::vector<double> us;
  for (int i = -warm_up; i < o.count; ++i) {
    if (o.gap_us > 0) ::usleep(static_cast<useconds_t>(o.gap_us));
    const Instant begin = net::steady_now();
    TRY(channel.send(kEcho, static_cast<uint32_t>(i), payload, begin + limit));
    ASSIGN_OR_RETURN(const net::Frame echo, expect(inbox, kEcho, begin + limit));
    if (echo.payload.size() != payload.size()) {
      return Error(Code::kDataCorrupt, "the echo has another length: is 'towline net serve' there?");
    }
    if (i >= 0) us.push_back(static_cast<double>((net::steady_now() - begin).value) * 1e-3);
  }
  std::sort(us.begin(), us.end());
  const auto at = [&](double q) { return us[static_cast<size_t>(q * static_cast<double>(us.size() - 1))]; };
  return Latency{size, at(0.5), at(0.9), at(0.99), us.back()};
}

// Bytes a second, counted by the receiver.
Result<double> measure_bandwidth(net::Channel& channel, Inbox& inbox, const NetPingOptions& o) {
  const std::vector<uint8_t> piece(kPiece, 0x5a);
  const int64_t total = int64_t{o.megabytes} * 1'000'000;
  const net::Deadline limit = net::deadline_in(seconds(600));
  const Instant begin = net::steady_now();
  for (int64_t left = total; left > 0; left -= static_cast<int64_t>(kPiece)) {
    TRY(channel.send(kData, 0, std::span(piece).first(std::min<size_t>(kPiece, static_cast<size_t>(left))), limit));
  }
  TRY(channel.send(kDone, 0, std::span<const uint8_t>(), limit));
  ASSIGN_OR_RETURN(const net::Frame done, expect(inbox, kDone, limit));
  uint64_t counted = 0;
  if (done.payload.size() == sizeof counted) std::memcpy(&counted, done.payload.data(), sizeof counted);
  if (counted != static_cast<uint64_t>(total)) {
    return errorf(Code::kDataCorrupt, "{} bytes sent, {} arrived", total, counted);
  }
  return static_cast<double>(total) / to_seconds(net::steady_now() - begin);
}

Result<Json> ping(const std::string& address, const NetPingOptions& o) {
  ASSIGN_OR_RETURN(const net::TransportKind kind, net::kind_of_address(address));
  Inbox inbox;
  ASSIGN_OR_RETURN(auto transport, o.common.open(kind, "", inbox));
  const Instant begin = net::steady_now();
  ASSIGN_OR_RETURN(auto channel, transport->connect(address, begin + Duration(static_cast<int64_t>(o.timeout * 1e9))));
  const double connect_ms = to_seconds(net::steady_now() - begin) * 1e3;
  if (!o.common.json) {
    std::puts(format("{}: '{}', connected in {:.1f} ms", address, channel->peer().name, connect_ms).c_str());
    std::puts("  bytes      p50 us      p90 us      p99 us      max us   (round trip)");
  }
  Json latencies = Json::array();
  for (const int size : o.sizes) {
    if (size < 0 || size > (32 << 20)) {
      return errorf(Code::kInvalidArgument, "--sizes {}: 0 to {} are possible", size, 32 << 20);
    }
    ASSIGN_OR_RETURN(const Latency l, measure_latency(*channel, inbox, size, o));
    if (!o.common.json) {
      std::puts(format("{:>7} {:>11.1f} {:>11.1f} {:>11.1f} {:>11.1f}", l.size, l.p50, l.p90, l.p99, l.max).c_str());
    }
    latencies.push(Json::object({{"bytes", l.size}, {"p50_us", l.p50}, {"p90_us", l.p90},
                                      {"p99_us", l.p99}, {"max_us", l.max}}));
  }
  Json result = Json::object({{"address", address}, {"transport", std::string(net::kind_name(kind))},
                              {"peer", channel->peer().name}, {"connect_ms", connect_ms},
                              {"round_trips", o.count}, {"gap_us", o.gap_us}, {"latency", latencies}});
  if (o.megabytes > 0) {
    ASSIGN_OR_RETURN(const double rate, measure_bandwidth(*channel, inbox, o));
    if (!o.common.json) std::puts(format("  one way {:.1f} MB/s ({:.0f} Mbit/s)", rate * 1e-6, rate * 8e-6).c_str());
    result.set("bytes_per_second", rate);
  }
  channel->close("done");
  return result;
}

Result<int> run_ping(std::span<const std::string> args) {
  NetPingOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  Json results = Json::array();
  for (const std::string& address : o.addresses) {
    ASSIGN_OR_RETURN(Json result, ping(address, o));
    results.push(std::move(result));
  }
  if (o.common.json) std::puts(Json::object({{"schema", 1}, {"peers", results}}).dump().c_str());
  return 0;
}

// --- keys ----------------------------------------------------------------------------------------------

struct NetKeysOptions {
  std::string path;
};

OptionTable table(NetKeysOptions& o) {
  OptionTable t("net keys", "Make the key file of a cluster (CURVE).");
  t.describe("Who has the file may join and talk; everything is encrypted. Copy it to every node "
             "(it is readable by its owner only) and name it there with --key-file.");
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
                             o.common.identity = "net-PID";
                             sink(table(o));
                           }};
const Command kNetPing = {"net ping", "latency and bandwidth to another machine, by transport", run_ping,
                          [](void (*sink)(const OptionTable&)) {
                            NetPingOptions o;
                            o.common.identity = "net-PID";
                            sink(table(o));
                          }};
const Command kNetKeys = {"net keys", "make the key file of a cluster", run_keys,
                          [](void (*sink)(const OptionTable&)) {
                            NetKeysOptions o;
                            sink(table(o));
                          }};

}  // namespace towline::cli
