// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The tcp back end: plain TCP over Boost.Asio, in the transport's one I/O thread.
//
// Reading, connecting and closing happen on the I/O thread alone. write() may come from any thread
// (under the hub's lock) and sends at once when nothing is queued, so a frame costs no thread
// switch; the rest of a blocked frame goes out when the socket takes more. No encryption: use zmq
// where others can listen.
#include <sys/socket.h>

#include <utility>  // Boost.Asio 1.81 forgets it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <algorithm>
#include <chrono>
#include <deque>
#include <unordered_map>
#include <vector>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "net/log_budget.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr size_t kReadBytes = 256 << 10;
constexpr int kReadsInARow = 4;       // before other connections have their turn
constexpr int kHandlersInARow = 64;   // before the hub's timers have theirs
constexpr size_t kMaxConnections = 4096;
constexpr auto kFarewell = std::chrono::seconds(1);

struct HostPort {
  std::string host, port;
};

// "a:1", "10.0.0.7:7100", "[::1]:7100"
Result<HostPort> split_host_port(const std::string& address) {
  ASSIGN_OR_RETURN(const std::string rest, address_rest(address, TransportKind::kTcp));
  const size_t colon = rest.rfind(':');
  HostPort out;
  if (colon != std::string::npos) {
    out.host = rest.substr(0, colon);
    out.port = rest.substr(colon + 1);
  }
  if (out.host.size() > 2 && out.host.front() == '[' && out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
  }
  if (out.host.empty() || !is_port(out.port)) {
    return errorf(Code::kInvalidArgument,
                  "address '{}' must have the form tcp://host:port, the port from 0 to 65535",
                  address);
  }
  return out;
}

// One socket. Everything is guarded by the hub's lock, except that the socket object itself is
// touched by the I/O thread alone; other threads use the descriptor while `open`.
struct Connection {
  Connection(asio::io_context& io, LineId line, uint32_t max_frame)
      : socket(io), resolver(io), farewell(io), parser(max_frame), id(line) {}
  tcp::socket socket;
  tcp::resolver resolver;
  asio::steady_timer farewell;
  FrameParser parser;
  const LineId id;
  int fd = -1;              // once connected
  bool ended = false;       // no more events, no more writes
  bool understood = false;  // a frame has come that was one
  bool write_armed = false;  // the I/O thread waits for room in the socket
  std::deque<FrameBytes> queue;
  size_t front_sent = 0;  // bytes of queue.front() that are out
};
using ConnectionPtr = std::shared_ptr<Connection>;

class TcpWire final : public Wire {
 public:
  TcpWire(const TransportOptions& options, WireEvents& events)
      : max_frame_(options.max_frame_bytes), events_(events), acceptor_(io_), retry_(io_) {
    read_buffer_.resize(kReadBytes);
  }

  Result<std::string> listen(const std::string& address) override {
    ASSIGN_OR_RETURN(const HostPort where, split_host_port(address));
    ErrorCode ec;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(where.host, where.port, tcp::resolver::passive, ec);
    if (ec || found.empty()) {
      return errorf(Code::kInvalidArgument, "cannot listen on '{}': {}", address, ec.message());
    }
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), ec);
    if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor_.bind(endpoint, ec);
    if (!ec) acceptor_.listen(asio::socket_base::max_listen_connections, ec);
    if (ec) {
      return errorf(ec == asio::error::address_in_use ? Code::kAlreadyExists : Code::kIo,
                    "cannot listen on '{}': {}; choose another port (0 picks a free one)", address,
                    ec.message());
    }
    accept_next();
    const std::string rest = *address_rest(address, TransportKind::kTcp);
    return format("tcp://{}:{}", rest.substr(0, rest.rfind(':')),
                  acceptor_.local_endpoint(ec).port());
  }

  void dial(LineId line, const std::string& address) override {
    auto connection = std::make_shared<Connection>(io_, line, max_frame_);
    connections_[line] = connection;
    asio::post(io_, [this, connection, address] {
      const Result<HostPort> where = split_host_port(address);
      if (!where) return down(connection, LineEnd::kDenied, where.error().message());
      connection->resolver.async_resolve(
          where->host, where->port,
          [this, connection](const ErrorCode& ec, const tcp::resolver::results_type& found) {
            if (ec) {
              return down(connection, LineEnd::kLost,
                          format("cannot resolve the name: {}", ec.message()));
            }
            auto targets = std::make_shared<std::vector<tcp::endpoint>>();
            for (const auto& entry : found) targets->push_back(entry.endpoint());
            connect_next(connection, targets, 0);
          });
    });
  }

  void write(LineId line, FrameBytes frame) override {
    const auto found = connections_.find(line);
    if (found == connections_.end() || found->second->fd < 0) return;
    Connection& c = *found->second;
    c.queue.push_back(std::move(frame));
    if (c.write_armed) return;
    send_queued(c);
    if (!c.queue.empty()) {
      c.write_armed = true;
      asio::post(io_, [this, connection = found->second] { wait_writable(connection); });
    }
  }

  void hang_up(LineId line) override {
    const auto found = connections_.find(line);
    if (found == connections_.end()) return;
    const ConnectionPtr connection = found->second;
    connections_.erase(found);
    if (connection->fd >= 0) send_queued(*connection);
    connection->ended = true;
    connection->queue.clear();
    // Close on the I/O thread, after the peer has read the last words (a close with unread input
    // would reset the connection and take them away).
    if (connection->fd >= 0) ::shutdown(connection->fd, SHUT_WR);
    asio::post(io_, [connection] {
      if (connection->fd < 0) {
        ErrorCode ignored;
        connection->resolver.cancel();
        connection->socket.close(ignored);
        return;
      }
      connection->farewell.expires_after(kFarewell);
      connection->farewell.async_wait(
          [connection](const ErrorCode&) { close_socket(*connection); });
    });
  }

  void poll(std::unique_lock<std::mutex>& lock, Instant until) override {
    lock_ = &lock;
    lock.unlock();
    if (until == kNever) {
      io_.run_one();
    } else {
      io_.run_one_until(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(until.ns)));
    }
    for (int i = 0; i < kHandlersInARow && io_.poll_one() > 0; ++i) {
    }
    lock.lock();
  }

  void wake() override { asio::post(io_, [] {}); }

 private:
  // The hub's lock, held by a handler of the I/O thread.
  class Locked {
   public:
    explicit Locked(TcpWire& wire) : lock_(*wire.lock_) { lock_.lock(); }
    ~Locked() { lock_.unlock(); }

   private:
    std::unique_lock<std::mutex>& lock_;
  };

  static void close_socket(Connection& c) {
    ErrorCode ignored;
    c.farewell.cancel();
    c.socket.close(ignored);
  }

  void accept_next() {
    acceptor_.async_accept([this](const ErrorCode& ec, tcp::socket socket) {
      if (ec == asio::error::operation_aborted) return;
      if (ec) {  // out of descriptors: not in a busy loop
        warn_within(accept_log_, "cannot accept a connection", ec.message());
        retry_.expires_after(std::chrono::milliseconds(100));
        retry_.async_wait([this](const ErrorCode& stop) {
          if (!stop) accept_next();
        });
        return;
      }
      {
        const Locked held(*this);
        if (connections_.size() < kMaxConnections) {
          auto connection =
              std::make_shared<Connection>(io_, kInboundLine | ++last_inbound_, max_frame_);
          connection->socket = std::move(socket);
          connections_[connection->id] = connection;
          begin(connection);
        }
      }
      accept_next();
    });
  }

  void connect_next(const ConnectionPtr& c,
                    const std::shared_ptr<std::vector<tcp::endpoint>>& targets, size_t index) {
    c->socket.async_connect((*targets)[index], [this, c, targets, index](const ErrorCode& ec) {
      if (!ec) {
        const Locked held(*this);
        if (!c->ended) begin(c);
        return;
      }
      if (index + 1 < targets->size() && ec != asio::error::operation_aborted) {
        ErrorCode ignored;
        c->socket.close(ignored);
        return connect_next(c, targets, index + 1);
      }
      down(c, ec == asio::error::connection_refused ? LineEnd::kRefused : LineEnd::kLost,
           ec.message());
    });
  }

  // With the lock held: the connection carries frames from now on.
  void begin(const ConnectionPtr& c) {
    ErrorCode ignored;
    c->socket.set_option(tcp::no_delay(true), ignored);
    c->socket.native_non_blocking(true, ignored);
    c->fd = c->socket.native_handle();
    wait_readable(c);
    events_.line_up(c->id);
  }

  void wait_readable(const ConnectionPtr& c) {
    c->socket.async_wait(tcp::socket::wait_read, [this, c](const ErrorCode& ec) {
      if (!ec) read(c);
    });
  }

  void read(const ConnectionPtr& c) {
    for (int i = 0; i < kReadsInARow; ++i) {
      const ssize_t n = ::recv(c->fd, read_buffer_.data(), read_buffer_.size(), 0);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
      const Locked held(*this);
      if (c->ended) {  // hung up by us: only wait for the peer's end
        if (n <= 0) return close_socket(*c);
        continue;
      }
      if (n <= 0) {
        return down_locked(c, LineEnd::kLost,
                           n == 0 ? std::string("the peer hung up")
                                  : ErrorCode(errno, boost::system::system_category()).message());
      }
      if (!parse(c, {read_buffer_.data(), static_cast<size_t>(n)})) return;
      if (static_cast<size_t>(n) < read_buffer_.size()) break;
    }
    wait_readable(c);
  }

  // False when the connection is over.
  bool parse(const ConnectionPtr& c, std::span<const uint8_t> bytes) {
    while (!bytes.empty() && !c->ended) {
      Result<std::optional<RawFrame>> frame = c->parser.next(bytes);
      if (!frame) {
        if (frame.error().code() == Code::kUnsupported && !c->understood) {
          say_why(*c, frame.error().message());
        }
        down_locked(c, LineEnd::kCorrupt, frame.error().message());
        return false;
      }
      if (!*frame) continue;
      c->understood = true;
      events_.line_frame(c->id, std::move(**frame));
    }
    return true;
  }

  // To a peer of another release: it hears the reason, where it can. Not for damage on the way,
  // which a new line cures. What is queued may end in the middle of a frame,
  // and then nothing can be said.
  static void say_why(const Connection& c, std::string_view reason) {
    if (!c.queue.empty()) return;
    FrameHeader header;
    header.type = FrameType::kRefuse;
    const FrameBytes frame = finish_frame(draft_text(reason), header);
    (void)::send(c.fd, frame->data(), frame->size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  static void send_queued(Connection& c) {
    while (!c.queue.empty()) {
      iovec parts[16];
      msghdr message{};
      message.msg_iov = parts;
      for (const FrameBytes& frame : c.queue) {
        const size_t skip = message.msg_iovlen == 0 ? c.front_sent : 0;
        parts[message.msg_iovlen++] = {const_cast<uint8_t*>(frame->data()) + skip,
                                       frame->size() - skip};
        if (message.msg_iovlen == std::size(parts)) break;
      }
      const ssize_t sent = ::sendmsg(c.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) c.queue.clear();  // broken: the reader will hear of it
        return;
      }
      size_t left = static_cast<size_t>(sent);
      while (!c.queue.empty() && left >= c.queue.front()->size() - c.front_sent) {
        left -= c.queue.front()->size() - c.front_sent;
        c.queue.pop_front();
        c.front_sent = 0;
      }
      c.front_sent += left;
    }
  }

  void wait_writable(const ConnectionPtr& c) {
    c->socket.async_wait(tcp::socket::wait_write, [this, c](const ErrorCode& ec) {
      const Locked held(*this);
      c->write_armed = false;
      if (ec || c->ended) return;
      send_queued(*c);
      if (!c->queue.empty()) {
        c->write_armed = true;
        wait_writable(c);
      }
    });
  }

  void down(const ConnectionPtr& c, LineEnd end, std::string reason) {
    const Locked held(*this);
    if (!c->ended) down_locked(c, end, std::move(reason));
  }
  void down_locked(const ConnectionPtr& c, LineEnd end, std::string reason) {
    c->ended = true;
    connections_.erase(c->id);
    close_socket(*c);
    events_.line_down(c->id, end, std::move(reason));
  }

  const uint32_t max_frame_;
  WireEvents& events_;
  asio::io_context io_{1};  // outlives the sockets below
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::vector<uint8_t> read_buffer_;  // I/O thread
  std::unique_lock<std::mutex>* lock_ = nullptr;  // poll()'s
  std::unordered_map<LineId, ConnectionPtr> connections_;
  uint64_t last_inbound_ = 0;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  LogBudget accept_log_;
};

}  // namespace

Result<std::unique_ptr<Wire>> make_tcp_wire(const TransportOptions& options, WireEvents& events) {
  try {  // a fence: Asio throws when the process is out of descriptors
    return std::unique_ptr<Wire>(std::make_unique<TcpWire>(options, events));
  } catch (const boost::system::system_error& e) {
    return errorf(Code::kIo, "cannot set up sockets: {}", e.what());
  }
}

}  // namespace towline::net
