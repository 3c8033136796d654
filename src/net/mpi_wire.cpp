// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The mpi back end: ranks of one mpirun (or srun) as peers. For clusters where MPI is what works.
//
// A line is a pair of numbers, one chosen by each side, carried in front of each message; MPI
// itself has no connections. Frames are single messages of MPI_BYTE on one tag of a duplicate of
// MPI_COMM_WORLD, so MPI's order between two ranks is the line's order.
//
// What MPI cannot do, plainly: the death of a rank ends the whole job (nothing here changes that);
// there is no waiting with a deadline, so the I/O thread polls: it yields for 50 us after the last
// message, then naps 50 us, 100 us, ... 2 ms. Idle that is under 1 % of a core, and a message that
// finds the receiver asleep waits up to 2 ms.
//
// Threads: the I/O thread makes all MPI calls between listen()/first use and the end of the
// process, serialised by the hub's lock with those made at opening (MPI_THREAD_SERIALIZED). MPI
// cannot be started twice, so one transport of this kind may be open in a process, and MPI_Finalize
// is called when it closes.
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <chrono>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <vector>

#include "base/fmt.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

constexpr int kTag = 71;
constexpr Duration kYieldFor = microseconds(50);
constexpr Duration kLongestNap = milliseconds(2);

// In front of each message.
struct Envelope {
  uint64_t to_line;    // the receiver's number; 0 in a call
  uint64_t from_line;  // the sender's number
  uint32_t what;       // What
  uint32_t unused;
};
enum What : uint32_t { kCall, kAnswer, kFrame, kGone };

std::atomic<bool> mpi_used{false};  // MPI_Init may be called once in a process

class MpiWire final : public Wire {
 public:
  MpiWire(const TransportOptions& options, WireEvents& events)
      : max_frame_(options.max_frame_bytes), events_(events) {}

  Result<void> start() {
    if (mpi_used.exchange(true)) {
      return Error(Code::kAlreadyExists,
                   "MPI can be started once in a process; an mpi transport was opened already");
    }
    int provided = 0;
    if (::MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS ||
        provided < MPI_THREAD_SERIALIZED) {
      return Error(Code::kUnsupported, "this MPI does not allow calls from a second thread");
    }
    ::MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
    ::MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    ::MPI_Comm_rank(comm_, &rank_);
    ::MPI_Comm_size(comm_, &size_);
    return {};
  }

  ~MpiWire() override {
    if (size_ == 0) return;
    for (const auto& [line, end] : ends_) post(end, line, kGone, nullptr);
    const Deadline farewell = deadline_in(milliseconds(300));
    while (!sending_.empty() && steady_now() < farewell) {
      reap();
      ::sched_yield();
    }
    ::MPI_Comm_free(&comm_);
    ::MPI_Finalize();
  }

  // "mpi://" with any rest: a rank listens where it is.
  Result<std::string> listen(const std::string& address) override {
    ASSIGN_OR_RETURN(const TransportKind kind, kind_of_address(address));
    if (kind != TransportKind::kMpi) {
      return errorf(Code::kInvalidArgument, "address '{}' must begin with mpi://", address);
    }
    listening_ = true;
    return format("mpi://{}", rank_);
  }

  void dial(LineId line, const std::string& address) override {
    const std::string rest = address_rest(address, TransportKind::kMpi).value_or("");
    const bool digits =
        !rest.empty() && rest.size() < 7 &&
        std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; });
    const int peer = digits ? std::stoi(rest) : -1;
    if (peer < 0 || peer >= size_) {
      failed_.push_back(
          {line, format("there is no rank '{}' among the {} of this job", rest, size_)});
    } else {
      ends_[line] = {peer, 0};
      post(ends_[line], line, kCall, nullptr);
    }
    wake();
  }

  void write(LineId line, FrameBytes frame) override {
    const auto found = ends_.find(line);
    if (found == ends_.end() || found->second.their_line == 0) return;
    post(found->second, line, kFrame, std::move(frame));
    wake();
  }

  void hang_up(LineId line) override {
    const auto found = ends_.find(line);
    if (found == ends_.end()) return;
    post(found->second, line, kGone, nullptr);
    ends_.erase(found);
  }

  void poll(std::unique_lock<std::mutex>& lock, Instant until) override {
    Duration nap = microseconds(50);
    const Instant begin = steady_now();
    while (true) {
      for (auto& [line, reason] : std::exchange(failed_, {})) {
        events_.line_down(line, LineEnd::kDenied, std::move(reason));
      }
      start_sends();
      reap();
      bool received = false;
      for (int i = 0; i < 64 && receive(); ++i) received = true;
      const Instant now = steady_now();
      if (received) last_message_ = now;
      if (received || woken_ || now >= until) break;
      if (now < last_message_ + kYieldFor || now < begin + microseconds(10)) {
        lock.unlock();
        ::sched_yield();
        lock.lock();
        continue;
      }
      const Duration rest = std::min(nap, until - now);
      bell_.wait_for(lock, std::chrono::nanoseconds(rest.value), [this] { return woken_; });
      nap = std::min(nap * 2, kLongestNap);
    }
    woken_ = false;
  }

  void wake() override {
    woken_ = true;
    bell_.notify_one();
  }

 private:
  struct End {
    int peer;             // rank
    uint64_t their_line;  // 0: not answered yet
  };
  struct Outgoing {
    int peer;
    std::vector<uint8_t> bytes;  // until the request is done
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void post(const End& end, LineId line, What what, FrameBytes frame) {
    const Envelope envelope{end.their_line, line, what, 0};
    Outgoing out{end.peer, {}, MPI_REQUEST_NULL};
    out.bytes.resize(sizeof envelope + (frame ? frame->size() : 0));
    std::memcpy(out.bytes.data(), &envelope, sizeof envelope);
    if (frame) std::memcpy(out.bytes.data() + sizeof envelope, frame->data(), frame->size());
    waiting_.push_back(std::move(out));
    // Only the I/O thread may be inside MPI while others wait for the lock; under it anybody may.
    start_sends();
  }

  void start_sends() {
    while (!waiting_.empty()) {
      sending_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
      Outgoing& out = sending_.back();
      ::MPI_Isend(out.bytes.data(), static_cast<int>(out.bytes.size()), MPI_BYTE, out.peer, kTag,
                  comm_, &out.request);
    }
  }

  void reap() {
    for (auto at = sending_.begin(); at != sending_.end();) {
      int done = 0;
      ::MPI_Test(&at->request, &done, MPI_STATUS_IGNORE);
      at = done != 0 ? sending_.erase(at) : std::next(at);
    }
  }

  bool receive() {
    int there = 0;
    MPI_Status status;
    MPI_Message message;
    ::MPI_Improbe(MPI_ANY_SOURCE, kTag, comm_, &there, &message, &status);
    if (there == 0) return false;
    int size = 0;
    ::MPI_Get_count(&status, MPI_BYTE, &size);
    std::vector<uint8_t> bytes(static_cast<size_t>(std::max(size, 0)));
    ::MPI_Mrecv(bytes.data(), size, MPI_BYTE, &message, MPI_STATUS_IGNORE);
    if (bytes.size() >= sizeof(Envelope)) handle(status.MPI_SOURCE, bytes);
    return true;
  }

  void handle(int source, std::span<const uint8_t> bytes) {
    Envelope envelope;
    std::memcpy(&envelope, bytes.data(), sizeof envelope);
    if (envelope.what == kCall) {
      const LineId line = kInboundLine | ++last_inbound_;
      const End end{source, envelope.from_line};
      if (!listening_) return post(end, line, kGone, nullptr);
      ends_[line] = end;
      post(end, line, kAnswer, nullptr);
      return events_.line_up(line);
    }
    const LineId line = envelope.to_line;
    const auto found = ends_.find(line);
    if (found == ends_.end() || found->second.peer != source) {
      if (envelope.what == kAnswer) post({source, envelope.from_line}, 0, kGone, nullptr);
      return;
    }
    if (envelope.what == kAnswer) {
      found->second.their_line = envelope.from_line;
      return events_.line_up(line);
    }
    if (envelope.what == kGone) {
      const bool answered = found->second.their_line != 0;
      ends_.erase(found);
      return events_.line_down(line, answered ? LineEnd::kLost : LineEnd::kRefused,
                               answered ? "the peer hung up" : "that rank does not listen");
    }
    Result<RawFrame> frame = decode_frame(bytes.subspan(sizeof envelope), max_frame_);
    if (frame) return events_.line_frame(line, std::move(*frame));
    post(found->second, line, kGone, nullptr);
    ends_.erase(found);
    events_.line_down(line, LineEnd::kCorrupt, frame.error().message());
  }

  const uint32_t max_frame_;
  WireEvents& events_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 0;
  bool listening_ = false, woken_ = false;
  std::condition_variable bell_;
  std::map<LineId, End> ends_;
  std::vector<std::pair<LineId, std::string>> failed_;  // dials to report in the next poll()
  std::deque<Outgoing> waiting_;
  std::list<Outgoing> sending_;  // MPI holds pointers into these
  uint64_t last_inbound_ = 0;
  Instant last_message_;
};

}  // namespace

Result<std::unique_ptr<Wire>> make_mpi_wire(const TransportOptions& options, WireEvents& events) {
  auto wire = std::make_unique<MpiWire>(options, events);
  TRY(wire->start());
  return std::unique_ptr<Wire>(std::move(wire));
}

}  // namespace towline::net
