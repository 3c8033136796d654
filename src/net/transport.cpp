// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/transport.hpp"

#include <pthread.h>

#include <algorithm>
#include <thread>

#include "base/fmt.hpp"
#include "net/hub.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

constexpr TransportKind kKinds[] = {TransportKind::kInproc, TransportKind::kShm,
                                    TransportKind::kTcp, TransportKind::kZmq, TransportKind::kMpi};

class HubTransport final : public Transport {
 public:
  explicit HubTransport(std::shared_ptr<Hub> hub, TransportKind kind) : hub_(std::move(hub)) {
    thread_ = std::thread([hub = hub_] { hub->run(); });
    ::pthread_setname_np(thread_.native_handle(), format("net-{}", kind_name(kind)).c_str());
  }
  ~HubTransport() override {
    hub_->stop();
    thread_.join();
  }
  Result<std::shared_ptr<Channel>> connect(const std::string& address, Deadline deadline) override {
    ASSIGN_OR_RETURN(auto channel, hub_->dial(address, deadline, true, false));
    TRY(hub_->wait_open(*channel));
    return std::shared_ptr<Channel>(std::move(channel));
  }
  Result<std::shared_ptr<Channel>> dial(const std::string& address, Deadline deadline) override {
    ASSIGN_OR_RETURN(auto channel, hub_->dial(address, deadline, false, false));
    return std::shared_ptr<Channel>(std::move(channel));
  }
  std::string address() const override { return hub_->address(); }
  PeerName self() const override { return hub_->self(); }
  void set_peer_timeout(Duration silence) override { hub_->set_peer_timeout(silence); }
  void set_faults(const std::string& peer, const Faults& faults) override {
    hub_->set_faults(peer, faults);
  }
  void cut(const std::string& peer) override { hub_->cut(peer); }
  std::shared_ptr<Hub> hub() override { return hub_; }

 private:
  std::shared_ptr<Hub> hub_;
  std::thread thread_;
};

Result<void> check_options(const TransportOptions& o) {
  if (!valid_identity(o.identity)) {
    return errorf(Code::kInvalidArgument,
                  "identity '{}' must be 1 to 64 printable characters without spaces", o.identity);
  }
  if (o.max_frame_bytes > kMaxFrameBytes || o.max_frame_bytes < kMaxHelloBytes) {
    return errorf(Code::kInvalidArgument, "max_frame_bytes {} must be from {} to {}",
                  o.max_frame_bytes, kMaxHelloBytes, kMaxFrameBytes);
  }
  if (o.window_frames == 0 || o.window_frames > (1u << 20) || o.window_bytes == 0) {
    return errorf(Code::kInvalidArgument,
                  "window_frames {} must be from 1 to {}, window_bytes at least 1", o.window_frames,
                  1u << 20);
  }
  if (o.heartbeat < milliseconds(1) || o.peer_timeout < o.heartbeat * 2) {
    return Error(Code::kInvalidArgument,
                 "heartbeat must be at least 1 ms and peer_timeout at least two heartbeats");
  }
  return {};
}

Result<std::unique_ptr<Wire>> make_wire(const TransportOptions& options, WireEvents& events) {
  switch (options.kind) {
    case TransportKind::kInproc: return make_inproc_wire(options, events);
    case TransportKind::kShm: return make_shm_wire(options, events);
    case TransportKind::kTcp: return make_tcp_wire(options, events);
    case TransportKind::kZmq: return make_zmq_wire(options, events);
    case TransportKind::kMpi: return make_mpi_wire(options, events);
  }
  return Error(Code::kInternal, "unknown transport kind");
}

}  // namespace

std::string_view kind_name(TransportKind kind) {
  switch (kind) {
    case TransportKind::kInproc: return "inproc";
    case TransportKind::kShm: return "shm";
    case TransportKind::kTcp: return "tcp";
    case TransportKind::kZmq: return "zmq";
    case TransportKind::kMpi: return "mpi";
  }
  return "unknown";
}

Result<TransportKind> kind_of_address(std::string_view address) {
  const std::string_view scheme = address.substr(0, address.find("://"));
  for (const TransportKind kind : kKinds) {
    if (scheme.size() < address.size() && scheme == kind_name(kind)) return kind;
  }
  return errorf(Code::kInvalidArgument,
                "address '{}' must begin with inproc://, shm://, tcp://, zmq:// or mpi://",
                address);
}

Result<std::string> address_rest(const std::string& address, TransportKind kind) {
  ASSIGN_OR_RETURN(const TransportKind found, kind_of_address(address));
  std::string rest = address.substr(kind_name(found).size() + 3);
  if (rest.empty()) {
    return errorf(Code::kInvalidArgument, "address '{}' says how, but not where", address);
  }
  if (found != kind) {
    return errorf(Code::kInvalidArgument, "address '{}' cannot be used on a {} transport", address,
                  kind_name(kind));
  }
  return rest;
}

bool is_port(std::string_view text) {
  const bool digits = !text.empty() && text.size() <= 5 &&
                      std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  return digits && std::stoi(std::string(text)) <= 65535;
}

Result<void> check_address(const std::string& address) {
  ASSIGN_OR_RETURN(const TransportKind kind, kind_of_address(address));
  ASSIGN_OR_RETURN(const std::string rest, address_rest(address, kind));
  if (kind != TransportKind::kTcp && kind != TransportKind::kZmq) return {};
  const size_t colon = rest.rfind(':');
  if (colon != std::string::npos && colon > 0 && is_port(rest.substr(colon + 1))) return {};
  return errorf(Code::kInvalidArgument,
                "address '{}' must have the form {}://host:port, the port from 0 to 65535", address,
                kind_name(kind));
}

Result<void> Hub::start_wire() {
  ASSIGN_OR_RETURN(wire_, make_wire(options_, *this));
  if (!options_.listen.empty()) {
    ASSIGN_OR_RETURN(address_, wire_->listen(options_.listen));
  }
  return {};
}

Result<std::unique_ptr<Transport>> Transport::open(TransportOptions options, Inbox& inbox) {
  TRY(check_options(options));
  const TransportKind kind = options.kind;
  auto hub = std::make_shared<Hub>(std::move(options), inbox);
  TRY(hub->start_wire());
  return std::unique_ptr<Transport>(std::make_unique<HubTransport>(std::move(hub), kind));
}

}  // namespace towline::net
