// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Channel: one reliable, ordered, framed conversation with one peer.
//
// What it promises, over every back end (the conformance suite holds each of them to it):
//   - frames arrive whole, once, in the order sent, or the channel closes with a reason;
//   - a line that breaks and comes back within TransportOptions::reconnect_window loses nothing:
//     what was not acknowledged is sent again and duplicates are dropped;
//   - memory is bounded: at most `window_frames` frames and about `window_bytes` bytes wait
//     between send() here and Inbox::wait() there. More is refused (kExhausted), never queued;
//   - both sides learn why it ended, as the last event of the channel in their Inbox.
// It does not promise that a frame accepted by send() was seen by the peer: the end of the channel
// may overtake it. Protocols that need to know answer each other.
//
// A process that is killed, stopped (SIGSTOP) or cut off is noticed: by the line breaking at once,
// or by missing heartbeats after TransportOptions::peer_timeout.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "net/clock.hpp"

namespace towline::net {

using ChannelId = Id<struct ChannelTag, uint64_t>;  // unique within one Inbox, never reused

// A message. Kinds belong to protocol/ (0 to 0xfeff); those from 0xff00 are net's own.
struct Frame {
  uint16_t kind = 0;
  uint32_t epoch = 0;
  std::vector<uint8_t> payload;
};

// Who is at the other end. The incarnation is drawn when a Transport is opened, so a peer that was
// restarted under the same name is another peer.
struct PeerName {
  std::string name;
  uint64_t incarnation = 0;
  friend bool operator==(const PeerName&, const PeerName&) = default;
};

enum class ChannelState {
  kOpening,      // dialled, no answer yet
  kOpen,         // frames flow
  kInterrupted,  // the line is down; frames wait (within the window) for it to come back
  kClosed,       // over, for good; close_reason() says why
};

// Why a channel ended, for whoever may begin anew.
enum class ChannelEnd {
  kClosed,  // one side wanted it, or breaks the rules
  kLost,    // the line broke, or nothing was heard for too long: the peer may well live
  kGone,    // nobody, or another incarnation, is at the peer's address
};

struct ChannelStats {
  uint64_t frames_sent = 0, bytes_sent = 0;          // payloads, without what was sent again
  uint64_t frames_received = 0, bytes_received = 0;  // delivered to the Inbox
  uint64_t frames_resent = 0, duplicates_dropped = 0, reconnects = 0;
  uint64_t unconsumed_frames = 0, unconsumed_bytes = 0;  // sent and not yet taken by the peer
};

// All functions may be called from any thread.
class Channel {
 public:
  virtual ~Channel() = default;

  // Sends one frame whose payload is the concatenation of `parts`, which are copied before the
  // call returns. Waits for credits until `deadline` at most (kNoWait: not at all).
  //   kExhausted        the peer takes frames more slowly than they are sent
  //   kUnavailable      not open, or closed; the message has the reason
  //   kInvalidArgument  longer than the peer accepts (TransportOptions::max_frame_bytes)
  // Frames of several threads do not mix, and those of one thread stay in order.
  virtual Result<void> send(uint16_t kind, uint32_t epoch,
                            std::span<const std::span<const uint8_t>> parts,
                            Deadline deadline) = 0;
  Result<void> send(uint16_t kind, uint32_t epoch, std::span<const uint8_t> payload,
                    Deadline deadline) {
    return send(kind, epoch, std::span<const std::span<const uint8_t>>(&payload, 1), deadline);
  }

  // Ends the conversation: frames sent before still arrive if the line holds, then both sides get
  // kClosed with the reason. Does not wait. A second call does nothing.
  virtual void close(std::string_view reason) = 0;

  virtual ChannelId id() const = 0;
  virtual ChannelState state() const = 0;
  virtual std::string close_reason() const = 0;  // empty unless kClosed
  virtual PeerName peer() const = 0;             // an empty name while kOpening
  virtual bool dialed() const = 0;               // this side called connect() or dial()
  virtual ChannelStats stats() const = 0;
};

}  // namespace towline::net
