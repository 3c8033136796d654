// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LinkProbe: latency and bandwidth to a `towline net serve`, for `net ping` and `profile --link`.
#pragma once

#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "net/inbox.hpp"
#include "net/transport.hpp"

namespace towline::cli {

// Kinds of this conversation. kData is counted, kDone answered with the number of bytes counted.
inline constexpr uint16_t kProbeEcho = 0xff10, kProbeData = 0xff11, kProbeDone = 0xff12;

struct LinkEnd {                      // what both ends have in common
  std::string identity;
  std::string key_file;               // zmq
  bool insecure = false;              // zmq without keys
  std::string faults;                 // for net::parse_faults()
  double silence = 3;                 // seconds without a sign of life: the peer counts as dead

  Result<std::unique_ptr<net::Transport>> open(net::TransportKind kind, const std::string& listen,
                                               net::Inbox& inbox) const;
};

struct LinkProbe {
  LinkEnd end;
  std::vector<int> sizes = {64, 4096, 65536};  // payload bytes of the round trips
  int count = 1000;                   // round trips for each size
  int gap_us = 0;                     // between two
  int megabytes = 256;                // sent one way; 0: no bandwidth
  double timeout = 5;                 // seconds to wait for the peer

  struct Latency {
    int bytes = 0;
    double p50 = 0, p90 = 0, p99 = 0, max = 0;  // microseconds, round trip
  };
  struct Figures {
    std::string address, transport, peer;
    double connect_ms = 0;
    std::vector<Latency> latency;
    double bytes_per_second = 0;      // one way, counted by the receiver; 0: not measured
  };
  Result<Figures> run(const std::string& address) const;
};

}  // namespace towline::cli
