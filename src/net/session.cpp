// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/session.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::net {
namespace {

// The 64-bit number nearest to `near` whose low 32 bits are `low`.
uint64_t expand(uint64_t near, uint32_t low) {
  const auto step = static_cast<int32_t>(low - static_cast<uint32_t>(near));
  if (step < 0 && static_cast<uint64_t>(-int64_t{step}) > near) return 0;  // before the beginning
  return near + static_cast<uint64_t>(int64_t{step});
}

constexpr int kMaxFruitlessBreaks = 16;
constexpr int kResendBurst = 32;  // frames per expiry of the retransmission timer

}  // namespace

void Session::line_up(Instant now, const Hello& peer) {
  if (finished_) {
    output.hang_up = true;
    return;
  }
  peer_max_frame_ = peer.max_frame;
  peer_window_frames_ = peer.window_frames;
  peer_window_bytes_ = peer.window_bytes;
  line_up_ = true;
  give_up_ = kNever;
  last_heard_ = now;
  last_out_ = now;
  tick_due_ = now + options_.heartbeat;
  window_granted_ = false;
  rto_backoff_ = 0;
  if (state_ == ChannelState::kOpening) {
    state_ = ChannelState::kOpen;
    return;
  }
  FrameHeader seen;
  seen.ack = peer.received;
  seen.consumed = static_cast<uint32_t>(peer_consumed_);
  accept_acks(now, seen);
  if (finished_) return;
  if (state_ == ChannelState::kInterrupted) {
    state_ = ChannelState::kOpen;
    output.resumed = true;
  }
  ++stats_.reconnects;
  for (Sent& sent : unacked_) resend(now, sent);
  emit_control(now, FrameType::kAck);
}

void Session::line_down(Instant now, std::string_view reason) {
  line_up_ = false;
  if (finished_) return;
  if (state_ == ChannelState::kClosed && bye_seq_ == 0) {  // the peer said goodbye and has gone
    finished_ = true;
    return;
  }
  down_reason_ = reason;
  fruitless_breaks_ = progress_ == acked_ + received_ ? fruitless_breaks_ + 1 : 0;
  progress_ = acked_ + received_;
  if (options_.reconnect_window <= Duration(0) || fruitless_breaks_ >= kMaxFruitlessBreaks) {
    lose(now, reason);
    return;
  }
  if (give_up_ == kNever) {
    give_up_ = now + options_.reconnect_window;
    tick_due_ = now;
  }
  if (state_ == ChannelState::kOpen) {
    state_ = ChannelState::kInterrupted;
    output.interrupted = true;
  }
}

bool Session::has_credit(size_t bytes) const {
  return unconsumed_sizes_.size() < peer_window_frames_ &&
         (unconsumed_bytes_ == 0 || unconsumed_bytes_ + bytes <= peer_window_bytes_);
}

void Session::emit(Instant now, FrameBytes frame) {
  told_ack_ = received_;
  told_consumed_ = consumed_;
  unacked_in_bytes_ = untold_consumed_bytes_ = 0;
  ack_due_ = kNever;
  last_out_ = now;
  output.frames.push_back(std::move(frame));
}

void Session::emit_control(Instant now, FrameType type, uint32_t seq) {
  if (!line_up_) return;
  FrameHeader header;
  header.type = type;
  header.seq = seq;
  header.ack = static_cast<uint32_t>(received_);
  header.consumed = static_cast<uint32_t>(consumed_);
  emit(now, finish_frame(draft_frame({}), header));
}

void Session::transmit(Instant now, DraftFrame draft, FrameHeader header) {
  header.seq = static_cast<uint32_t>(next_seq_);
  header.ack = static_cast<uint32_t>(received_);
  header.consumed = static_cast<uint32_t>(consumed_);
  FrameBytes frame = finish_frame(std::move(draft), header);
  const auto payload = static_cast<uint32_t>(frame->size() - kHeaderBytes);
  unconsumed_sizes_.push_back(payload);
  unconsumed_bytes_ += payload;
  unacked_.push_back({next_seq_++, frame, now, now, !line_up_});
  if (line_up_) emit(now, std::move(frame));
}

void Session::send(Instant now, DraftFrame draft, uint16_t kind, uint32_t epoch) {
  CHECK(state_ == ChannelState::kOpen || state_ == ChannelState::kInterrupted);
  FrameHeader header;
  header.type = FrameType::kData;
  header.kind = kind;
  header.epoch = epoch;
  ++stats_.frames_sent;
  stats_.bytes_sent += draft.bytes.size() - kHeaderBytes;
  transmit(now, std::move(draft), header);
}

void Session::ping(Instant now) { emit_control(now, FrameType::kPing); }

void Session::resend(Instant now, Sent& sent) {
  if (!line_up_) return;
  sent.last_sent = now;
  if (sent.again || sent.first_sent != now) {
    ++stats_.frames_resent;
    sent.again = true;
  }
  last_out_ = now;
  output.frames.push_back(sent.bytes);
}

void Session::accept_acks(Instant now, const FrameHeader& header) {
  const uint64_t ack = expand(acked_, header.ack);
  const uint64_t consumed = expand(peer_consumed_, header.consumed);
  if (ack >= next_seq_ || consumed >= next_seq_) {
    fail(now, "the peer acknowledges frames that were never sent");
    return;
  }
  while (acked_ < ack) {
    const Sent& sent = unacked_.front();
    if (!sent.again) {  // Karn's rule: a frame sent twice measures nothing
      const Duration sample = now - sent.first_sent;
      if (srtt_ == Duration(0)) {
        srtt_ = sample;
        rttvar_ = sample / 2;
      } else {
        const Duration error = sample > srtt_ ? sample - srtt_ : srtt_ - sample;
        rttvar_ = (rttvar_ * 3 + error) / 4;
        srtt_ = (srtt_ * 7 + sample) / 8;
      }
    }
    unacked_.pop_front();
    ++acked_;
    rto_backoff_ = 0;
  }
  while (peer_consumed_ < std::min(consumed, acked_)) {
    unconsumed_bytes_ -= unconsumed_sizes_.front();
    unconsumed_sizes_.pop_front();
    ++peer_consumed_;
  }
  if (bye_seq_ != 0 && acked_ >= bye_seq_) {
    finished_ = true;
    output.hang_up = true;
  }
}

void Session::on_frame(Instant now, RawFrame frame) {
  if (finished_) return;
  last_heard_ = now;
  accept_acks(now, frame.header);
  if (finished_) return;
  switch (frame.header.type) {
    case FrameType::kAck: return;
    case FrameType::kPing: emit_control(now, FrameType::kAck); return;
    case FrameType::kGap: {
      const uint64_t held = expand(acked_, frame.header.seq);
      for (Sent& sent : unacked_) {
        if (sent.seq >= held) break;
        resend(now, sent);
      }
      return;
    }
    case FrameType::kData:
    case FrameType::kBye: {
      const uint64_t seq = expand(received_, frame.header.seq);
      accept_numbered(now, seq, std::move(frame));
      return;
    }
    case FrameType::kRefuse: {
      const std::string reason(frame.payload.begin(), frame.payload.end());
      line_up_ = false;  // nobody there to tell
      lose(now, format("broken off by the peer: {}", reason));
      return;
    }
    case FrameType::kHello:
    case FrameType::kWelcome:
      fail(now, "the peer greets again in the middle of a conversation");
      return;
  }
}

void Session::accept_numbered(Instant now, uint64_t seq, RawFrame frame) {
  if (seq <= received_ || held_.contains(seq)) {
    ++stats_.duplicates_dropped;
    ack_due_ = now;
    return;
  }
  const bool bye = frame.header.type == FrameType::kBye;
  const size_t bytes = frame.payload.size();
  if (seq > consumed_ + options_.window_frames + (bye ? 1 : 0) || bytes > options_.max_frame ||
      taken_bytes_ + held_bytes_ + bytes > options_.window_bytes + options_.max_frame) {
    fail(now, "the peer sends more than it has credits for");
    return;
  }
  if (seq != received_ + 1) {
    held_bytes_ += bytes;
    held_.emplace(seq, std::move(frame));
    const bool asked =
        gap_asked_ == received_ + 1 && now < gap_asked_at_ + std::max(srtt_, milliseconds(20));
    if (!asked) {
      gap_asked_ = received_ + 1;
      gap_asked_at_ = now;
      emit_control(now, FrameType::kGap, static_cast<uint32_t>(held_.begin()->first));
    }
    return;
  }
  take_in_order(now, std::move(frame));
  while (!held_.empty() && held_.begin()->first == received_ + 1 && !finished_) {
    RawFrame next = std::move(held_.begin()->second);
    held_bytes_ -= next.payload.size();
    held_.erase(held_.begin());
    take_in_order(now, std::move(next));
  }
}

void Session::take_in_order(Instant now, RawFrame frame) {
  ++received_;
  const size_t bytes = frame.payload.size();
  unacked_in_bytes_ += bytes;
  taken_sizes_.push_back(static_cast<uint32_t>(bytes));
  taken_bytes_ += bytes;
  if (frame.header.type == FrameType::kBye) {
    emit_control(now, FrameType::kAck);
    if (state_ != ChannelState::kClosed) {
      close_locally(format("closed by the peer: {}",
                           std::string(frame.payload.begin(), frame.payload.end())));
    }
    if (bye_seq_ == 0) linger_until_ = now + options_.linger;  // the peer hangs up
    return;
  }
  if (state_ == ChannelState::kClosed) {  // we said goodbye; what still comes has no reader
    consumed(now, 1);
  } else {
    ++stats_.frames_received;
    stats_.bytes_received += bytes;
    output.delivered.push_back({frame.header.kind, frame.header.epoch, std::move(frame.payload)});
  }
  ack_soon(now);
}

void Session::ack_soon(Instant now) {
  const uint64_t frames = std::max<uint64_t>(1, options_.window_frames / 4);
  const uint64_t bytes = std::max<uint64_t>(1, options_.window_bytes / 4);
  if (received_ - told_ack_ >= frames || consumed_ - told_consumed_ >= frames ||
      unacked_in_bytes_ >= bytes || untold_consumed_bytes_ >= bytes) {
    emit_control(now, FrameType::kAck);
  } else if (received_ != told_ack_ || consumed_ != told_consumed_) {
    ack_due_ = std::min(ack_due_, now + options_.ack_delay);
  }
}

void Session::consumed(Instant now, uint64_t frames) {
  for (; frames > 0 && !taken_sizes_.empty(); --frames) {
    taken_bytes_ -= taken_sizes_.front();
    untold_consumed_bytes_ += taken_sizes_.front();
    taken_sizes_.pop_front();
    ++consumed_;
  }
  if (!finished_) ack_soon(now);
}

void Session::close_locally(std::string_view reason) {
  state_ = ChannelState::kClosed;
  reason_ = reason;
  output.closed = true;
}

void Session::close(Instant now, std::string_view reason) {
  if (state_ == ChannelState::kClosed) return;
  const bool opened = state_ != ChannelState::kOpening;
  close_locally(reason);
  if (!opened) {
    finished_ = true;
    output.hang_up = true;
    return;
  }
  FrameHeader header;
  header.type = FrameType::kBye;
  bye_seq_ = next_seq_;
  transmit(now, draft_text(reason), header);
  linger_until_ = now + options_.linger;
}

void Session::fail(Instant now, std::string_view reason) {
  if (finished_) return;
  if (line_up_) {
    FrameHeader header;
    header.type = FrameType::kRefuse;
    emit(now, finish_frame(draft_text(reason), header));
  }
  if (state_ != ChannelState::kClosed) close_locally(reason);
  finished_ = true;
  output.hang_up = true;
}

void Session::lose(Instant now, std::string_view reason) {
  if (!finished_ && state_ != ChannelState::kClosed) lost_ = true;
  fail(now, reason);
}

Duration Session::rto() const {
  const Duration base = srtt_ == Duration(0) ? milliseconds(300)
                                             : srtt_ + rttvar_ * 4 + options_.ack_delay;
  return std::min(std::max(base, milliseconds(50)) * (int64_t{1} << rto_backoff_), seconds(5));
}

Instant Session::rto_due() const {
  if (!options_.lossy || !line_up_ || unacked_.empty()) return kNever;
  return unacked_.front().last_sent + rto();
}

void Session::tick(Instant now) {
  if (finished_) return;
  grant_after_stop(now);
  take_time(now);
  tick_due_ = next_deadline();
}

// What the peer sent meanwhile may lie unread; if it was stopped as well, it goes on now.
void Session::grant_after_stop(Instant now) {
  if (now <= tick_due_) return;
  const Duration late = now - tick_due_;
  if (late > options_.peer_timeout / 4) {
    last_heard_ = std::max(last_heard_, now - options_.peer_timeout / 2);
  }
  if (!line_up_ && give_up_ != kNever && !window_granted_ && late > options_.reconnect_window / 2) {
    give_up_ = std::max(give_up_, now + options_.reconnect_window / 2);
    window_granted_ = true;
  }
}

void Session::take_time(Instant now) {
  if (now >= linger_until_) {
    finished_ = true;
    output.hang_up = true;
    return;
  }
  if (!line_up_) {
    if (now >= give_up_) lose(now, down_reason_);
    return;
  }
  if (now >= last_heard_ + options_.peer_timeout) {
    output.hang_up = true;
    line_down(now, format("no sign of life from the peer for {:.1f} s",
                          to_seconds(options_.peer_timeout)));
    return;
  }
  if (now >= rto_due()) {
    const Instant old = now - rto() + milliseconds(1);
    int budget = kResendBurst;
    for (Sent& sent : unacked_) {
      if (budget-- == 0) break;
      if (sent.last_sent <= old) resend(now, sent);
    }
    rto_backoff_ = std::min(rto_backoff_ + 1, 5);
  }
  if (now >= ack_due_ || now >= last_out_ + options_.heartbeat) emit_control(now, FrameType::kAck);
}

Instant Session::next_deadline() const {
  if (finished_) return kNever;
  Instant due = linger_until_;
  if (!line_up_) return std::min(due, give_up_);
  due = std::min({due, last_heard_ + options_.peer_timeout, rto_due(), ack_due_,
                  last_out_ + options_.heartbeat});
  return due;
}

ChannelStats Session::stats() const {
  ChannelStats s = stats_;
  s.unconsumed_frames = unconsumed_sizes_.size();
  s.unconsumed_bytes = unconsumed_bytes_;
  return s;
}

}  // namespace towline::net
