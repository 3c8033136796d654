// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/link_probe.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/fmt.hpp"

namespace towline::cli {
namespace {

using net::Inbox;

constexpr size_t kPiece = 256 << 10;
constexpr int kLargest = 32 << 20;

// Waits for the answer of that kind on the one channel of this inbox.
Result<net::Frame> expect(Inbox& inbox, uint16_t kind, net::Deadline deadline) {
  while (true) {
    std::optional<Inbox::Event> event = inbox.wait(deadline);
    if (!event) return Error(Code::kDeadline, "the peer does not answer any more");
    if (event->kind == Inbox::Event::kClosed) {
      return errorf(Code::kUnavailable, "the connection ended: {}", event->reason);
    }
    if (event->kind == Inbox::Event::kFrame && event->frame.kind == kind) {
      return std::move(event->frame);
    }
  }
}

Result<LinkProbe::Latency> measure_latency(net::Channel& channel, Inbox& inbox, int size,
                                           const LinkProbe& o) {
  const Duration limit(static_cast<int64_t>(o.timeout * 1e9));
  const std::vector<uint8_t> payload(static_cast<size_t>(size));
  const int warm_up = std::min(20, o.count);
  std::vector<double> us;
  for (int i = -warm_up; i < o.count; ++i) {
    if (o.gap_us > 0) ::usleep(static_cast<useconds_t>(o.gap_us));
    const Instant begin = net::steady_now();
    TRY(channel.send(kProbeEcho, static_cast<uint32_t>(i), payload, begin + limit));
    ASSIGN_OR_RETURN(const net::Frame echo, expect(inbox, kProbeEcho, begin + limit));
    if (echo.payload.size() != payload.size()) {
      return Error(Code::kDataCorrupt,
                   "the echo has another length: is 'towline net serve' there?");
    }
    if (i >= 0) us.push_back(static_cast<double>((net::steady_now() - begin).value) * 1e-3);
  }
  std::sort(us.begin(), us.end());
  const auto at = [&](double q) {
    return us[static_cast<size_t>(q * static_cast<double>(us.size() - 1))];
  };
  return LinkProbe::Latency{size, at(0.5), at(0.9), at(0.99), us.back()};
}

// Bytes a second, counted by the receiver.
Result<double> measure_bandwidth(net::Channel& channel, Inbox& inbox, const LinkProbe& o) {
  const std::vector<uint8_t> piece(kPiece, 0x5a);
  const int64_t total = int64_t{o.megabytes} * 1'000'000;
  const net::Deadline limit = net::deadline_in(seconds(600));
  const Instant begin = net::steady_now();
  for (int64_t left = total; left > 0; left -= static_cast<int64_t>(kPiece)) {
    TRY(channel.send(kProbeData, 0,
                     std::span(piece).first(std::min<size_t>(kPiece, static_cast<size_t>(left))),
                     limit));
  }
  TRY(channel.send(kProbeDone, 0, std::span<const uint8_t>(), limit));
  ASSIGN_OR_RETURN(const net::Frame done, expect(inbox, kProbeDone, limit));
  uint64_t counted = 0;
  if (done.payload.size() == sizeof counted) {
    std::memcpy(&counted, done.payload.data(), sizeof counted);
  }
  if (counted != static_cast<uint64_t>(total)) {
    return errorf(Code::kDataCorrupt, "{} bytes sent, {} arrived", total, counted);
  }
  return static_cast<double>(total) / to_seconds(net::steady_now() - begin);
}

}  // namespace

Result<std::unique_ptr<net::Transport>> LinkEnd::open(net::TransportKind kind,
                                                      const std::string& listen,
                                                      Inbox& inbox) const {
  if (kind == net::TransportKind::kInproc) {
    return Error(Code::kInvalidArgument,
                 "inproc:// reaches no other process; use shm://, tcp://, zmq:// or mpi://");
  }
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

Result<LinkProbe::Figures> LinkProbe::run(const std::string& address) const {
  for (const int size : sizes) {
    if (size >= 0 && size <= kLargest) continue;
    return errorf(Code::kInvalidArgument, "round trips of {} bytes: 0 to {} are possible", size,
                  kLargest);
  }
  ASSIGN_OR_RETURN(const net::TransportKind kind, net::kind_of_address(address));
  Inbox inbox;
  ASSIGN_OR_RETURN(auto transport, end.open(kind, "", inbox));
  const Instant begin = net::steady_now();
  ASSIGN_OR_RETURN(
      auto channel,
      transport->connect(address, begin + Duration(static_cast<int64_t>(timeout * 1e9))));
  Figures out;
  out.address = address;
  out.transport = net::kind_name(kind);
  out.peer = channel->peer().name;
  out.connect_ms = to_seconds(net::steady_now() - begin) * 1e3;
  for (const int size : sizes) {
    ASSIGN_OR_RETURN(const Latency latency,
                     measure_latency(*channel, inbox, size, *this).context(address));
    out.latency.push_back(latency);
  }
  if (megabytes > 0) {
    ASSIGN_OR_RETURN(out.bytes_per_second,
                     measure_bandwidth(*channel, inbox, *this).context(address));
  }
  channel->close("done");
  return out;
}

}  // namespace towline::cli
