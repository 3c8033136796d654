// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Hub: the part of a Transport that is the same for all back ends. It owns the sessions, the I/O
// thread that runs the Wire, the timers, the emulated faults and the greeting of new lines.
// Internal to net.
//
// Threads: run() is the I/O thread; everything else may be called from any thread. One mutex guards
// all state here, in the HubChannels and in the Wire. It is taken before an Inbox's, never after.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "net/log_budget.hpp"
#include "net/session.hpp"
#include "net/wire.hpp"

namespace towline::net {

class Hub;

// Where the frames of a bulk channel go instead of an Inbox (net/bulk_port.cpp). Called on the I/O
// thread with the hub's lock held: must not block nor call back.
class BulkSink {
 public:
  virtual ~BulkSink() = default;
  // An error ends the channel, with its message as the reason.
  virtual Result<void> bulk_frame(const Frame& frame) = 0;
};

class HubChannel final : public Channel,
                         public CreditSink,
                         public std::enable_shared_from_this<HubChannel> {
 public:
  HubChannel(std::shared_ptr<Hub> hub, ChannelId id, bool dialed, const SessionOptions& options)
      : hub_(std::move(hub)), id_(id), dialed_(dialed), session_(options) {}

  Result<void> send(uint16_t kind, uint32_t epoch, std::span<const std::span<const uint8_t>> parts,
                    Deadline deadline) override;
  void close(std::string_view reason) override;
  ChannelId id() const override { return id_; }
  ChannelState state() const override;
  std::string close_reason() const override;
  PeerName peer() const override;
  bool dialed() const override { return dialed_; }
  ChannelStats stats() const override;
  void consumed(uint64_t frames) override;

  // Waits until the peer has received all that was sent so far.
  Result<void> wait_acknowledged(Deadline deadline);

 private:
  friend class Hub;
  // Constant.
  const std::shared_ptr<Hub> hub_;
  const ChannelId id_;
  const bool dialed_;
  // Guarded by hub_->mutex_.
  Session session_;
  uint64_t session_id_ = 0;
  bool bulk_ = false;
  std::string address_;         // dialled
  PeerName peer_;
  LineId line_ = kNoLine;       // attached line; for a dialling side also while it greets
  bool greeted_ = false;        // the greeting on line_ is done
  bool quiet_ = false;          // connect() reports the failure itself
  bool announced_ = false;      // kOpened was delivered
  Deadline connect_deadline_ = kNever;
  Instant redial_at_ = kNever;
  Duration backoff_ = milliseconds(5);
  std::string dial_error_;
  Code fail_code_ = Code::kUnavailable;
  ChannelEnd end_ = ChannelEnd::kClosed;  // unless the session was lost
  bool faulty_ = false;
  FaultyEgress egress_;
};

class Hub final : public WireEvents, public std::enable_shared_from_this<Hub> {
 public:
  Hub(TransportOptions options, Inbox& inbox);

  Result<void> start_wire();
  void run();   // the I/O thread's body; ends some time after stop()
  void stop();  // closes all channels

  Result<std::shared_ptr<HubChannel>> dial(const std::string& address, Deadline deadline,
                                           bool quiet, bool bulk);
  Result<void> wait_open(HubChannel& channel);
  void set_faults(const std::string& peer, const Faults& faults);
  void set_peer_timeout(Duration silence);
  void cut(const std::string& peer);
  bool set_bulk_sink(BulkSink* sink);   // false: there is one already
  void drop_bulk_sink(BulkSink* sink);  // and close the bulk channels
  const std::string& address() const { return address_; }
  PeerName self() const { return {options_.identity, incarnation_}; }

  void line_up(LineId line) override;
  void line_frame(LineId line, RawFrame frame) override;
  void line_down(LineId line, LineEnd end, std::string reason) override;

 private:
  friend class HubChannel;
  using ChannelPtr = std::shared_ptr<HubChannel>;
  struct Line {
    ChannelPtr channel;            // null for an accepted line before its kHello
    Instant greet_by = kNever;     // kNever once greeted
    bool up = false;               // somebody is at the other end
  };
  struct Delayed {
    Instant due;
    uint64_t order;
    LineId line;
    FrameBytes frame;
    bool operator>(const Delayed& other) const {
      return due != other.due ? due > other.due : order > other.order;
    }
  };

  SessionOptions session_options() const;
  Hello own_hello(const HubChannel& channel) const;
  void write_greeting(LineId line, FrameType type, std::vector<uint8_t> payload);
  void refuse(LineId line, std::string_view reason);
  void start_dial(const ChannelPtr& channel);
  void on_hello(LineId line, RawFrame frame);
  void on_welcome(LineId line, const ChannelPtr& channel, RawFrame frame);
  void attach(LineId line, const ChannelPtr& channel, const Hello& hello);
  void redial_now(HubChannel& channel);
  void dial_failed(const ChannelPtr& channel, LineEnd end, std::string reason);
  void fail(const ChannelPtr& channel, Code code, std::string_view reason,
            ChannelEnd end = ChannelEnd::kClosed);
  void apply_faults(HubChannel& channel);
  void flush(const ChannelPtr& channel);  // carries out what the session wants
  void transmit(HubChannel& channel, const FrameBytes& frame);
  void drop_line(HubChannel& channel);
  void forget(const ChannelPtr& channel);
  void deliver(const ChannelPtr& channel, Inbox::Event event);
  void deliver_bulk(const ChannelPtr& channel, const Inbox::Event& event);
  void tick(Instant now);
  Instant next_deadline() const;
  void wake_if_sooner(Instant due);

  // Constant after start_wire().
  const TransportOptions options_;
  const uint64_t incarnation_;
  Inbox& inbox_;
  std::string address_;

  std::mutex mutex_;
  std::condition_variable changed_;  // credits, states, acknowledgements
  // Guarded by mutex_.
  int waiters_ = 0;
  std::unique_ptr<Wire> wire_;  // null after run() has ended
  std::map<ChannelId, ChannelPtr> channels_;
  std::map<std::pair<uint64_t, uint64_t>, ChannelPtr> accepted_;  // (incarnation, session)
  std::unordered_map<LineId, Line> lines_;
  std::map<std::string, Faults> peer_faults_;
  Duration peer_timeout_;
  std::priority_queue<Delayed, std::vector<Delayed>, std::greater<>> delayed_;
  uint64_t delayed_order_ = 0;
  LineId last_line_ = kNoLine;
  uint64_t last_session_ = 0;
  Instant sleeping_until_{0};  // what the I/O thread's poll() waits for
  bool stopping_ = false;
  BulkSink* bulk_sink_ = nullptr;
  LogBudget stranger_log_;
};

}  // namespace towline::net
