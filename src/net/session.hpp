// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Session: what makes a reliable conversation out of a line that breaks, loses, repeats and
// reorders. A pure machine: the driver (net/hub.cpp) feeds it frames, line changes, sends and the
// time, and carries out its Output. No clock, no thread, no socket in here, so tests are scripts.
//
//   numbering    kData and kBye frames carry seq 1, 2, 3, ...
//   delivery     in order, once; frames beyond a gap are held (at most a window) and the gap is
//                asked for (kGap); what is already known is dropped and acknowledged again
//   resend       frames are kept until acknowledged; on resume all that the peer lacks go again; on
//                a lossy line also after a timeout (RFC 6298's estimator, doubled on each expiry)
//   credits      the peer may have window_frames frames and window_bytes bytes here that the
//                application has not taken; a peer that sends more is closed
//   give up      when the line does not come back in time, or breaks kMaxFruitlessBreaks times in a
//                row without a new frame having passed (one that breaks the line would for ever)
//   heartbeat    an empty kAck when nothing was sent for a while; silence for peer_timeout is death
//   own stops    time in which the driver itself was stopped (it ticks much later than it was to)
//                is not the peer's: it has half of peer_timeout, or of reconnect_window, anew
//   end          kBye is numbered like data, so all that was sent before it arrives first
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "net/channel.hpp"
#include "net/frame.hpp"

namespace towline::net {

struct SessionOptions {
  Duration heartbeat = milliseconds(500);
  Duration peer_timeout = seconds(3);
  Duration reconnect_window = milliseconds(200);
  Duration ack_delay = milliseconds(20);  // for a frame that the acknowledgement could ride on
  Duration linger = milliseconds(300);    // for the acknowledgement of a kBye
  uint32_t max_frame = 64u << 20;         // what is accepted from the peer
  uint32_t window_frames = 1024;
  uint64_t window_bytes = 64u << 20;
  bool lossy = false;  // our frames may vanish while the line stays up
};

class Session {
 public:
  explicit Session(const SessionOptions& options) : options_(options) {}

  // What the driver has to do; it takes and clears this after every call.
  struct Output {
    std::vector<FrameBytes> frames;  // put on the line, in order
    std::vector<Frame> delivered;    // give to the application, in order
    bool interrupted = false;
    bool resumed = false;
    bool closed = false;     // tell the application, once; close_reason() says why
    bool hang_up = false;    // the line is of no more use
  };
  Output output;

  // The handshake on a line is done; `peer` is the other side's Hello. The first time opens the
  // session, later times resume it.
  void line_up(Instant now, const Hello& peer);
  void line_down(Instant now, std::string_view reason);
  void on_frame(Instant now, RawFrame frame);

  // True if a payload of `bytes` may be sent now.
  bool has_credit(size_t bytes) const;
  // Requires state() kOpen or kInterrupted, and has_credit().
  void send(Instant now, DraftFrame draft, uint16_t kind, uint32_t epoch);
  void ping(Instant now);                      // asks for an acknowledgement at once
  void consumed(Instant now, uint64_t frames);  // the application took them
  void close(Instant now, std::string_view reason);  // orderly, with a kBye
  void fail(Instant now, std::string_view reason);   // at once

  void tick(Instant now);
  Instant next_deadline() const;

  ChannelState state() const { return state_; }
  const std::string& close_reason() const { return reason_; }
  // Closed because the line did not come back, or the peer's did not.
  bool lost() const { return lost_; }
  const std::string& interruption() const { return down_reason_; }  // why the line broke last
  bool finished() const { return finished_; }  // nothing more will come of it
  bool wants_line() const { return !finished_ && !line_up_; }
  uint32_t peer_max_frame() const { return peer_max_frame_; }
  uint64_t last_sent_seq() const { return next_seq_ - 1; }
  uint64_t acknowledged_seq() const { return acked_; }
  uint32_t received() const { return static_cast<uint32_t>(received_); }
  ChannelStats stats() const;
  void set_lossy(bool lossy) { options_.lossy = lossy; }
  void set_peer_timeout(Duration silence) { options_.peer_timeout = silence; }

 private:
  struct Sent {
    uint64_t seq;
    FrameBytes bytes;
    Instant first_sent, last_sent;
    bool again = false;
  };
  void emit(Instant now, FrameBytes frame);
  void emit_control(Instant now, FrameType type, uint32_t seq = 0);
  void transmit(Instant now, DraftFrame draft, FrameHeader header);
  void resend(Instant now, Sent& sent);
  void accept_acks(Instant now, const FrameHeader& header);
  void accept_numbered(Instant now, uint64_t seq, RawFrame frame);
  void take_in_order(Instant now, RawFrame frame);
  void ack_soon(Instant now);
  void close_locally(std::string_view reason);
  void lose(Instant now, std::string_view reason);
  void grant_after_stop(Instant now);
  void take_time(Instant now);
  Duration rto() const;
  Instant rto_due() const;

  SessionOptions options_;
  ChannelState state_ = ChannelState::kOpening;
  std::string reason_;
  bool finished_ = false, lost_ = false;

  // The line.
  bool line_up_ = false;
  std::string down_reason_;
  uint64_t progress_ = 0;      // acked_ + received_ when the line broke last
  int fruitless_breaks_ = 0;   // in a row
  Instant give_up_ = kNever;     // end of the reconnect window
  Instant linger_until_ = kNever;
  Instant last_out_, last_heard_;
  Instant tick_due_ = kNever;    // what next_deadline() said when the time was looked at last
  bool window_granted_ = false;  // anew, once a break

  // Sending. Invariant: peer_consumed_ <= acked_ < next_seq_.
  uint64_t next_seq_ = 1;
  uint64_t acked_ = 0;
  uint64_t peer_consumed_ = 0;
  std::deque<Sent> unacked_;               // seq acked_+1 ...
  std::deque<uint32_t> unconsumed_sizes_;  // seq peer_consumed_+1 ...
  uint64_t unconsumed_bytes_ = 0;
  uint32_t peer_max_frame_ = 0;
  uint32_t peer_window_frames_ = 0;
  uint64_t peer_window_bytes_ = 0;
  uint64_t bye_seq_ = 0;  // 0: no kBye sent
  Duration srtt_, rttvar_;
  int rto_backoff_ = 0;

  // Receiving. Invariant: consumed_ <= received_.
  uint64_t received_ = 0;
  uint64_t consumed_ = 0;
  uint64_t told_ack_ = 0, told_consumed_ = 0;
  std::deque<uint32_t> taken_sizes_;  // payload sizes of consumed_+1 .. received_
  uint64_t taken_bytes_ = 0;          // sum of the above
  uint64_t held_bytes_ = 0;
  uint64_t unacked_in_bytes_ = 0, untold_consumed_bytes_ = 0;
  std::map<uint64_t, RawFrame> held_;  // beyond a gap
  Instant ack_due_ = kNever;
  uint64_t gap_asked_ = 0;
  Instant gap_asked_at_;

  ChannelStats stats_;
};

}  // namespace towline::net
