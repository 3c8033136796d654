// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Inbox: where the events of many channels meet one consumer thread.
//
//   Inbox inbox;
//   while (auto event = inbox.wait(next_deadline)) { ... }
//
// Bounded without a bound of its own: each channel may have at most its window here, and taking a
// frame out is what returns the credit to its sender. Order is kept per channel: kOpened first,
// kClosed last. An empty wait() sleeps on a condition variable and uses no processor time.
//
// One thread calls wait(); wake() and the transports may be on any. An Inbox must outlive the
// transports that deliver into it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "net/channel.hpp"

namespace towline::net {

// Told when the consumer has taken frames out (implemented by net's channels).
class CreditSink {
 public:
  virtual ~CreditSink() = default;
  virtual void consumed(uint64_t frames) = 0;
};

class Inbox {
 public:
  struct Event {
    enum Kind {
      kOpened,       // `opened` is the channel, dialled or accepted
      kFrame,        // `frame`
      kInterrupted,  // the line is down, `reason`; the channel waits for it. May be ignored
      kResumed,      // it is back, nothing was lost
      kClosed,       // `reason`; the last event of this channel
      kWake,         // somebody called wake(); no channel
    };
    Kind kind = kWake;
    ChannelId channel;
    Frame frame;
    std::string reason;
    ChannelEnd end = ChannelEnd::kClosed;  // kClosed
    std::shared_ptr<Channel> opened;
  };

  Inbox() = default;
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  // The next event, or nothing when `deadline` has passed. Several wake()
  // calls may become one event.
  std::optional<Event> wait(Deadline deadline);
  void wake();
  size_t size() const;

  // For transports.
  ChannelId next_channel_id();
  // `credit` is told when a kFrame event is taken out; may be null.
  void deliver(Event event, std::shared_ptr<CreditSink> credit);

 private:
  struct Item {
    Event event;
    std::shared_ptr<CreditSink> credit;
  };
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Item> items_;     // guarded by mutex_
  bool woken_ = false;         // guarded by mutex_
  bool waiting_ = false;       // guarded by mutex_
  uint64_t last_channel_ = 0;  // guarded by mutex_
};

}  // namespace towline::net
