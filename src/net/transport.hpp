// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Transport: this process's place in the cluster: an address others can dial, and the means to
// dial them. All its channels deliver into one Inbox.
//
//   Inbox inbox;
//   ASSIGN_OR_RETURN(auto transport, Transport::open({.kind = TransportKind::kTcp,
//       .listen = "tcp://127.0.0.1:0", .identity = "node-3"}, inbox));
//   ASSIGN_OR_RETURN(auto channel,
//       transport->connect("tcp://10.0.0.7:7100", deadline_in(seconds(5))));
//
// Back ends, one contract (tested by one suite):
//   inproc://name   threads of one process; tests and one-process clusters
//   shm://name      processes of one machine and user: memfd rings, nothing in /dev/shm
//   tcp://host:port plain TCP (Asio); for networks you trust
//   zmq://host:port ZeroMQ DEALER/ROUTER with CURVE keys; the default between machines
//   mpi://rank      ranks of one mpirun (optional at build time)
// A node needs one port, or none: without `listen` it only dials out (behind NAT or a firewall) and
// talks over the channels it opened.
//
// Threads: open() starts one I/O thread ("net-tcp", ...), which owns sockets, timers and
// heartbeats and sleeps when nothing happens. send() writes to the line from the caller's thread
// where the back end can. All state is under one mutex per transport, taken before the Inbox's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "net/channel.hpp"
#include "net/faults.hpp"
#include "net/inbox.hpp"

namespace towline::net {

enum class TransportKind { kInproc, kShm, kTcp, kZmq, kMpi };
std::string_view kind_name(TransportKind kind);
// The kind named by an address's scheme; kInvalidArgument names the ones that exist.
Result<TransportKind> kind_of_address(std::string_view address);
// Whether it has the form of its kind (tcp://host:port, shm://name, ...); nothing is looked up.
Result<void> check_address(const std::string& address);

class InprocNet;  // the "network" of the inproc back end: addresses are unique within one
std::shared_ptr<InprocNet> make_inproc_net();

struct TransportOptions {
  TransportKind kind = TransportKind::kTcp;
  std::string listen;    // "tcp://0.0.0.0:7100", port 0 picks one; empty: dial out only
  std::string identity;  // this side's name, shown to peers; 1 to 64 printable characters
  std::string key_file;  // zmq: the cluster's CURVE keys (net/keys.hpp)
  bool insecure = false; // zmq: no key file, no encryption, on purpose
  std::shared_ptr<InprocNet> inproc;  // kInproc: the network to be on

  Duration heartbeat = milliseconds(500);        // sent when nothing else was
  Duration peer_timeout = seconds(3);            // silence after which the line counts as dead
  Duration handshake_timeout = seconds(3);       // for the first answer on a new line
  Duration reconnect_window = milliseconds(200); // a broken line may come back this long
  uint32_t max_frame_bytes = 64u << 20;          // longest payload accepted from a peer
  uint32_t window_frames = 1024;                 // credits given to each peer: frames ...
  uint64_t window_bytes = 64u << 20;             // ... and bytes (one larger frame passes alone)

  // Bad network on purpose, for what this side sends: for all peers, or by peer identity.
  Faults faults;
  std::map<std::string, Faults> peer_faults;
};

class Transport {
 public:
  static Result<std::unique_ptr<Transport>> open(TransportOptions options, Inbox& inbox);
  // Closes all channels ("transport closed"), gives their farewells up to 300 ms, ends the thread.
  virtual ~Transport() = default;

  // Dials and waits until the peer has answered. While the peer is not there yet (refused, no such
  // name) it tries again until the deadline; a peer that says no is an error at once. On success
  // kOpened is in the Inbox as well; on failure no event is.
  virtual Result<std::shared_ptr<Channel>> connect(const std::string& address,
                                                   Deadline deadline) = 0;
  // The same without waiting: kOpened or kClosed tells the outcome.
  virtual Result<std::shared_ptr<Channel>> dial(const std::string& address, Deadline deadline) = 0;

  // What others dial: the listen address with the real port; empty when dialling out only.
  virtual std::string address() const = 0;
  virtual PeerName self() const = 0;

  // From now on, for channels to `peer` (identity), existing and new.
  virtual void set_faults(const std::string& peer, const Faults& faults) = 0;
  // From now on, instead of TransportOptions::peer_timeout; at least two heartbeats.
  virtual void set_peer_timeout(Duration silence) = 0;
  // Breaks the line to `peer` as a network would (tests, chaos runs): the session resumes or dies.
  virtual void cut(const std::string& peer) = 0;

  virtual std::shared_ptr<class Hub> hub() = 0;  // for net's own parts (net/hub.hpp)
};

}  // namespace towline::net
