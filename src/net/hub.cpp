// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/hub.hpp"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "base/rng.hpp"

namespace towline::net {
namespace {

constexpr Duration kMaxBackoff = milliseconds(200);
constexpr size_t kMaxChannels = 4096;

uint64_t draw_incarnation() {
  uint64_t value = 0;
  if (::getrandom(&value, sizeof value, 0) != sizeof value) {
    value = mix64(static_cast<uint64_t>(steady_now().ns));
  }
  return value | 1;
}

}  // namespace

Hub::Hub(TransportOptions options, Inbox& inbox)
    : options_(std::move(options)),
      incarnation_(draw_incarnation()),
      inbox_(inbox),
      peer_faults_(options_.peer_faults),
      peer_timeout_(options_.peer_timeout) {}

SessionOptions Hub::session_options() const {
  SessionOptions o;
  o.heartbeat = options_.heartbeat;
  o.peer_timeout = peer_timeout_;
  o.reconnect_window = options_.reconnect_window;
  o.max_frame = options_.max_frame_bytes;
  o.window_frames = options_.window_frames;
  o.window_bytes = options_.window_bytes;
  return o;
}

Hello Hub::own_hello(const HubChannel& channel) const {
  Hello hello;
  hello.name = options_.identity;
  hello.incarnation = incarnation_;
  hello.session = channel.session_id_;
  hello.resume = channel.session_.state() != ChannelState::kOpening;
  hello.bulk = channel.bulk_;
  hello.received = channel.session_.received();
  hello.max_frame = options_.max_frame_bytes;
  hello.window_frames = options_.window_frames;
  hello.window_bytes = options_.window_bytes;
  return hello;
}

// --- dialling and greeting ---------------------------------------------------------------------

Result<std::shared_ptr<HubChannel>> Hub::dial(const std::string& address, Deadline deadline,
                                              bool quiet, bool bulk) {
  TRY(address_rest(address, options_.kind));
  auto channel = std::make_shared<HubChannel>(shared_from_this(), inbox_.next_channel_id(), true,
                                              session_options());
  const std::lock_guard lock(mutex_);
  if (stopping_) return Error(Code::kUnavailable, "the transport is closed");
  channel->address_ = address;
  channel->connect_deadline_ = deadline;
  channel->quiet_ = quiet;
  channel->bulk_ = bulk;
  channel->session_id_ = ++last_session_;
  channels_[channel->id_] = channel;
  start_dial(channel);
  wake_if_sooner(steady_now());
  return channel;
}

void Hub::start_dial(const ChannelPtr& channel) {
  const LineId line = ++last_line_;
  const Instant now = steady_now();
  channel->line_ = line;
  channel->greeted_ = false;
  channel->redial_at_ = kNever;
  Instant greet_by = now + options_.handshake_timeout;
  if (channel->session_.state() == ChannelState::kOpening) {
    greet_by = std::min(greet_by, channel->connect_deadline_);
  }
  lines_[line] = {channel, greet_by};
  wire_->dial(line, channel->address_);
}

Result<void> Hub::wait_open(HubChannel& channel) {
  std::unique_lock lock(mutex_);
  ++waiters_;
  changed_.wait(lock, [&] { return channel.session_.state() != ChannelState::kOpening; });
  --waiters_;
  if (channel.session_.state() == ChannelState::kClosed) {
    return errorf(channel.fail_code_, "cannot reach '{}': {}", channel.address_,
                  channel.session_.close_reason());
  }
  return {};
}

void Hub::write_greeting(LineId line, FrameType type, std::vector<uint8_t> payload) {
  const std::span<const uint8_t> part(payload);
  FrameHeader header;
  header.type = type;
  wire_->write(line, finish_frame(draft_frame({&part, 1}), header));
}

void Hub::refuse(LineId line, std::string_view reason) {
  write_greeting(line, FrameType::kRefuse, {reason.begin(), reason.end()});
  wire_->hang_up(line);
  lines_.erase(line);
}

void Hub::line_up(LineId line) {
  if (line & kInboundLine) {
    lines_[line] = {nullptr, steady_now() + options_.handshake_timeout, true};
    return;
  }
  const auto found = lines_.find(line);
  if (found == lines_.end()) return;
  found->second.up = true;
  write_greeting(line, FrameType::kHello, encode_hello(own_hello(*found->second.channel)));
}

void Hub::on_hello(LineId line, RawFrame frame) {
  Result<Hello> hello = frame.header.type == FrameType::kHello
                            ? decode_hello(frame.payload)
                            : Error(Code::kDataCorrupt, "a line must begin with a greeting");
  if (!hello) {
    warn_within(stranger_log_, "line refused", hello.error().message());
    return refuse(line, hello.error().message());
  }
  ChannelPtr& channel = accepted_[{hello->incarnation, hello->session}];
  if (!channel && stopping_) {
    // No answer is none: a refusal is for good, and another process may listen here in a moment.
    accepted_.erase({hello->incarnation, hello->session});
    wire_->hang_up(line);
    lines_.erase(line);
    return;
  }
  if (!channel && channels_.size() >= kMaxChannels) {
    accepted_.erase({hello->incarnation, hello->session});
    return refuse(line, "too many channels are open here");
  }
  if (!channel && hello->resume) {
    accepted_.erase({hello->incarnation, hello->session});
    return refuse(
        line, "the conversation is not known here any more: it ended or this side was restarted");
  }
  if (hello->bulk && bulk_sink_ == nullptr) {
    accepted_.erase({hello->incarnation, hello->session});
    return refuse(line, "no bulk transfers are accepted here");
  }
  if (!channel) {
    channel = std::make_shared<HubChannel>(shared_from_this(), inbox_.next_channel_id(), false,
                                           session_options());
    channel->session_id_ = hello->session;
    channel->bulk_ = hello->bulk;
    channels_[channel->id_] = channel;
  } else if (channel->line_ != kNoLine) {
    wire_->hang_up(channel->line_);  // the peer noticed the break before we did
    lines_.erase(channel->line_);
    channel->line_ = kNoLine;
    channel->session_.line_down(steady_now(), "the peer dialled again");
  }
  const ChannelPtr kept = channel;  // the map's slot may go away in flush()
  write_greeting(line, FrameType::kWelcome, encode_hello(own_hello(*kept)));
  attach(line, kept, *hello);
}

void Hub::on_welcome(LineId line, const ChannelPtr& channel, RawFrame frame) {
  if (frame.header.type == FrameType::kRefuse) {
    const std::string reason(frame.payload.begin(), frame.payload.end());
    // It lives, and does not know the conversation any more: it has given us up.
    const bool resumes = channel->session_.state() != ChannelState::kOpening;
    return fail(channel, Code::kPermissionDenied, format("refused by the peer: {}", reason),
                resumes ? ChannelEnd::kLost : ChannelEnd::kClosed);
  }
  Result<Hello> hello =
      frame.header.type == FrameType::kWelcome
          ? decode_hello(frame.payload)
          : Error(Code::kDataCorrupt, "the answer to our greeting is no greeting");
  if (!hello) return fail(channel, hello.error().code(), hello.error().message());
  const bool first = channel->session_.state() == ChannelState::kOpening;
  if (!first && hello->incarnation != channel->peer_.incarnation) {
    return fail(channel, Code::kUnavailable, "the peer was restarted", ChannelEnd::kGone);
  }
  attach(line, channel, *hello);
}

void Hub::attach(LineId line, const ChannelPtr& channel, const Hello& hello) {
  lines_[line] = {channel, kNever};
  channel->line_ = line;
  channel->greeted_ = true;
  channel->backoff_ = milliseconds(5);
  channel->peer_ = {hello.name, hello.incarnation};
  apply_faults(*channel);
  channel->session_.line_up(steady_now(), hello);
  if (!channel->announced_ && channel->session_.state() == ChannelState::kOpen) {
    channel->announced_ = true;
    Inbox::Event opened;
    opened.kind = Inbox::Event::kOpened;
    opened.opened = channel;
    deliver(channel, std::move(opened));
  }
  if (waiters_ > 0) changed_.notify_all();
  flush(channel);
}

void Hub::line_frame(LineId line, RawFrame frame) {
  const auto found = lines_.find(line);
  if (found == lines_.end()) return;  // hung up meanwhile
  const ChannelPtr channel = found->second.channel;
  if (!channel) return on_hello(line, std::move(frame));
  if (!channel->greeted_) return on_welcome(line, channel, std::move(frame));
  channel->session_.on_frame(steady_now(), std::move(frame));
  flush(channel);
}

void Hub::line_down(LineId line, LineEnd end, std::string reason) {
  const auto found = lines_.find(line);
  if (found == lines_.end()) return;
  const ChannelPtr channel = found->second.channel;
  lines_.erase(found);
  if (!channel) {
    if (end != LineEnd::kLost) warn_within(stranger_log_, "line dropped", reason);
    return;
  }
  channel->line_ = kNoLine;
  if (!channel->greeted_) return dial_failed(channel, end, std::move(reason));
  channel->greeted_ = false;
  channel->session_.line_down(steady_now(), reason);
  if (channel->dialed_ && channel->session_.wants_line()) redial_now(*channel);
  flush(channel);
}

// A line may end while a sender's thread writes: the I/O thread must not sleep on.
void Hub::redial_now(HubChannel& channel) {
  channel.redial_at_ = steady_now();
  wake_if_sooner(channel.redial_at_);
}

void Hub::dial_failed(const ChannelPtr& channel, LineEnd end, std::string reason) {
  const bool opening = channel->session_.state() == ChannelState::kOpening;
  if (end == LineEnd::kDenied || end == LineEnd::kCorrupt) {
    return fail(channel, Code::kPermissionDenied, reason);
  }
  if (!opening && end == LineEnd::kRefused) {  // its address is gone, so the process is
    return fail(channel, Code::kUnavailable, format("the peer is gone: {}", reason),
                ChannelEnd::kGone);
  }
  const Instant now = steady_now();
  channel->dial_error_ = reason;
  if (opening && now + channel->backoff_ >= channel->connect_deadline_) {
    return fail(channel, Code::kUnavailable, reason);
  }
  channel->redial_at_ = now + channel->backoff_;
  channel->backoff_ = std::min(channel->backoff_ * 2, kMaxBackoff);
}

void Hub::fail(const ChannelPtr& channel, Code code, std::string_view reason, ChannelEnd end) {
  channel->fail_code_ = code;
  channel->end_ = end;
  channel->session_.fail(steady_now(), reason);
  flush(channel);
}

// --- carrying out what sessions want -------------------------------------------------------------

void Hub::apply_faults(HubChannel& channel) {
  const auto own = peer_faults_.find(channel.peer_.name);
  const Faults& faults = own != peer_faults_.end() ? own->second : options_.faults;
  if (faults != channel.egress_.faults() || channel.faulty_ != faults.any()) {
    channel.egress_ = FaultyEgress(faults, channel.peer_.name);
    channel.faulty_ = faults.any();
  }
  channel.session_.set_lossy(faults.lossy());
}

void Hub::transmit(HubChannel& channel, const FrameBytes& frame) {
  if (!channel.faulty_) {
    wire_->write(channel.line_, frame);
    return;
  }
  const Instant now = steady_now();
  const FaultyEgress::Fate fate = channel.egress_.next(now, frame->size());
  if (fate.cut) {
    const LineId line = channel.line_;
    wire_->hang_up(line);
    line_down(line, LineEnd::kLost, "cut by an emulated fault");
    return;
  }
  for (int copy = 0; copy < fate.copies; ++copy) {
    FrameBytes bytes = frame;
    if (copy == 0 && fate.flip_bit >= 0) {
      std::vector<uint8_t> damaged = *frame;
      damaged[fate.flip_bit / 8] ^= static_cast<uint8_t>(1 << (fate.flip_bit % 8));
      bytes = std::make_shared<const std::vector<uint8_t>>(std::move(damaged));
    }
    if (fate.due[copy] <= now) {
      wire_->write(channel.line_, std::move(bytes));
    } else {
      delayed_.push({fate.due[copy], ++delayed_order_, channel.line_, std::move(bytes)});
    }
  }
  if (!delayed_.empty()) wake_if_sooner(delayed_.top().due);
}

void Hub::drop_line(HubChannel& channel) {
  if (channel.line_ == kNoLine) return;
  wire_->hang_up(channel.line_);
  lines_.erase(channel.line_);
  channel.line_ = kNoLine;
  channel.greeted_ = false;
}

void Hub::forget(const ChannelPtr& channel) {
  drop_line(*channel);
  if (!channel->dialed_) accepted_.erase({channel->peer_.incarnation, channel->session_id_});
  channels_.erase(channel->id_);
}

void Hub::deliver_bulk(const ChannelPtr& channel, const Inbox::Event& event) {
  if (event.kind != Inbox::Event::kFrame || bulk_sink_ == nullptr) return;
  const Result<void> applied = bulk_sink_->bulk_frame(event.frame);
  channel->session_.consumed(steady_now(), 1);
  if (!applied) channel->session_.fail(steady_now(), applied.error().message());
}

void Hub::deliver(const ChannelPtr& channel, Inbox::Event event) {
  if (channel->bulk_) return deliver_bulk(channel, event);
  if (!channel->announced_ && channel->quiet_) return;
  const bool credit = event.kind == Inbox::Event::kFrame;
  event.channel = channel->id_;
  inbox_.deliver(std::move(event), credit ? channel : nullptr);
}

void Hub::flush(const ChannelPtr& channel) {
  Session::Output& pending = channel->session_.output;
  while (!pending.frames.empty() || !pending.delivered.empty() || pending.interrupted ||
         pending.resumed || pending.closed || pending.hang_up) {
    Session::Output out = std::exchange(pending, {});
    for (Frame& frame : out.delivered) {
      Inbox::Event event;
      event.kind = Inbox::Event::kFrame;
      event.frame = std::move(frame);
      deliver(channel, std::move(event));
    }
    for (const FrameBytes& frame : out.frames) {
      if (channel->line_ == kNoLine) break;  // cut while sending
      transmit(*channel, frame);
    }
    const auto tell = [&](Inbox::Event::Kind kind) {
      Inbox::Event event;
      event.kind = kind;
      event.reason = kind == Inbox::Event::kInterrupted ? channel->session_.interruption()
                                                        : channel->session_.close_reason();
      event.end = channel->session_.lost() ? ChannelEnd::kLost : channel->end_;
      deliver(channel, std::move(event));
    };
    if (out.interrupted) tell(Inbox::Event::kInterrupted);
    if (out.resumed) tell(Inbox::Event::kResumed);
    if (out.closed) tell(Inbox::Event::kClosed);
    if (out.hang_up) {
      drop_line(*channel);
      if (channel->dialed_ && channel->session_.wants_line()) redial_now(*channel);
    }
  }
  if (channel->session_.finished()) forget(channel);
  if (waiters_ > 0) changed_.notify_all();
}

// --- time ----------------------------------------------------------------------------------------

void Hub::tick(Instant now) {
  while (!delayed_.empty() && delayed_.top().due <= now) {
    const Delayed next = delayed_.top();
    delayed_.pop();
    if (lines_.contains(next.line)) wire_->write(next.line, next.frame);
  }
  std::vector<LineId> late;
  for (const auto& [id, line] : lines_) {
    if (now >= line.greet_by) late.push_back(id);
  }
  for (const LineId id : late) {
    const Line& line = lines_.at(id);
    std::string why = "connected, but no answer to the greeting: is a Towline node there?";
    if (!line.up) {  // the last of several tries says no more than the one before
      why = line.channel->dial_error_.empty() ? "no connection in time" : line.channel->dial_error_;
    }
    wire_->hang_up(id);
    line_down(id, LineEnd::kLost, std::move(why));
  }
  std::vector<ChannelPtr> all;
  all.reserve(channels_.size());
  for (const auto& [id, channel] : channels_) all.push_back(channel);
  for (const ChannelPtr& channel : all) {
    Session& session = channel->session_;
    session.tick(now);
    if (session.state() == ChannelState::kOpening && now >= channel->connect_deadline_) {
      fail(channel, Code::kDeadline,
           channel->dial_error_.empty() ? "no answer in time" : channel->dial_error_);
      continue;
    }
    if (now >= channel->redial_at_ && session.wants_line() && channel->line_ == kNoLine) {
      start_dial(channel);
    }
    flush(channel);
  }
}

Instant Hub::next_deadline() const {
  Instant due = delayed_.empty() ? kNever : delayed_.top().due;
  for (const auto& [id, line] : lines_) due = std::min(due, line.greet_by);
  for (const auto& [id, channel] : channels_) {
    due = std::min({due, channel->session_.next_deadline(), channel->redial_at_});
    if (channel->session_.state() == ChannelState::kOpening) {
      due = std::min(due, channel->connect_deadline_);
    }
  }
  return due;
}

void Hub::wake_if_sooner(Instant due) {
  if (wire_ != nullptr && due < sleeping_until_) {
    sleeping_until_ = due;
    wire_->wake();
  }
}

void Hub::run() {
  std::unique_lock lock(mutex_);
  Instant stop_by = kNever;
  while (true) {
    const Instant now = steady_now();
    tick(now);
    if (stopping_ && stop_by == kNever) stop_by = now + milliseconds(300);
    if (stopping_ && (channels_.empty() || now >= stop_by)) break;
    sleeping_until_ = std::min(next_deadline(), stop_by);
    wire_->poll(lock, sleeping_until_);
    sleeping_until_ = Instant{0};
  }
  while (!channels_.empty()) {
    fail(channels_.begin()->second, Code::kUnavailable, "transport closed");
  }
  wire_.reset();
}

void Hub::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  std::vector<ChannelPtr> all;
  for (const auto& [id, channel] : channels_) all.push_back(channel);
  for (const ChannelPtr& channel : all) {
    channel->session_.close(steady_now(), "transport closed");
    flush(channel);
  }
  wire_->wake();
}

void Hub::set_faults(const std::string& peer, const Faults& faults) {
  const std::lock_guard lock(mutex_);
  peer_faults_[peer] = faults;
  for (const auto& [id, channel] : channels_) {
    if (channel->peer_.name == peer) apply_faults(*channel);
  }
}

void Hub::set_peer_timeout(Duration silence) {
  const std::lock_guard lock(mutex_);
  peer_timeout_ = std::max(silence, options_.heartbeat * 2);
  for (const auto& [id, channel] : channels_) channel->session_.set_peer_timeout(peer_timeout_);
  if (wire_ != nullptr) wire_->wake();
}

void Hub::cut(const std::string& peer) {
  const std::lock_guard lock(mutex_);
  std::vector<LineId> lines;
  for (const auto& [id, channel] : channels_) {
    if (channel->peer_.name == peer && channel->line_ != kNoLine) lines.push_back(channel->line_);
  }
  for (const LineId line : lines) {
    wire_->hang_up(line);
    line_down(line, LineEnd::kLost, "cut on request");
  }
  wire_->wake();
}

bool Hub::set_bulk_sink(BulkSink* sink) {
  const std::lock_guard lock(mutex_);
  if (bulk_sink_ != nullptr) return false;
  bulk_sink_ = sink;
  return true;
}

void Hub::drop_bulk_sink(BulkSink* sink) {
  const std::lock_guard lock(mutex_);
  if (bulk_sink_ != sink) return;
  bulk_sink_ = nullptr;
  std::vector<ChannelPtr> bulk;
  for (const auto& [id, channel] : channels_) {
    if (channel->bulk_) bulk.push_back(channel);
  }
  for (const ChannelPtr& channel : bulk) {
    channel->session_.close(steady_now(), "bulk port closed");
    flush(channel);
  }
  if (wire_ != nullptr) wire_->wake();
}

}  // namespace towline::net
