// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The zmq back end: ZeroMQ with CURVE, the default between machines.
//
// One ROUTER socket accepts, one DEALER socket per dialled line. ZeroMQ's own reconnecting and
// queueing are off (the session does both, knowing what was delivered): a line is one TCP
// connection, told apart by the routing id on the ROUTER's side, and its end is seen by socket
// monitors. An empty message means "hung up", since a ROUTER cannot drop one peer.
// Access: both sides hold the cluster's key pair; a ZAP handler in this file's poll loop admits
// exactly its public key (ZeroMQ RFC 25, 26, 27).
//
// Threads: all sockets belong to the I/O thread; other threads leave commands and ring an eventfd.
// libzmq adds two threads of its own, which sleep when idle.
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fmt.hpp"
#include "net/keys.hpp"
#include "net/log_budget.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

constexpr int kMessagesInARow = 64;
constexpr size_t kBytesInARow = 8u << 20;
constexpr int kLingerMs = 300;

struct Socket {  // closes itself
  void* handle = nullptr;
  Socket() = default;
  Socket(void* context, int type) : handle(::zmq_socket(context, type)) {}
  Socket(Socket&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(handle, other.handle);
    return *this;
  }
  ~Socket() {
    if (handle == nullptr) return;
    // A closed socket lives on while it lingers, and its monitor has been closed after it: libzmq's
    // I/O thread would wait for ever to tell that of an end, and all other lines with it.
    ::zmq_socket_monitor(handle, nullptr, 0);
    ::zmq_close(handle);
  }
  void set(int option, int value) { ::zmq_setsockopt(handle, option, &value, sizeof value); }
  void set(int option, int64_t value) { ::zmq_setsockopt(handle, option, &value, sizeof value); }
  void set(int option, const std::string& value) {
    ::zmq_setsockopt(handle, option, value.data(), value.size());
  }
};

struct Message {  // a zmq_msg_t that closes itself
  zmq_msg_t raw;
  Message() { ::zmq_msg_init(&raw); }
  ~Message() { ::zmq_msg_close(&raw); }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  bool receive(void* socket) { return ::zmq_msg_recv(&raw, socket, ZMQ_DONTWAIT) >= 0; }
  std::span<const uint8_t> bytes() {
    return {static_cast<const uint8_t*>(::zmq_msg_data(&raw)), ::zmq_msg_size(&raw)};
  }
  std::string text() {
    return {static_cast<const char*>(::zmq_msg_data(&raw)), ::zmq_msg_size(&raw)};
  }
};

// Sends without a copy: libzmq holds a reference to the frame until it is out.
bool send_frame(void* socket, const FrameBytes& frame) {
  auto* kept = new FrameBytes(frame);
  zmq_msg_t message;
  ::zmq_msg_init_data(&message, const_cast<uint8_t*>(frame->data()), frame->size(),
                      [](void*, void* hint) { delete static_cast<FrameBytes*>(hint); }, kept);
  if (::zmq_msg_send(&message, socket, ZMQ_DONTWAIT) >= 0) return true;
  ::zmq_msg_close(&message);
  return false;
}

class ZmqWire final : public Wire {
 public:
  ZmqWire(const TransportOptions& options, WireEvents& events)
      : max_frame_(options.max_frame_bytes),
        key_file_(options.key_file),
        handshake_ms_(static_cast<int>(options.handshake_timeout.value / 1'000'000)),
        events_(events),
        context_(::zmq_ctx_new()),
        wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        timer_fd_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {}

  ~ZmqWire() override {
    dialed_.clear();
    router_ = Socket();
    router_monitor_ = Socket();
    zap_ = Socket();
    ::zmq_ctx_term(context_);  // at most kLingerMs
    ::close(wake_fd_);
    ::close(timer_fd_);
  }

  Result<void> secure(const TransportOptions& options) {
    if (options.insecure) return {};
    if (options.key_file.empty()) {
      return Error(
          Code::kInvalidArgument,
          "a zmq transport needs a key file: make one with 'towline net keys FILE', copy it "
          "to all nodes and name it with --keys, or say --insecure");
    }
    ASSIGN_OR_RETURN(keys_, read_keys(options.key_file));
    ::zmq_z85_decode(admitted_, keys_.public_key.c_str());
    zap_ = Socket(context_, ZMQ_REP);
    zap_.set(ZMQ_LINGER, 0);
    if (::zmq_bind(zap_.handle, "inproc://zeromq.zap.01") != 0) {
      return errorf(Code::kInternal, "cannot start the access check: {}",
                    ::zmq_strerror(::zmq_errno()));
    }
    secure_ = true;
    return {};
  }

  Result<std::string> listen(const std::string& address) override {
    ASSIGN_OR_RETURN(std::string rest, address_rest(address, TransportKind::kZmq));
    const size_t colon = rest.rfind(':');
    if (colon == std::string::npos || colon + 1 == rest.size()) {
      return errorf(Code::kInvalidArgument, "address '{}' must have the form zmq://host:port",
                    address);
    }
    const std::string host = rest.substr(0, colon);
    const std::string port = rest.substr(colon + 1);
    // libzmq takes 99999 for 34463.
    if (port != "*" && !is_port(port)) {
      return errorf(Code::kInvalidArgument, "address '{}' needs a port from 0 to 65535", address);
    }
    router_ = Socket(context_, ZMQ_ROUTER);
    set_common(router_);
    router_.set(ZMQ_ROUTER_MANDATORY, 1);
    if (host.starts_with('[')) router_.set(ZMQ_IPV6, 1);
    if (secure_) {
      router_.set(ZMQ_CURVE_SERVER, 1);
      router_.set(ZMQ_CURVE_SECRETKEY, keys_.secret_key);
      router_.set(ZMQ_ZAP_DOMAIN, std::string("towline"));
    }
    router_monitor_ = monitor(router_, "inproc://router-monitor");
    const std::string target =
        format("tcp://{}:{}", host == "localhost" ? "127.0.0.1" : host, port == "0" ? "*" : port);
    if (::zmq_bind(router_.handle, target.c_str()) != 0) {
      const int error = ::zmq_errno();
      return errorf(error == EADDRINUSE ? Code::kAlreadyExists : Code::kInvalidArgument,
                    "cannot listen on '{}': {}; choose another port (0 picks a free one)", address,
                    ::zmq_strerror(error));
    }
    char bound[256] = {};
    size_t size = sizeof bound;
    ::zmq_getsockopt(router_.handle, ZMQ_LAST_ENDPOINT, bound, &size);
    return format("zmq://{}:{}", host,
                  std::string(bound).substr(std::string(bound).rfind(':') + 1));
  }

  void dial(LineId line, const std::string& address) override {
    leave({Command::kDial, line, address, nullptr});
  }
  void write(LineId line, FrameBytes frame) override {
    leave({Command::kWrite, line, {}, std::move(frame)});
  }
  void hang_up(LineId line) override { leave({Command::kHangUp, line, {}, nullptr}); }

  void poll(std::unique_lock<std::mutex>& lock, Instant until) override {
    std::deque<Command> commands = std::exchange(commands_, {});
    lock.unlock();
    for (Command& command : commands) carry_out(command);
    lock.lock();
    if (!commands_.empty() || !news_.empty()) until = kNoWait;
    sleeping_ = until > kNoWait;
    lock.unlock();
    sleep(until);
    receive();
    lock.lock();
    sleeping_ = false;
    for (News& n : std::exchange(news_, {})) {
      switch (n.kind) {
        case News::kUp: events_.line_up(n.line); break;
        case News::kFrame: events_.line_frame(n.line, std::move(n.frame)); break;
        case News::kDown: events_.line_down(n.line, n.end, std::move(n.reason)); break;
      }
    }
  }

  void wake() override { ring(); }

 private:
  struct Command {
    enum Kind { kDial, kWrite, kHangUp } kind;
    LineId line;
    std::string address;
    FrameBytes frame;
  };
  struct News {  // for the hub, told with its lock held
    enum Kind { kUp, kFrame, kDown } kind;
    LineId line;
    RawFrame frame;
    LineEnd end = LineEnd::kLost;
    std::string reason;
  };
  struct Dialed {
    Socket monitor, socket;  // the socket closes first
    std::string address;
    Instant opened{};
    bool connected = false;  // TCP
    bool up = false;         // and the secure handshake
  };
  struct Inbound {
    LineId line = kNoLine;  // kNoLine: hung up by us, the peer has not gone yet
    int fd = -1;
    uint64_t number = 0;
  };

  // --- any thread, with the hub's lock
  void leave(Command command) {
    commands_.push_back(std::move(command));
    if (sleeping_) {
      sleeping_ = false;
      ring();
    }
  }
  void ring() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof one);
  }

  // --- the I/O thread, without the lock
  void set_common(Socket& socket) const {
    socket.set(ZMQ_LINGER, kLingerMs);
    socket.set(ZMQ_SNDHWM, 0);  // the session's window bounds what is queued
    socket.set(ZMQ_RCVHWM, 0);
    // Encryption adds a few bytes; the exact limit is decode_frame()'s.
    socket.set(ZMQ_MAXMSGSIZE, int64_t{max_frame_} + static_cast<int64_t>(kHeaderBytes) + 1024);
    socket.set(ZMQ_HANDSHAKE_IVL, handshake_ms_);
  }

  Socket monitor(Socket& watched, const std::string& name) {
    constexpr int kEvents = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED |
                            ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                            ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                            ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    ::zmq_socket_monitor(watched.handle, name.c_str(), kEvents);
    Socket pair(context_, ZMQ_PAIR);
    pair.set(ZMQ_LINGER, 0);
    pair.set(ZMQ_RCVHWM, 0);  // nor does the I/O thread wait for who has not read them yet
    ::zmq_connect(pair.handle, name.c_str());
    return pair;
  }

  void report_down(LineId line, LineEnd end, std::string reason) {
    news_.push_back({News::kDown, line, {}, end, std::move(reason)});
  }

  void carry_out(Command& command) {
    switch (command.kind) {
      case Command::kDial: return open_dialed(command);
      case Command::kWrite: {
        const auto found = dialed_.find(command.line);
        if (found != dialed_.end()) {
          send_frame(found->second.socket.handle, command.frame);
        } else if (const auto in = inbound_ids_.find(command.line); in != inbound_ids_.end()) {
          if (::zmq_send(router_.handle, in->second.data(), in->second.size(),
                         ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0) {
            send_frame(router_.handle, command.frame);
          }
        }
        return;
      }
      case Command::kHangUp: {
        if (dialed_.erase(command.line) > 0) return;
        const auto in = inbound_ids_.find(command.line);
        if (in == inbound_ids_.end()) return;
        if (::zmq_send(router_.handle, in->second.data(), in->second.size(),
                       ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0) {
          ::zmq_send(router_.handle, "", 0, ZMQ_DONTWAIT);
        }
        inbound_[in->second].line = kNoLine;
        inbound_ids_.erase(in);
        return;
      }
    }
  }

  void open_dialed(const Command& command) {
    const std::string rest = address_rest(command.address, TransportKind::kZmq).value_or("");
    if (!is_port(rest.substr(rest.rfind(':') + 1))) {
      return report_down(
          command.line, LineEnd::kDenied,
          format("'{}' is no address: the port is not one from 0 to 65535", command.address));
    }
    Dialed dialed;
    dialed.address = command.address;
    dialed.opened = steady_now();
    dialed.socket = Socket(context_, ZMQ_DEALER);
    if (dialed.socket.handle == nullptr) {
      return report_down(command.line, LineEnd::kLost, "too many sockets");
    }
    set_common(dialed.socket);
    dialed.socket.set(ZMQ_RECONNECT_IVL, -1);
    dialed.socket.set(ZMQ_CONNECT_TIMEOUT, handshake_ms_);
    if (rest.starts_with('[')) dialed.socket.set(ZMQ_IPV6, 1);
    if (secure_) {
      dialed.socket.set(ZMQ_CURVE_SERVERKEY, keys_.public_key);
      dialed.socket.set(ZMQ_CURVE_PUBLICKEY, keys_.public_key);
      dialed.socket.set(ZMQ_CURVE_SECRETKEY, keys_.secret_key);
    }
    dialed.monitor = monitor(dialed.socket, format("inproc://monitor-{}", command.line));
    if (::zmq_connect(dialed.socket.handle, ("tcp://" + rest).c_str()) != 0) {
      return report_down(
          command.line, LineEnd::kDenied,
          format("'{}' is no address: {}", command.address, ::zmq_strerror(::zmq_errno())));
    }
    dialed_.emplace(command.line, std::move(dialed));
  }

  void sleep(Instant until) {
    const Instant now = steady_now();
    long wait_ms = 0;
    itimerspec timer{};  // zmq_poll counts in milliseconds, emulated links need finer
    if (until == kNever) {
      wait_ms = -1;
    } else if (until > now) {
      const int64_t ns = (until - now).value;
      wait_ms = static_cast<long>((ns + 999'999) / 1'000'000);
      if (wait_ms <= 20) timer.it_value = {until.ns / 1'000'000'000, until.ns % 1'000'000'000};
    }
    if (timer.it_value.tv_sec != 0 || timer_armed_) {
      timer_armed_ = timer.it_value.tv_sec != 0;
      ::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &timer, nullptr);
    }
    items_.clear();
    items_.push_back({nullptr, wake_fd_, ZMQ_POLLIN, 0});
    items_.push_back({nullptr, timer_fd_, ZMQ_POLLIN, 0});
    if (zap_.handle != nullptr) items_.push_back({zap_.handle, 0, ZMQ_POLLIN, 0});
    if (router_.handle != nullptr) {
      items_.push_back({router_monitor_.handle, 0, ZMQ_POLLIN, 0});
      items_.push_back({router_.handle, 0, ZMQ_POLLIN, 0});
    }
    for (const auto& [id, dialed] : dialed_) {
      items_.push_back({dialed.monitor.handle, 0, ZMQ_POLLIN, 0});
      items_.push_back({dialed.socket.handle, 0, ZMQ_POLLIN, 0});
    }
    ::zmq_poll(items_.data(), static_cast<int>(items_.size()), wait_ms);
    uint64_t count;
    [[maybe_unused]] ssize_t n = ::read(wake_fd_, &count, sizeof count);
    if (timer_armed_) n = ::read(timer_fd_, &count, sizeof count);
  }

  void receive() {
    if (zap_.handle != nullptr) answer_zap();
    if (router_.handle != nullptr) {
      receive_inbound();  // first: the last words of a peer that has hung up since
      watch_router();
    }
    std::vector<LineId> over;
    for (auto& [line, dialed] : dialed_) {
      // Messages first: the last words of a peer that has hung up since.
      if (receive_dialed(line, dialed) && watch_dialed(line, dialed)) continue;
      over.push_back(line);
    }
    for (const LineId line : over) dialed_.erase(line);
  }

  // One event of a monitor: its number and value, if there is one.
  static bool next_event(void* socket, uint16_t* event, uint32_t* value) {
    Message head, endpoint;
    if (!head.receive(socket) || head.bytes().size() < 6) return false;
    endpoint.receive(socket);
    std::memcpy(event, head.bytes().data(), 2);
    std::memcpy(value, head.bytes().data() + 2, 4);
    return true;
  }

  void watch_router() {
    uint16_t event;
    uint32_t value;
    while (next_event(router_monitor_.handle, &event, &value)) {
      if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ||
          event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL ||
          event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
        warn_within(stranger_log_, "line refused",
                    "the peer has not this cluster's keys, or was held up");
      }
      if (event != ZMQ_EVENT_DISCONNECTED) continue;
      forget_inbound(static_cast<int>(value));
    }
  }

  // The connection on `fd` has ended. Descriptors are used again, so of two it is the older.
  void forget_inbound(int fd) {
    auto gone = inbound_.end();
    for (auto at = inbound_.begin(); at != inbound_.end(); ++at) {
      if (at->second.fd == fd &&
          (gone == inbound_.end() || at->second.number < gone->second.number))
        gone = at;
    }
    if (gone == inbound_.end()) return;
    if (gone->second.line != kNoLine) {
      inbound_ids_.erase(gone->second.line);
      report_down(gone->second.line, LineEnd::kLost, "the peer hung up");
    }
    inbound_.erase(gone);
  }

  void receive_inbound() {
    size_t bytes = 0;
    for (int i = 0; i < kMessagesInARow && bytes < kBytesInARow; ++i) {
      Message id, body;
      if (!id.receive(router_.handle)) return;
      while (::zmq_msg_more(&id.raw) != 0 && body.receive(router_.handle) &&
             ::zmq_msg_more(&body.raw) != 0) {
      }
      bytes += body.bytes().size();
      auto at = inbound_.find(id.text());
      if (at == inbound_.end()) {
        // A greeting begins a line; anything else comes from one that has ended meanwhile.
        const bool greets =
            body.bytes().size() > 5 && body.bytes()[5] == static_cast<uint8_t>(FrameType::kHello);
        if (!greets) continue;
        const uint64_t number = ++last_inbound_;
        at = inbound_
                 .emplace(id.text(), Inbound{kInboundLine | number,
                                             ::zmq_msg_get(&body.raw, ZMQ_SRCFD), number})
                 .first;
        inbound_ids_[at->second.line] = id.text();
        news_.push_back({News::kUp, at->second.line, {}, LineEnd::kLost, {}});
      }
      const LineId line = at->second.line;
      if (line == kNoLine) continue;
      Result<RawFrame> frame = decode_frame(body.bytes(), max_frame_);
      if (frame) {
        news_.push_back({News::kFrame, line, std::move(*frame), LineEnd::kLost, {}});
        continue;
      }
      Command hang{Command::kHangUp, line, {}, nullptr};
      carry_out(hang);
      report_down(line, LineEnd::kCorrupt, frame.error().message());
    }
  }

  // False when the line is over (and reported).
  bool receive_dialed(LineId line, Dialed& dialed) {
    size_t bytes = 0;
    for (int i = 0; i < kMessagesInARow && bytes < kBytesInARow; ++i) {
      Message body;
      if (!body.receive(dialed.socket.handle)) return true;
      bytes += body.bytes().size();
      if (body.bytes().empty()) {
        report_down(line, LineEnd::kLost, "the peer hung up");
        return false;
      }
      Result<RawFrame> frame = decode_frame(body.bytes(), max_frame_);
      if (!frame) {
        report_down(line, LineEnd::kCorrupt, frame.error().message());
        return false;
      }
      news_.push_back({News::kFrame, line, std::move(*frame), LineEnd::kLost, {}});
    }
    return true;
  }

  bool watch_dialed(LineId line, Dialed& dialed) {
    uint16_t event;
    uint32_t value;
    while (next_event(dialed.monitor.handle, &event, &value)) {
      switch (event) {
        case ZMQ_EVENT_CONNECTED: dialed.connected = true; break;
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
          dialed.up = true;
          news_.push_back({News::kUp, line, {}, LineEnd::kLost, {}});
          break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
          report_not_admitted(line, dialed);
          return false;
        case ZMQ_EVENT_CLOSED:
        case ZMQ_EVENT_CONNECT_RETRIED:
        case ZMQ_EVENT_DISCONNECTED:
          if (dialed.up) {
            report_down(line, LineEnd::kLost, "the peer hung up");
          } else if (dialed.connected) {
            report_not_admitted(line, dialed);
          } else {
            report_down(line, LineEnd::kRefused, "nobody listens there (connection refused)");
          }
          return false;
        default: break;
      }
    }
    return true;
  }

  // libzmq does not tell a handshake that was refused, which is soon, from one that either side
  // gave up after the time for it: whoever was held up for so long has the right keys all the same.
  void report_not_admitted(LineId line, const Dialed& dialed) {
    if (steady_now() - dialed.opened < milliseconds(handshake_ms_) * 9 / 10) {
      return report_down(line, LineEnd::kDenied, denied(dialed.address));
    }
    report_down(line, LineEnd::kLost,
                format("connected, but the secure handshake did not end in {} ms", handshake_ms_));
  }

  std::string denied(const std::string& address) const {
    return secure_ ? format(
                         "'{}' refused the secure handshake: key file '{}' is not the one of that "
                         "cluster, or it runs without keys",
                         address, key_file_)
                   : format("'{}' refused: it requires the cluster's key file (--keys)", address);
  }

  // ZAP: request [version, id, domain, address, identity, mechanism, credentials...].
  void answer_zap() {
    while (true) {
      std::vector<std::string> parts;
      bool more = true;
      while (more) {
        Message part;
        if (!part.receive(zap_.handle)) break;
        parts.push_back(part.text());
        more = ::zmq_msg_more(&part.raw) != 0;
      }
      if (parts.empty()) return;
      const bool admit =
          parts.size() >= 7 && parts[5] == "CURVE" &&
          parts[6] == std::string(reinterpret_cast<const char*>(admitted_), sizeof admitted_);
      const std::string answer[] = {"1.0", parts.size() > 1 ? parts[1] : "", admit ? "200" : "400",
                                    admit ? "" : "not a key of this cluster", "", ""};
      for (size_t i = 0; i < std::size(answer); ++i) {
        ::zmq_send(zap_.handle, answer[i].data(), answer[i].size(),
                   i + 1 < std::size(answer) ? ZMQ_SNDMORE : 0);
      }
    }
  }

  // Constant after open.
  const uint32_t max_frame_;
  const std::string key_file_;
  const int handshake_ms_;
  WireEvents& events_;
  ClusterKeys keys_;
  uint8_t admitted_[32] = {};
  bool secure_ = false;
  void* const context_;
  const int wake_fd_, timer_fd_;
  // Guarded by the hub's lock.
  std::deque<Command> commands_;
  bool sleeping_ = false;
  // The I/O thread's.
  std::vector<News> news_;
  Socket zap_, router_, router_monitor_;
  std::map<LineId, Dialed> dialed_;
  std::unordered_map<std::string, Inbound> inbound_;  // by routing id
  std::unordered_map<LineId, std::string> inbound_ids_;
  uint64_t last_inbound_ = 0;
  LogBudget stranger_log_;
  bool timer_armed_ = false;
  std::vector<zmq_pollitem_t> items_;
};

}  // namespace

Result<std::unique_ptr<Wire>> make_zmq_wire(const TransportOptions& options, WireEvents& events) {
  auto wire = std::make_unique<ZmqWire>(options, events);
  TRY(wire->secure(options));
  return std::unique_ptr<Wire>(std::move(wire));
}

}  // namespace towline::net
