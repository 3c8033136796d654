// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The shm back end: processes of one machine and one user. The dialling side makes a memfd with two
// byte rings and hands it over, with two eventfds, through an abstract Unix socket; nothing has a
// name in the file system, so nothing can be left behind. Frames go as a byte stream (a frame may
// be longer than the ring). The Unix socket stays open for one purpose: the kernel closes it when
// either process ends, however it ends.
//
// Why eventfd and not a bare futex here: the I/O thread of a transport waits for many peers, for
// their deaths and for timers at once, which is what epoll is for; it costs about 10 us more than a
// futex on a cold wake-up. A flag in the ring says whether the reader sleeps, so a busy ring needs
// no system call. The latency-critical path between a node and its ranks is net/broadcast_ring.hpp.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "base/fmt.hpp"
#include "net/log_budget.hpp"
#include "net/shm_region.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

constexpr uint64_t kRingBytes = 1u << 20;  // a power of two
constexpr size_t kMaxPending = 256;
constexpr char kCall[8] = {'T', 'L', 'S', 'H', 'M', '0', '1', '\n'};
constexpr LineId kSocketBit = uint64_t{1} << 62;  // in epoll's data: the socket, not the eventfd
constexpr uint64_t kWakeTag = ~uint64_t{0}, kListenTag = kWakeTag - 1,
                   kPendingTag = uint64_t{3} << 60;

// One direction. Indices count bytes since the beginning.
struct Ring {
  alignas(64) std::atomic<uint64_t> in{0};             // written by the writer
  std::atomic<uint32_t> writer_blocked{0};             // ring its eventfd when there is room
  alignas(64) std::atomic<uint64_t> out{0};            // written by the reader
  std::atomic<uint32_t> reader_asleep{1};              // ring its eventfd when there are bytes
  alignas(64) uint8_t bytes[kRingBytes];
};
struct Shared {
  Ring from_dialer, from_listener;
};

struct Fd {  // closes itself
  int n = -1;
  Fd() = default;
  explicit Fd(int fd) : n(fd) {}
  Fd(Fd&& other) noexcept : n(std::exchange(other.n, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(n, other.n);
    return *this;
  }
  ~Fd() {
    if (n >= 0) ::close(n);
  }
};

void ring_bell(int fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(fd, &one, sizeof one);
}

struct End {
  End(uint32_t max_frame) : parser(max_frame) {}
  Fd socket, my_bell, their_bell;
  ShmRegion region;
  Ring* mine = nullptr;    // we write
  Ring* theirs = nullptr;  // we read
  FrameParser parser;
  std::deque<FrameBytes> queue;
  size_t front_sent = 0;
};

Result<sockaddr_un> socket_address(const std::string& address, socklen_t* length) {
  ASSIGN_OR_RETURN(const std::string name, address_rest(address, TransportKind::kShm));
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  const std::string path = "towline/" + name;  // after a zero byte: the abstract name space
  if (path.size() + 1 > sizeof out.sun_path) {
    return errorf(Code::kInvalidArgument, "address '{}' is too long (at most {} characters)",
                  address, sizeof out.sun_path - 16);
  }
  std::memcpy(out.sun_path + 1, path.data(), path.size());
  *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + path.size());
  return out;
}

bool same_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0);
}

class ShmWire final : public Wire {
 public:
  ShmWire(const TransportOptions& options, WireEvents& events)
      : max_frame_(options.max_frame_bytes),
        events_(events),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    watch(wake_.n, kWakeTag);
  }

  Result<std::string> listen(const std::string& address) override {
    socklen_t length = 0;
    ASSIGN_OR_RETURN(const sockaddr_un at, socket_address(address, &length));
    listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::bind(listener_.n, reinterpret_cast<const sockaddr*>(&at), length) != 0 ||
        ::listen(listener_.n, 128) != 0) {
      return errorf(errno == EADDRINUSE ? Code::kAlreadyExists : Code::kIo,
                    "cannot listen on '{}': {}; choose another name", address,
                    std::strerror(errno));
    }
    watch(listener_.n, kListenTag);
    return address;
  }

  void dial(LineId line, const std::string& address) override {
    Result<std::unique_ptr<End>> end = call(address);
    if (end) {
      watch((*end)->my_bell.n, line);
      watch((*end)->socket.n, line | kSocketBit);
      ends_[line] = std::move(*end);
      news_.push_back({line, LineEnd::kLost, {}});
    } else {
      const LineEnd why =
          end.error().code() == Code::kUnavailable ? LineEnd::kRefused : LineEnd::kDenied;
      news_.push_back({line, why, end.error().message()});
    }
    wake();
  }

  void write(LineId line, FrameBytes frame) override {
    const auto found = ends_.find(line);
    if (found == ends_.end()) return;
    found->second->queue.push_back(std::move(frame));
    pump_out(*found->second);
  }

  void hang_up(LineId line) override {
    const auto found = ends_.find(line);
    if (found == ends_.end()) return;
    pump_out(*found->second);
    ends_.erase(found);  // closes the socket: the peer reads what is in the ring, then learns
  }

  void poll(std::unique_lock<std::mutex>& lock, Instant until) override {
    for (const News& n : std::exchange(news_, {})) {
      n.reason.empty() ? events_.line_up(n.line) : events_.line_down(n.line, n.end, n.reason);
    }
    bool ready = !news_.empty();
    for (const auto& [line, end] : ends_) {  // announce the sleep, then look once more
      end->theirs->reader_asleep.store(1, std::memory_order_seq_cst);
      ready |= end->theirs->in.load(std::memory_order_seq_cst) !=
               end->theirs->out.load(std::memory_order_relaxed);
    }
    epoll_event events[64];
    lock.unlock();
    const int count = sleep(ready ? kNoWait : until, events, std::size(events));
    lock.lock();
    for (const auto& [line, end] : ends_) {
      end->theirs->reader_asleep.store(0, std::memory_order_relaxed);
    }
    std::vector<LineId> gone;
    for (int i = 0; i < count; ++i) {
      const uint64_t tag = events[i].data.u64;
      if (tag == kWakeTag) {
        drain(wake_.n);
      } else if (tag == kListenTag) {
        accept_all();
      } else if ((tag & kPendingTag) == kPendingTag) {
        receive_call(tag);
      } else if (const auto found = ends_.find(tag & ~kSocketBit); found != ends_.end()) {
        if ((tag & kSocketBit) != 0) {
          gone.push_back(found->first);
        } else {
          drain(found->second->my_bell.n);
        }
      }
    }
    std::vector<LineId> lines;
    for (const auto& [line, end] : ends_) lines.push_back(line);
    for (const LineId line : lines) read(line, lock);
    for (const LineId line : gone) {  // after its last words
      if (ends_.erase(line) > 0) events_.line_down(line, LineEnd::kLost, "the peer hung up");
    }
  }

  void wake() override { ring_bell(wake_.n); }

 private:
  struct News {  // outcome of a dial; an empty reason is success
    LineId line;
    LineEnd end;
    std::string reason;
  };

  void watch(int fd, uint64_t tag) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    ::epoll_ctl(epoll_.n, EPOLL_CTL_ADD, fd, &event);
  }

  static void drain(int bell) {
    uint64_t count;
    [[maybe_unused]] const ssize_t n = ::read(bell, &count, sizeof count);
  }

  int sleep(Instant until, epoll_event* events, int capacity) const {
    timespec wait{};
    if (until == kNever) {
      return std::max(0, ::epoll_pwait2(epoll_.n, events, capacity, nullptr, nullptr));
    }
    const Duration left = std::max(Duration(0), until - steady_now());
    wait.tv_sec = left.value / 1'000'000'000;
    wait.tv_nsec = left.value % 1'000'000'000;
    return std::max(0, ::epoll_pwait2(epoll_.n, events, capacity, &wait, nullptr));
  }

  // --- making lines

  Result<std::unique_ptr<End>> call(const std::string& address) const {
    socklen_t length = 0;
    ASSIGN_OR_RETURN(const sockaddr_un at, socket_address(address, &length));
    auto end = std::make_unique<End>(max_frame_);
    end->socket = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(end->socket.n, reinterpret_cast<const sockaddr*>(&at), length) != 0) {
      return errorf(Code::kUnavailable, "nobody listens on '{}' on this machine ({})", address,
                    std::strerror(errno));
    }
    if (!same_user(end->socket.n)) {
      return errorf(Code::kPermissionDenied, "'{}' belongs to another user", address);
    }
    end->my_bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    end->their_bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ASSIGN_OR_RETURN(end->region, ShmRegion::create("towline-line", sizeof(Shared)));
    auto* shared = new (end->region.bytes().data()) Shared;
    end->mine = &shared->from_dialer;
    end->theirs = &shared->from_listener;
    const int fds[3] = {end->region.fd(), end->their_bell.n, end->my_bell.n};
    if (!send_fds(end->socket.n, fds)) {
      return errorf(Code::kUnavailable, "'{}' does not answer: {}", address, std::strerror(errno));
    }
    return end;
  }

  static bool send_fds(int socket, const int (&fds)[3]) {
    iovec part{const_cast<char*>(kCall), sizeof kCall};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fds);
    std::memcpy(CMSG_DATA(head), fds, sizeof fds);
    return ::sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof kCall;
  }

  void accept_all() {
    while (true) {
      Fd socket(::accept4(listener_.n, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (socket.n < 0) return;
      if (!same_user(socket.n) || pending_.size() >= kMaxPending) {
        warn_within(stranger_log_, "a caller on the shm address was turned away",
                    "another user, or too many");
        continue;
      }
      const uint64_t tag = kPendingTag | ++last_inbound_;
      watch(socket.n, tag);
      pending_[tag] = std::move(socket);
    }
  }

  void receive_call(uint64_t tag) {
    const auto found = pending_.find(tag);
    if (found == pending_.end()) return;
    auto end = std::make_unique<End>(max_frame_);
    end->socket = std::move(found->second);
    pending_.erase(found);
    char text[sizeof kCall] = {};
    int fds[3] = {-1, -1, -1};
    iovec part{text, sizeof text};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(end->socket.n, &message, MSG_CMSG_CLOEXEC);
    const cmsghdr* head = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (head != nullptr && head->cmsg_type == SCM_RIGHTS) {
      std::memcpy(fds, CMSG_DATA(head), std::min(sizeof fds, head->cmsg_len - CMSG_LEN(0)));
    }
    Fd region_fd(fds[0]);
    end->my_bell = Fd(fds[1]);
    end->their_bell = Fd(fds[2]);
    if (n != sizeof kCall || std::memcmp(text, kCall, sizeof kCall) != 0 || fds[2] < 0) return;
    Result<ShmRegion> region = ShmRegion::attach(std::exchange(region_fd.n, -1), sizeof(Shared));
    if (!region) {
      warn_within(stranger_log_, "a caller on the shm address was turned away",
                  region.error().message());
      return;
    }
    end->region = std::move(*region);
    auto* shared = reinterpret_cast<Shared*>(end->region.bytes().data());
    end->mine = &shared->from_listener;
    end->theirs = &shared->from_dialer;
    const LineId line = kInboundLine | (tag & ~kPendingTag);
    ::epoll_ctl(epoll_.n, EPOLL_CTL_DEL, end->socket.n, nullptr);
    watch(end->socket.n, line | kSocketBit);
    watch(end->my_bell.n, line);
    ends_[line] = std::move(end);
    events_.line_up(line);
  }

  // --- bytes

  static void pump_out(End& end) {
    Ring& ring = *end.mine;
    uint64_t in = ring.in.load(std::memory_order_relaxed);
    const uint64_t before = in;
    const auto room = [&] {
      const uint64_t used = in - ring.out.load(std::memory_order_seq_cst);
      return used > kRingBytes ? uint64_t{0} : kRingBytes - used;
    };
    while (!end.queue.empty()) {
      uint64_t space = room();
      if (space == 0) {
        ring.in.store(in, std::memory_order_seq_cst);
        ring.writer_blocked.store(1, std::memory_order_seq_cst);
        space = room();
        if (space == 0) break;
      }
      const std::vector<uint8_t>& frame = *end.queue.front();
      const uint64_t at = in & (kRingBytes - 1);
      const uint64_t n =
          std::min({space, kRingBytes - at, static_cast<uint64_t>(frame.size() - end.front_sent)});
      std::memcpy(ring.bytes + at, frame.data() + end.front_sent, n);
      in += n;
      end.front_sent += n;
      if (end.front_sent == frame.size()) {
        end.queue.pop_front();
        end.front_sent = 0;
      }
    }
    if (in == before) return;
    ring.in.store(in, std::memory_order_seq_cst);
    if (ring.reader_asleep.exchange(0, std::memory_order_seq_cst) != 0) ring_bell(end.their_bell.n);
  }

  void read(LineId line, std::unique_lock<std::mutex>& lock) {
    bool paused = false;
    while (true) {
      const auto found = ends_.find(line);
      if (found == ends_.end()) return;
      End& end = *found->second;
      if (!end.queue.empty()) pump_out(end);
      Ring& ring = *end.theirs;
      const uint64_t out = ring.out.load(std::memory_order_relaxed);
      const uint64_t available = ring.in.load(std::memory_order_acquire) - out;
      if (available == 0) return;
      if (available > kRingBytes) return broken(line, "the peer's ring is inconsistent");
      if (std::exchange(paused, true)) {  // let senders have the lock between pieces
        lock.unlock();
        lock.lock();
        if (!ends_.contains(line)) return;
      }
      const uint64_t at = out & (kRingBytes - 1);
      const uint64_t n = std::min({available, kRingBytes - at, uint64_t{256} << 10});
      std::span<const uint8_t> bytes(ring.bytes + at, n);
      std::vector<RawFrame> frames;
      std::string damage;
      while (!bytes.empty() && damage.empty()) {
        Result<std::optional<RawFrame>> frame = end.parser.next(bytes);
        if (!frame) {
          damage = frame.error().message();
        } else if (*frame) {
          frames.push_back(std::move(**frame));
        }
      }
      ring.out.store(out + n, std::memory_order_seq_cst);
      if (ring.writer_blocked.exchange(0, std::memory_order_seq_cst) != 0) {
        ring_bell(end.their_bell.n);
      }
      for (RawFrame& frame : frames) events_.line_frame(line, std::move(frame));
      if (!damage.empty() && ends_.contains(line)) return broken(line, damage);
    }
  }

  void broken(LineId line, const std::string& reason) {
    ends_.erase(line);
    events_.line_down(line, LineEnd::kCorrupt, reason);
  }

  const uint32_t max_frame_;
  WireEvents& events_;
  const Fd epoll_, wake_;
  Fd listener_;
  std::map<LineId, std::unique_ptr<End>> ends_;
  std::map<uint64_t, Fd> pending_;  // accepted, their call not read yet
  std::vector<News> news_;
  uint64_t last_inbound_ = 0;
  LogBudget stranger_log_;
};

}  // namespace

Result<std::unique_ptr<Wire>> make_shm_wire(const TransportOptions& options, WireEvents& events) {
  return std::unique_ptr<Wire>(std::make_unique<ShmWire>(options, events));
}

}  // namespace towline::net
