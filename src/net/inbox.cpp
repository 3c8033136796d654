// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/inbox.hpp"

#include <utility>

#include "net/wait.hpp"

namespace towline::net {

std::optional<Inbox::Event> Inbox::wait(Deadline deadline) {
  std::optional<Item> item;
  {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return woken_ || !items_.empty(); };
    waiting_ = true;
    wait_for(ready_, lock, deadline, ready);
    waiting_ = false;
    if (woken_) {
      woken_ = false;
      return Event{};
    }
    if (items_.empty()) return std::nullopt;
    item = std::move(items_.front());
    items_.pop_front();
  }
  if (item->credit) item->credit->consumed(1);
  return std::move(item->event);
}

void Inbox::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  if (waiting_) ready_.notify_one();
}

size_t Inbox::size() const {
  const std::lock_guard lock(mutex_);
  return items_.size();
}

ChannelId Inbox::next_channel_id() {
  const std::lock_guard lock(mutex_);
  return ChannelId(++last_channel_);
}

void Inbox::deliver(Event event, std::shared_ptr<CreditSink> credit) {
  const std::lock_guard lock(mutex_);
  items_.push_back({std::move(event), std::move(credit)});
  if (waiting_) ready_.notify_one();
}

}  // namespace towline::net
