// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/bulk_port.hpp"

#include <algorithm>
#include <cstring>

#include "base/fmt.hpp"
#include "net/hub.hpp"
#include "net/wait.hpp"

namespace towline::net {
namespace {

// Net's own kinds. Payloads: kPut u64 region, u64 offset, bytes; kSignal u64 signal, u64 value.
constexpr uint16_t kPut = 0xff01;
constexpr uint16_t kSignal = 0xff02;

}  // namespace

// What arrives is applied on the transport's I/O thread, under its lock, then under mutex_.
class BulkPort::Receiver final : public BulkSink {
 public:
  Result<void> bulk_frame(const Frame& frame) override {
    uint64_t words[2];
    if (frame.payload.size() < sizeof words) {
      return Error(Code::kDataCorrupt, "a bulk frame is truncated");
    }
    std::memcpy(words, frame.payload.data(), sizeof words);
    const auto bytes = std::span(frame.payload).subspan(sizeof words);
    const std::lock_guard lock(mutex_);
    if (frame.kind == kSignal && bytes.empty()) {
      uint64_t& value = signals_[words[0]];
      value = std::max(value, words[1]);
      raised_.notify_all();
      return {};
    }
    if (frame.kind != kPut) {
      return errorf(Code::kDataCorrupt, "bulk frame kind {:#x} does not exist", frame.kind);
    }
    const auto region = regions_.find(words[0]);
    const size_t size = region == regions_.end() ? 0 : region->second.size();
    if (words[1] > size || bytes.size() > size - words[1]) {
      return errorf(Code::kInvalidArgument,
                    "put of {} bytes at {} in region {}, which has {} bytes here", bytes.size(),
                    words[1], words[0], size);
    }
    if (!bytes.empty()) std::memcpy(region->second.data() + words[1], bytes.data(), bytes.size());
    return {};
  }

  mutable std::mutex mutex_;
  std::condition_variable raised_;
  std::map<uint64_t, std::span<uint8_t>> regions_;  // guarded by mutex_
  std::map<uint64_t, uint64_t> signals_;            // guarded by mutex_
};

BulkPort::BulkPort(std::shared_ptr<Hub> hub)
    : hub_(std::move(hub)), receiver_(std::make_unique<Receiver>()) {}

Result<std::unique_ptr<BulkPort>> BulkPort::open(Transport& transport) {
  std::unique_ptr<BulkPort> port(new BulkPort(transport.hub()));
  if (!port->hub_->set_bulk_sink(port->receiver_.get())) {
    return Error(Code::kAlreadyExists, "the transport has a bulk port already");
  }
  return port;
}

BulkPort::~BulkPort() { hub_->drop_bulk_sink(receiver_.get()); }

Result<void> BulkPort::register_region(uint64_t region, std::span<uint8_t> memory) {
  const std::lock_guard lock(receiver_->mutex_);
  if (!receiver_->regions_.emplace(region, memory).second) {
    return errorf(Code::kAlreadyExists, "region {} is registered already", region);
  }
  return {};
}

void BulkPort::unregister_region(uint64_t region) {
  const std::lock_guard lock(receiver_->mutex_);
  receiver_->regions_.erase(region);
}

Result<std::unique_ptr<BulkLink>> BulkPort::connect(const std::string& address, Deadline deadline) {
  ASSIGN_OR_RETURN(auto channel, hub_->dial(address, deadline, true, true));
  TRY(hub_->wait_open(*channel));
  return std::unique_ptr<BulkLink>(new BulkLink(std::move(channel)));
}

Result<void> BulkPort::wait(uint64_t signal, uint64_t at_least, Deadline deadline) {
  std::unique_lock lock(receiver_->mutex_);
  const auto raised = [&] { return receiver_->signals_[signal] >= at_least; };
  if (!wait_for(receiver_->raised_, lock, deadline, raised)) {
    return errorf(Code::kDeadline, "signal {} has not reached {} in time (it is {})", signal,
                  at_least, receiver_->signals_[signal]);
  }
  return {};
}

uint64_t BulkPort::signal_value(uint64_t signal) const {
  const std::lock_guard lock(receiver_->mutex_);
  const auto found = receiver_->signals_.find(signal);
  return found == receiver_->signals_.end() ? 0 : found->second;
}

Result<void> BulkLink::put(uint64_t region, uint64_t offset, std::span<const uint8_t> bytes,
                           Deadline deadline) {
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kPiece));
    const uint64_t words[2] = {region, offset};
    const std::span<const uint8_t> parts[] = {
        {reinterpret_cast<const uint8_t*>(words), sizeof words}, piece};
    TRY(channel_->send(kPut, 0, parts, deadline));
    offset += piece.size();
    bytes = bytes.subspan(piece.size());
  }
  return {};
}

Result<void> BulkLink::signal(uint64_t signal, uint64_t value, Deadline deadline) {
  const uint64_t words[2] = {signal, value};
  return channel_->Channel::send(kSignal, 0,
                                 {reinterpret_cast<const uint8_t*>(words), sizeof words}, deadline);
}

Result<void> BulkLink::flush(Deadline deadline) { return channel_->wait_acknowledged(deadline); }
void BulkLink::close(std::string_view reason) { channel_->close(reason); }
PeerName BulkLink::peer() const { return channel_->peer(); }

}  // namespace towline::net
