// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/broadcast_ring.hpp"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "net/futex.hpp"

namespace towline::net {
namespace ring_detail {

constexpr uint64_t kMagic = 0x31474e4952574c54;  // "TLWRING1"
constexpr uint64_t kLine = 64;                   // a cache line
constexpr uint32_t kMaxSlots = 1024;
constexpr uint64_t kAckHistory = 16;

// An Ack as it lies in memory; `sequence` is 0 while the others change.
struct AckCell {
  std::atomic<uint64_t> sequence{0};
  std::atomic<uint64_t> hash{0};
  std::atomic<uint32_t> status{0};
  std::atomic<uint32_t> work_us{0};
  std::atomic<int64_t> at_ns{0};
};

// One reader's words. Written by the reader except `returned_out` and `space_word`.
struct alignas(kLine) ReaderLine {
  std::atomic<uint64_t> cursor{0};  // messages up to this one are not needed any more
  std::atomic<uint64_t> acked{0};   // sequence of the last Ack
  std::atomic<uint64_t> returned_in{0};  // bytes ever put into the return ring
  std::atomic<uint64_t> failed{0};  // sequence of the first Ack with a status; the writer clears it
  AckCell ack[kAckHistory];         // by sequence
  // The return ring's other side.
  alignas(kLine) std::atomic<uint64_t> returned_out{0};  // bytes ever taken out
  std::atomic<uint32_t> space_word{0};                   // the reader sleeps here for room
  std::atomic<uint32_t> space_waiting{0};
};

struct Slot {
  uint64_t offset;  // in the arena
  uint64_t length;
  std::atomic<int64_t> published_ns;
};

// What the writer is asleep for.
enum WriterWant : uint32_t { kAwake = 0, kCursors = 1, kAcks = 2 };

struct Layout {
  // Constant after creation.
  uint64_t magic;
  uint32_t readers, slots;
  uint64_t arena_bytes, return_bytes;
  uint64_t return_at, arena_at;  // offsets in the region
  std::atomic<int32_t> writer_pid;  // changes once, if the writer is not the creator

  alignas(kLine) std::atomic<uint32_t> closed;
  std::atomic<uint64_t> dead_mask;
  std::atomic<uint64_t> aborted_epoch;

  alignas(kLine) std::atomic<uint64_t> head;  // the last message published
  alignas(kLine) std::atomic<uint32_t> reader_word;  // readers sleep here
  std::atomic<uint32_t> readers_waiting;

  alignas(kLine) std::atomic<uint32_t> writer_word;  // the writer sleeps here
  std::atomic<uint32_t> writer_want;                 // WriterWant
  std::atomic<uint64_t> writer_target;               // sequence it wants
  std::atomic<int64_t> writer_alarm_ns;              // it looks by itself then; 0: it will not
  std::atomic<uint32_t> poked;

  alignas(kLine) ReaderLine reader[kMaxRingReaders];
  Slot slot[kMaxSlots];

  bool dead(int r) const { return (dead_mask.load(std::memory_order_acquire) >> r & 1) != 0; }
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace ring_detail

namespace {

using ring_detail::AckCell;
using ring_detail::Layout;
using ring_detail::ReaderLine;
using ring_detail::Slot;

constexpr Duration kNap = milliseconds(100);  // belt and braces: nobody sleeps longer unseen
// Steps shorter than this are not worth an alarm: timers are late by up to 100 us.
constexpr Duration kShortStep = milliseconds(1);
// After an answer is due: to find it there, and its reader at the next message. If both woke at the
// same instant they would want the same caches, and often the same processor.
constexpr Duration kAlarmLate = microseconds(300);
constexpr Duration kAlarmSoon = microseconds(500);  // an alarm this near need not be forestalled

uint64_t round_up(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }

Error closed_error() { return Error(Code::kUnavailable, "the ring is closed"); }

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void wake_readers(Layout& s) {
  if (s.readers_waiting.load(std::memory_order_seq_cst) == 0) return;
  s.reader_word.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_all(s.reader_word);
}

void wake_writer_now(Layout& s) {
  s.writer_word.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_all(s.writer_word);
}

void wake_everyone(Layout& s) {
  s.reader_word.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_all(s.reader_word);
  wake_writer_now(s);
  for (uint32_t r = 0; r < s.readers; ++r) {
    s.reader[r].space_word.fetch_add(1, std::memory_order_seq_cst);
    futex_wake_all(s.reader[r].space_word);
  }
}

// True when every living reader's word (cursor or acked) has reached `sequence`.
template <class Word>
bool all_reached(const Layout& s, uint64_t sequence, Word&& word) {
  const uint64_t dead = s.dead_mask.load(std::memory_order_acquire);
  for (uint32_t r = 0; r < s.readers; ++r) {
    if ((dead >> r & 1) == 0 && word(s.reader[r]).load(std::memory_order_seq_cst) < sequence) {
      return false;
    }
  }
  return true;
}
const auto kCursorOf = [](const ReaderLine& r) -> const std::atomic<uint64_t>& { return r.cursor; };
const auto kAckOf = [](const ReaderLine& r) -> const std::atomic<uint64_t>& { return r.acked; };

// Sleeps on `word` until ready() or the deadline. Returns ready().
template <class Ready, class Announce, class Withdraw>
bool sleep_until(std::atomic<uint32_t>& word, Deadline deadline, Ready&& ready, Announce&& announce,
                 Withdraw&& withdraw) {
  while (true) {
    const uint32_t seen = word.load(std::memory_order_seq_cst);
    announce();
    const bool now_ready = ready();
    const Instant now = now_ready ? Instant{0} : steady_now();
    if (!now_ready && now < deadline) futex_wait(word, seen, std::min(deadline, now + kNap));
    withdraw();
    if (ready()) return true;
    if (steady_now() >= deadline) return false;
  }
}

// Yields for a while (if that has paid lately), then sleeps on `word`, until ready() or the
// deadline. `announce` and `withdraw` tell the waking side that it has to change the word. Returns
// ready().
template <class Ready, class Announce, class Withdraw>
bool wait_on(std::atomic<uint32_t>& word, YieldPhase& yields, Deadline deadline, Ready&& ready,
             Announce&& announce, Withdraw&& withdraw) {
  if (ready()) return true;
  if (deadline == kNoWait) return false;
  if (yields.wanted()) {
    const Instant until = std::min(deadline, steady_now() + yields.yield_for);
    Instant now = steady_now();
    bool came = false;
    while (!came && now < until) {
      ::sched_yield();
      came = ready();
      now = steady_now();
    }
    yields.learn(came && now <= until + yields.yield_for * 2);
    if (came) return true;
  }
  return sleep_until(word, deadline, ready, announce, withdraw);
}

// The ring behind an inherited descriptor; checks that it is one.
Result<std::shared_ptr<ShmRegion>> region_of_ring(int fd) {
  ASSIGN_OR_RETURN(ShmRegion region, ShmRegion::attach(fd, sizeof(Layout)));
  const auto& s = *reinterpret_cast<const Layout*>(region.bytes().data());
  const uint64_t size = region.bytes().size();
  if (s.magic != ring_detail::kMagic || s.readers > static_cast<uint32_t>(kMaxRingReaders) ||
      s.slots < 2 || s.slots > ring_detail::kMaxSlots || s.arena_at > size ||
      s.arena_bytes > size - s.arena_at || !std::has_single_bit(s.return_bytes) ||
      s.return_at > s.arena_at || s.return_bytes > (s.arena_at - s.return_at) / s.readers) {
    return errorf(Code::kDataCorrupt, "descriptor {} is not a ring of this build", fd);
  }
  return std::make_shared<ShmRegion>(std::move(region));
}

}  // namespace

bool YieldPhase::wanted() {
  if (yield_for <= Duration(0)) return false;
  if (skip == 0) return true;
  --skip;
  return false;
}

void YieldPhase::learn(bool paid) {
  penalty = paid ? 0 : std::min(penalty * 2 + 1, 63);
  skip = penalty;
}

Duration yield_of(const WaitPolicy& policy) {
  if (policy.yield_for >= Duration(0)) return policy.yield_for;
  return usable_cores() > 1 ? microseconds(50) : Duration(0);
}

// --- both ends
// -------------------------------------------------------------------------------------

RingEnd::RingEnd(std::shared_ptr<ShmRegion> region) : region_(std::move(region)) {}

Layout& RingEnd::shared() const { return *reinterpret_cast<Layout*>(region_->bytes().data()); }

void RingEnd::close() {
  shared().closed.store(1, std::memory_order_seq_cst);
  wake_everyone(shared());
}
bool RingEnd::closed() const { return shared().closed.load(std::memory_order_acquire) != 0; }

void RingEnd::mark_dead(int reader) {
  CHECK(reader >= 0 && reader < readers(), reader);
  shared().dead_mask.fetch_or(uint64_t{1} << reader, std::memory_order_seq_cst);
  wake_everyone(shared());
}
uint64_t RingEnd::dead_mask() const { return shared().dead_mask.load(std::memory_order_acquire); }
int RingEnd::readers() const { return static_cast<int>(shared().readers); }
bool RingEnd::all_acked(uint64_t sequence) const {
  return all_reached(shared(), sequence, kAckOf);
}

void RingEnd::raise_abort(uint64_t epoch) {
  std::atomic<uint64_t>& word = shared().aborted_epoch;
  uint64_t seen = word.load();
  while (seen < epoch && !word.compare_exchange_weak(seen, epoch)) {
  }
  wake_everyone(shared());
}
uint64_t RingEnd::aborted_epoch() const {
  return shared().aborted_epoch.load(std::memory_order_acquire);
}

// --- the writer
// --------------------------------------------------------------------------------------

Result<std::unique_ptr<RingWriter>> RingWriter::create(const RingOptions& options) {
  if (options.readers < 1 || options.readers > kMaxRingReaders || options.slots < 2 ||
      options.slots > ring_detail::kMaxSlots || options.arena_bytes < 4096 ||
      options.return_bytes < 64) {
    return errorf(Code::kInvalidArgument,
                  "a ring has 1 to {} readers, 2 to {} slots, an arena of at least 4096 bytes and "
                  "return rings of at least 64", kMaxRingReaders, ring_detail::kMaxSlots);
  }
  const uint64_t return_bytes = std::bit_ceil(options.return_bytes);
  const uint64_t arena_bytes = round_up(options.arena_bytes, 4096);
  const uint64_t return_at = round_up(sizeof(Layout), 4096);
  const uint64_t arena_at = round_up(return_at + return_bytes * options.readers, 4096);
  ASSIGN_OR_RETURN(ShmRegion region, ShmRegion::create("towline-ring", arena_at + arena_bytes));
  auto* s = new (region.bytes().data()) Layout{};  // lives and dies with the region
  s->readers = static_cast<uint32_t>(options.readers);
  s->slots = options.slots;
  s->arena_bytes = arena_bytes;
  s->return_bytes = return_bytes;
  s->return_at = return_at;
  s->arena_at = arena_at;
  s->writer_pid = ::getpid();
  s->magic = ring_detail::kMagic;
  return std::unique_ptr<RingWriter>(
      new RingWriter(std::make_shared<ShmRegion>(std::move(region)), yield_of(options.wait)));
}

Result<std::unique_ptr<RingWriter>> RingWriter::attach(int fd, WaitPolicy wait) {
  ASSIGN_OR_RETURN(std::shared_ptr<ShmRegion> region, region_of_ring(fd));
  auto& s = *reinterpret_cast<Layout*>(region->bytes().data());
  s.writer_pid.store(::getpid(), std::memory_order_relaxed);
  return std::unique_ptr<RingWriter>(new RingWriter(std::move(region), yield_of(wait)));
}

RingWriter::RingWriter(std::shared_ptr<ShmRegion> region, Duration yield_for)
    : RingEnd(std::move(region)) {
  yields_.yield_for = yield_for;
  partial_.resize(shared().readers);
}

RingWriter::~RingWriter() { close(); }

std::unique_ptr<RingReader> RingWriter::reader(int index) {
  CHECK(index >= 0 && index < readers(), index);
  return std::unique_ptr<RingReader>(new RingReader(region_, index, yields_.yield_for));
}

uint64_t RingWriter::published() const { return shared().head.load(std::memory_order_acquire); }

uint64_t RingWriter::slowest_cursor() const {
  const Layout& s = shared();
  const uint64_t dead = dead_mask();
  uint64_t slowest = s.head.load(std::memory_order_relaxed);
  for (uint32_t r = 0; r < s.readers; ++r) {
    if ((dead >> r & 1) == 0) {
      slowest = std::min(slowest, s.reader[r].cursor.load(std::memory_order_acquire));
    }
  }
  return slowest;
}

bool RingWriter::wait_for_cursors(uint64_t sequence, Deadline deadline) {
  Layout& s = shared();
  return wait_on(
      s.writer_word, yields_, deadline,
      [&] { return all_reached(s, sequence, kCursorOf) || closed(); },
      [&] {
        s.writer_target.store(sequence, std::memory_order_relaxed);
        s.writer_want.store(ring_detail::kCursors, std::memory_order_seq_cst);
      },
      [&] { s.writer_want.store(ring_detail::kAwake, std::memory_order_relaxed); });
}

// Where `bytes` contiguous bytes of the arena are free, waiting for readers to let go of them.
Result<uint64_t> RingWriter::place(uint64_t bytes, Deadline deadline) {
  Layout& s = shared();
  while (true) {
    const uint64_t slowest = slowest_cursor();
    std::erase_if(in_flight_, [&](const InFlight& m) { return m.sequence <= slowest; });
    if (in_flight_.empty()) arena_next_ = 0;
    if (in_flight_.size() < s.slots) {
      const uint64_t oldest = in_flight_.empty() ? s.arena_bytes : in_flight_.front().begin;
      const bool wrapped = !in_flight_.empty() && arena_next_ <= oldest;
      if (wrapped ? arena_next_ + bytes < oldest : arena_next_ + bytes <= s.arena_bytes) {
        return arena_next_;
      }
      if (!wrapped && bytes < oldest) return uint64_t{0};
    }
    if (closed()) return closed_error();
    if (!wait_for_cursors(in_flight_.front().sequence, deadline)) {
      return errorf(Code::kDeadline, "{} messages wait for the slowest reader", in_flight_.size());
    }
    if (closed()) return closed_error();
  }
}

Result<uint64_t> RingWriter::publish(std::span<const std::span<const uint8_t>> parts,
                                     Deadline deadline) {
  Layout& s = shared();
  uint64_t bytes = 0;
  for (const auto part : parts) bytes += part.size();
  if (bytes + ring_detail::kLine > s.arena_bytes) {
    return errorf(Code::kInvalidArgument, "a message of {} bytes does not fit the ring's {}", bytes,
                  s.arena_bytes);
  }
  if (closed()) return closed_error();
  if (std::popcount(dead_mask()) == readers()) {
    return Error(Code::kUnavailable, "all readers of the ring are dead");
  }
  const uint64_t room = std::max(round_up(bytes, ring_detail::kLine), ring_detail::kLine);
  ASSIGN_OR_RETURN(const uint64_t at, place(room, deadline));
  uint8_t* to = region_->bytes().data() + s.arena_at + at;
  for (const auto part : parts) {
    if (!part.empty()) std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
  const uint64_t sequence = s.head.load(std::memory_order_relaxed) + 1;
  Slot& slot = s.slot[sequence % s.slots];
  slot.offset = at;
  slot.length = bytes;
  slot.published_ns.store(steady_now().ns, std::memory_order_relaxed);
  in_flight_.push_back({sequence, at, at + room});
  arena_next_ = at + room;
  s.head.store(sequence, std::memory_order_seq_cst);
  wake_readers(s);
  return sequence;
}

// The readers are done with a message: how long did that take?
void RingWriter::note_done(uint64_t sequence) {
  const Layout& s = shared();
  if (sequence == done_.sequence) return;
  Done done{sequence, {}, {}};
  for (int r = 0; r < readers(); ++r) {
    if (const std::optional<Ack> ack = ack_of(r, sequence)) done.at = std::max(done.at, ack->at);
  }
  Instant begin{s.slot[sequence % s.slots].published_ns.load(std::memory_order_relaxed)};
  if (done_.sequence + 1 == sequence) begin = std::max(begin, done_.at);
  done.took = done.at - begin;
  done_ = done;
}

// When a message's answer is due, if it takes as long as the last one; 0: it cannot be said.
Instant RingWriter::due(uint64_t sequence) const {
  const Layout& s = shared();
  if (done_.sequence + 1 != sequence || done_.took < kShortStep) return Instant{0};
  const Instant published{s.slot[sequence % s.slots].published_ns.load(std::memory_order_relaxed)};
  return std::max(published, done_.at) + done_.took;
}

bool RingWriter::wait_acks(uint64_t sequence, Deadline deadline, Patience patience) {
  Layout& s = shared();
  const uint64_t dead_before = dead_mask();
  const auto look = [&] {
    if (closed() || dead_mask() != dead_before || s.poked.load(std::memory_order_seq_cst) != 0 ||
        all_reached(s, sequence, kAckOf)) {
      return true;
    }
    for (uint32_t r = 0; r < s.readers; ++r) {
      if (s.reader[r].failed.load(std::memory_order_seq_cst) != 0 ||
          s.reader[r].space_waiting.load(std::memory_order_seq_cst) != 0) {
        return true;
      }
    }
    return false;
  };
  const auto announce = [&] {
    s.writer_target.store(sequence, std::memory_order_relaxed);
    s.writer_want.store(ring_detail::kAcks, std::memory_order_seq_cst);
  };
  const auto withdraw = [&] {
    s.writer_want.store(ring_detail::kAwake, std::memory_order_relaxed);
  };
  bool seen = look();
  const bool patient = patience == Patience::kSome && !seen && deadline != kNoWait;
  if (const Instant answer = patient ? due(sequence) : Instant{0}; answer.ns != 0) {
    const Instant alarm = std::min(deadline, answer + kAlarmLate);
    s.writer_alarm_ns.store(alarm.ns, std::memory_order_seq_cst);
    seen = sleep_until(s.writer_word, alarm, look, announce, withdraw);
    s.writer_alarm_ns.store(0, std::memory_order_seq_cst);
  }
  seen = seen || wait_on(s.writer_word, yields_, deadline, look, announce, withdraw);
  s.poked.store(0, std::memory_order_seq_cst);
  if (all_acked(sequence)) note_done(sequence);
  return seen && !closed();
}

void RingWriter::poke() {
  Layout& s = shared();
  if (s.poked.exchange(1, std::memory_order_seq_cst) != 0) return;
  if (s.writer_want.load(std::memory_order_seq_cst) != ring_detail::kAwake) wake_writer_now(s);
}

uint64_t RingWriter::acked(int reader) const {
  return shared().reader[reader].acked.load(std::memory_order_acquire);
}

std::optional<Ack> RingWriter::ack_of(int reader, uint64_t sequence) const {
  const AckCell& cell = shared().reader[reader].ack[sequence % ring_detail::kAckHistory];
  if (cell.sequence.load(std::memory_order_acquire) != sequence) return std::nullopt;
  const Ack ack{sequence, cell.status.load(std::memory_order_acquire),
                cell.hash.load(std::memory_order_acquire),
                cell.work_us.load(std::memory_order_acquire),
                Instant{cell.at_ns.load(std::memory_order_acquire)}};
  if (cell.sequence.load(std::memory_order_relaxed) != sequence) return std::nullopt;
  return ack;
}

std::optional<Ack> RingWriter::take_failure(int reader) {
  const uint64_t sequence = shared().reader[reader].failed.exchange(0, std::memory_order_seq_cst);
  if (sequence == 0) return std::nullopt;
  return ack_of(reader, sequence).value_or(Ack{sequence, ~0u, 0, 0, {}});
}

std::optional<std::vector<uint8_t>> RingWriter::next_result(int reader) {
  Layout& s = shared();
  ReaderLine& line = s.reader[reader];
  Partial& partial = partial_[reader];
  const uint8_t* ring = region_->bytes().data() + s.return_at + s.return_bytes * reader;
  uint64_t out = line.returned_out.load(std::memory_order_relaxed);
  const uint64_t before = out;
  const auto take = [&](uint8_t* to, uint64_t n) {
    for (uint64_t done = 0; done < n;) {
      const uint64_t at = (out + done) & (s.return_bytes - 1);
      const uint64_t run = std::min(n - done, s.return_bytes - at);
      std::memcpy(to + done, ring + at, run);
      done += run;
    }
    out += n;
  };
  bool whole = false;
  uint64_t available = line.returned_in.load(std::memory_order_acquire) - out;
  if (!partial.active && available >= 8) {
    take(reinterpret_cast<uint8_t*>(&partial.expected), 8);
    partial.active = true;
    available -= 8;
  }
  if (partial.active) {
    const uint64_t have = partial.bytes.size();
    const uint64_t n = std::min(available, partial.expected - have);
    partial.bytes.resize(have + n);
    if (n > 0) take(partial.bytes.data() + have, n);
    whole = partial.bytes.size() == partial.expected;
  }
  if (out != before) {
    line.returned_out.store(out, std::memory_order_seq_cst);
    if (line.space_waiting.load(std::memory_order_seq_cst) != 0) {
      line.space_word.fetch_add(1, std::memory_order_seq_cst);
      futex_wake_all(line.space_word);
    }
  }
  if (!whole) return std::nullopt;
  partial.active = false;
  return std::exchange(partial.bytes, {});
}

// --- a reader
// ----------------------------------------------------------------------------------------

Result<std::unique_ptr<RingReader>> RingReader::attach(int fd, int index, WaitPolicy wait) {
  ASSIGN_OR_RETURN(std::shared_ptr<ShmRegion> region, region_of_ring(fd));
  const auto& s = *reinterpret_cast<const Layout*>(region->bytes().data());
  if (index < 0 || index >= static_cast<int>(s.readers)) {
    return errorf(Code::kInvalidArgument, "the ring has readers 0 to {}, not {}", s.readers - 1,
                  index);
  }
  return std::unique_ptr<RingReader>(new RingReader(std::move(region), index, yield_of(wait)));
}

RingReader::RingReader(std::shared_ptr<ShmRegion> region, int index, Duration yield_for)
    : RingEnd(std::move(region)), index_(index) {
  yields_.yield_for = yield_for;
  sequence_ = shared().reader[index_].cursor.load(std::memory_order_acquire);
}

bool RingReader::writer_gone() const {
  return ::kill(shared().writer_pid, 0) != 0 && errno == ESRCH;
}

Result<std::span<const uint8_t>> RingReader::next(Deadline deadline) {
  release();
  Layout& s = shared();
  const uint64_t want = sequence_ + 1;
  const auto there = [&] { return s.head.load(std::memory_order_seq_cst) >= want; };
  const auto over = [&] { return closed() || s.dead(index_); };
  while (true) {
    if (s.dead(index_)) return Error(Code::kUnavailable, "this reader was declared dead");
    if (there()) break;
    if (closed()) {
      if (there()) break;  // published before the close
      return closed_error();
    }
    const Instant nap = deadline == kNoWait ? kNoWait : std::min(deadline, steady_now() + kNap);
    const bool ready = wait_on(
        s.reader_word, yields_, nap, [&] { return there() || over(); },
        [&] { s.readers_waiting.fetch_add(1, std::memory_order_seq_cst); },
        [&] { s.readers_waiting.fetch_sub(1, std::memory_order_seq_cst); });
    if (ready) continue;
    if (nap == deadline) return Error(Code::kDeadline, "no message on the ring in time");
    if (writer_gone()) {
      close();
      return Error(Code::kUnavailable, "the ring's writer is gone");
    }
  }
  const Slot& slot = s.slot[want % s.slots];
  if (slot.offset > s.arena_bytes || slot.length > s.arena_bytes - slot.offset) {
    return Error(Code::kDataCorrupt, "a slot of the ring points outside of it");
  }
  sequence_ = want;
  held_ = true;
  return std::span<const uint8_t>(region_->bytes().data() + s.arena_at + slot.offset, slot.length);
}

void RingReader::wake_writer(bool always) {
  Layout& s = shared();
  const uint32_t want = s.writer_want.load(std::memory_order_seq_cst);
  if (want == ring_detail::kAwake) return;
  // It looks by itself in a moment. (It withdraws the alarm, then looks again: one of us sees.)
  const Instant alarm{s.writer_alarm_ns.load(std::memory_order_seq_cst)};
  if (!always && alarm.ns != 0 && alarm < steady_now() + kAlarmSoon) return;
  const uint64_t target = s.writer_target.load(std::memory_order_relaxed);
  if (always || (want == ring_detail::kCursors ? all_reached(s, target, kCursorOf)
                                               : all_reached(s, target, kAckOf))) {
    wake_writer_now(s);
  }
}

void RingReader::release() {
  if (!held_) return;
  held_ = false;
  Layout& s = shared();
  s.reader[index_].cursor.store(sequence_, std::memory_order_seq_cst);
  if (s.writer_want.load(std::memory_order_seq_cst) == ring_detail::kCursors) wake_writer(false);
}

void RingReader::ack(const Ack& ack) {
  ReaderLine& line = shared().reader[index_];
  AckCell& cell = line.ack[ack.sequence % ring_detail::kAckHistory];
  cell.sequence.store(0, std::memory_order_relaxed);
  cell.status.store(ack.status, std::memory_order_release);
  cell.hash.store(ack.hash, std::memory_order_release);
  cell.work_us.store(ack.work_us, std::memory_order_release);
  cell.at_ns.store(steady_now().ns, std::memory_order_release);
  cell.sequence.store(ack.sequence, std::memory_order_release);
  uint64_t none = 0;
  if (ack.status != 0) line.failed.compare_exchange_strong(none, ack.sequence);
  line.acked.store(ack.sequence, std::memory_order_seq_cst);
  wake_writer(ack.status != 0);
}

Result<void> RingReader::put_bytes(std::span<const uint8_t> bytes, Deadline deadline) {
  Layout& s = shared();
  ReaderLine& line = s.reader[index_];
  uint8_t* ring = region_->bytes().data() + s.return_at + s.return_bytes * index_;
  while (!bytes.empty()) {
    const uint64_t in = line.returned_in.load(std::memory_order_relaxed);
    const auto room = [&] {
      return s.return_bytes - (in - line.returned_out.load(std::memory_order_seq_cst));
    };
    if (room() == 0) {
      line.space_waiting.store(1, std::memory_order_seq_cst);
      wake_writer(true);  // it must make room, whatever it waits for
      const bool ready = wait_on(
          line.space_word, yields_, deadline,
          [&] { return room() > 0 || closed() || s.dead(index_); }, [] {}, [] {});
      line.space_waiting.store(0, std::memory_order_seq_cst);
      if (closed() || s.dead(index_)) return closed_error();
      if (!ready) return Error(Code::kDeadline, "the writer takes no results");
    }
    const uint64_t at = in & (s.return_bytes - 1);
    const uint64_t n = std::min({static_cast<uint64_t>(bytes.size()), room(), s.return_bytes - at});
    std::memcpy(ring + at, bytes.data(), n);
    line.returned_in.store(in + n, std::memory_order_release);
    bytes = bytes.subspan(n);
  }
  return {};
}

Result<void> RingReader::put_result(std::span<const std::span<const uint8_t>> parts,
                                    Deadline deadline) {
  uint64_t total = 0;
  for (const auto part : parts) total += part.size();
  uint8_t head[8];
  std::memcpy(head, &total, 8);
  TRY(put_bytes(head, deadline));
  for (const auto part : parts) TRY(put_bytes(part, deadline));
  return {};
}

}  // namespace towline::net
