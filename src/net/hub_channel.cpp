// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// HubChannel: a Channel as its user sees it; the Hub moves its frames.
#include "base/fmt.hpp"
#include "net/hub.hpp"
#include "net/wait.hpp"

namespace towline::net {

Result<void> HubChannel::send(uint16_t kind, uint32_t epoch,
                              std::span<const std::span<const uint8_t>> parts, Deadline deadline) {
  size_t bytes = 0;
  for (const auto part : parts) bytes += part.size();
  if (bytes > kMaxFrameBytes) {
    return errorf(Code::kInvalidArgument, "a frame of {} bytes is too long; the limit is {}", bytes,
                  kMaxFrameBytes);
  }
  DraftFrame draft = draft_frame(parts);  // copy and checksum outside the lock
  std::unique_lock lock(hub_->mutex_);
  const auto sendable = [this] {
    return session_.state() == ChannelState::kOpen ||
           session_.state() == ChannelState::kInterrupted;
  };
  if (sendable() && bytes > session_.peer_max_frame()) {
    return errorf(Code::kInvalidArgument, "a frame of {} bytes is too long; '{}' accepts {}", bytes,
                  peer_.name, session_.peer_max_frame());
  }
  if (sendable() && !session_.has_credit(bytes) && deadline > steady_now()) {
    const auto done = [&] { return !sendable() || session_.has_credit(bytes); };
    ++hub_->waiters_;
    wait_for(hub_->changed_, lock, deadline, done);
    --hub_->waiters_;
  }
  if (!sendable()) {
    return session_.state() == ChannelState::kOpening
               ? errorf(Code::kUnavailable, "the channel to '{}' is not open yet", address_)
               : errorf(Code::kUnavailable, "the channel to '{}' is closed: {}", peer_.name,
                        session_.close_reason());
  }
  if (!session_.has_credit(bytes)) {
    return errorf(Code::kExhausted, "'{}' does not take frames as fast as they are sent ({} wait)",
                  peer_.name, session_.stats().unconsumed_frames);
  }
  session_.send(steady_now(), std::move(draft), kind, epoch);
  hub_->flush(shared_from_this());
  hub_->wake_if_sooner(session_.next_deadline());
  return {};
}

Result<void> HubChannel::wait_acknowledged(Deadline deadline) {
  std::unique_lock lock(hub_->mutex_);
  const uint64_t last = session_.last_sent_seq();
  if (session_.acknowledged_seq() < last && session_.state() == ChannelState::kOpen) {
    session_.ping(steady_now());
    hub_->flush(shared_from_this());
  }
  const auto done = [&] {
    return session_.acknowledged_seq() >= last || session_.state() == ChannelState::kClosed;
  };
  ++hub_->waiters_;
  const bool in_time = wait_for(hub_->changed_, lock, deadline, done);
  --hub_->waiters_;
  if (session_.acknowledged_seq() >= last) return {};
  if (!in_time) {
    return errorf(Code::kDeadline, "'{}' has not acknowledged everything in time", peer_.name);
  }
  return errorf(Code::kUnavailable, "the channel to '{}' is closed: {}", peer_.name,
                session_.close_reason());
}

void HubChannel::close(std::string_view reason) {
  const std::lock_guard lock(hub_->mutex_);
  session_.close(steady_now(), reason);
  hub_->flush(shared_from_this());
  hub_->wake_if_sooner(session_.next_deadline());
}

void HubChannel::consumed(uint64_t frames) {
  const std::lock_guard lock(hub_->mutex_);
  session_.consumed(steady_now(), frames);
  hub_->flush(shared_from_this());
  hub_->wake_if_sooner(session_.next_deadline());
}

ChannelState HubChannel::state() const {
  const std::lock_guard lock(hub_->mutex_);
  return session_.state();
}

std::string HubChannel::close_reason() const {
  const std::lock_guard lock(hub_->mutex_);
  return session_.close_reason();
}

PeerName HubChannel::peer() const {
  const std::lock_guard lock(hub_->mutex_);
  return peer_;
}

ChannelStats HubChannel::stats() const {
  const std::lock_guard lock(hub_->mutex_);
  return session_.stats();
}

}  // namespace towline::net
