// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// BroadcastRing: one writer to all ranks of a machine, and their answers back, in one shared memory.
//
//   writer (the node's agent)                 reader r (a rank: process or thread)
//     publish(parts)  ----- messages ----->     next() ... release()
//     acks(), results  <--- ack words -----     ack({sequence, status, hash})
//     next_result(r)   <--- return ring ---     put_result(parts)
//
// The idea: messages lie contiguous in an arena used as a circle (from its beginning again whenever
// all readers have caught up, so that steps in lock step stay in cache), described by a few slots.
// Each reader has a cursor in a cache line of its own; the slowest living one bounds the writer, so
// nothing is overwritten and nothing is queued without bound. There is no lock that a killed process
// could hold. A message is read in place: no copy but the writer's.
//
// Waiting: every wait ends on what it waits for, on close(), on the death of those it waits for, or
// at its deadline, whichever is first. A waiter yields for a short while (WaitPolicy), then sleeps
// on a futex; it never spins, and an idle ring costs nothing (10 look-ups a second that the other
// side still lives). A writer that waits for all readers is woken once, by the last of them. Waking
// a sleeper is dear for the waker too (on a virtual machine an interrupt to another core is 10 to 20
// us), so a patient writer that knows when the answer is due sets its own alarm (Patience).
//
// Threads: one thread writes; one thread per reader index reads. A second thread may be in wait_acks()
// while the first publishes with kNoWait and takes results. close(), mark_dead() and poke() may
// be called from any thread that holds a RingWriter or RingReader of this ring.
//
// Death: whoever sees a process die (pidfd, waitpid) calls mark_dead(); a reader also notices by
// itself, within 100 ms, that the writer's process does not exist any more. Not meant against a
// hostile process: all ranks are the same binary and user.
//
// Shape and rules follow reference design notes for vLLM's and xLLM's shared-memory broadcast, with
// their reported faults designed out (docs/net.md lists them).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "net/clock.hpp"
#include "net/shm_region.hpp"

namespace towline::net {

inline constexpr int kMaxRingReaders = 64;

// How long a waiter yields the processor before it sleeps. Yielding makes answers within this time
// cheap (no wake-up), but is wasted on longer waits, and when others want the core it gives away a
// whole time slice. So each end learns: a yield phase that did not pay is left out of the next 1, 3,
// 7, ... 63 waits.
struct WaitPolicy {
  Duration yield_for = microseconds(-1);  // negative: 50 us, or none on a single core
};
Duration yield_of(const WaitPolicy& policy);
struct YieldPhase {
  Duration yield_for;
  int penalty = 0, skip = 0;
  bool wanted();
  void learn(bool paid);
};

struct RingOptions {
  int readers = 1;                    // 1 .. kMaxRingReaders
  uint32_t slots = 8;                 // messages in flight, 2 .. 1024
  uint64_t arena_bytes = 64u << 20;   // longest message is this, less 64; pages cost when touched
  uint64_t return_bytes = 4u << 20;   // per reader; a longer result passes in pieces
  WaitPolicy wait;
};

// What a reader says about a message it has dealt with.
struct Ack {
  uint64_t sequence = 0;  // of the message, 1, 2, 3, ...
  uint32_t status = 0;    // 0: done; else the reader's error code
  uint64_t hash = 0;      // of its state afterwards
  uint32_t work_us = 0;   // microseconds that its work proper took, for measurements
  Instant at{};           // when it was given; set by ack()
};

// How soon a writer must know of an ack.
enum class Patience {
  kNone,  // at once
  // The readers have more to do. They need not stop to wake a writer that looks by itself within 500
  // us; it does 300 us after the time that the last message took has passed again.
  kSome,
};

namespace ring_detail {
struct Layout;
}

// What both ends can do. Copies nothing; keeps the region mapped.
class RingEnd {
 public:
  // Ends the ring for all: every wait returns kUnavailable. Any thread; idempotent.
  void close();
  bool closed() const;
  // The reader is gone: nobody waits for it any more.
  void mark_dead(int reader);
  uint64_t dead_mask() const;
  int readers() const;
  // All living readers have acknowledged `sequence`.
  bool all_acked(uint64_t sequence) const;
  // A word for collectives and long computations to look at: raised to abandon what is under way.
  void raise_abort(uint64_t epoch);
  uint64_t aborted_epoch() const;
  // To hand on to a child process (RingReader::attach there).
  int fd() const { return region_->fd(); }

 protected:
  explicit RingEnd(std::shared_ptr<ShmRegion> region);
  ring_detail::Layout& shared() const;
  std::shared_ptr<ShmRegion> region_;
  YieldPhase yields_;
};

class RingReader;

class RingWriter : public RingEnd {
 public:
  static Result<std::unique_ptr<RingWriter>> create(const RingOptions& options);
  // The one writer is another process than the ring's creator, who then only closes it: `fd` is the
  // creator's fd(), owned by the writer from now on. Before anything is published.
  static Result<std::unique_ptr<RingWriter>> attach(int fd, WaitPolicy wait = {});
  ~RingWriter();  // close()
  RingWriter(const RingWriter&) = delete;
  RingWriter& operator=(const RingWriter&) = delete;

  // The end of a reader that is a thread of this process.
  std::unique_ptr<RingReader> reader(int index);

  // Sends the concatenation of `parts` to all living readers; returns its sequence number. Waits for
  // room until `deadline` (kDeadline). kUnavailable: closed, or all readers are dead.
  // kInvalidArgument: longer than the arena.
  Result<uint64_t> publish(std::span<const std::span<const uint8_t>> parts, Deadline deadline);
  uint64_t published() const;

  // Waits until every living reader has acknowledged `sequence`, one has acknowledged with a status
  // other than 0, one has died, a return ring is full, or poke(); then the caller looks.
  // False: `deadline` passed or the ring is closed.
  bool wait_acks(uint64_t sequence, Deadline deadline, Patience patience = Patience::kNone);
  uint64_t acked(int reader) const;  // sequence of its last ack
  // Its ack of that message, if given and not older than the last 16.
  std::optional<Ack> ack_of(int reader, uint64_t sequence) const;
  // The first ack with a status other than 0 since the last call; wait_acks() returns at once until
  // it has been taken. (status ~0: so long ago that it is not known any more)
  std::optional<Ack> take_failure(int reader);
  // Ends a wait_acks() in progress, or the next one. Any thread (an Inbox's doorbell).
  void poke();

  // The next whole result of a reader, if there is one. A result is visible no later than the ack
  // that follows it.
  std::optional<std::vector<uint8_t>> next_result(int reader);

 private:
  explicit RingWriter(std::shared_ptr<ShmRegion> region, Duration yield_for);
  Result<uint64_t> place(uint64_t bytes, Deadline deadline);
  uint64_t slowest_cursor() const;
  bool wait_for_cursors(uint64_t sequence, Deadline deadline);
  void note_done(uint64_t sequence);
  Instant due(uint64_t sequence) const;

  struct InFlight {
    uint64_t sequence, begin, end;  // arena bytes
  };
  std::vector<InFlight> in_flight_;  // in order of sequence
  uint64_t arena_next_ = 0;
  // When steps begin and end, of whoever calls wait_acks().
  struct Done {
    uint64_t sequence = 0;
    Instant at{};
    Duration took{};  // from when its readers had both the message and time for it
  };
  Done done_;
  struct Partial {
    std::vector<uint8_t> bytes;
    uint64_t expected = 0;
    bool active = false;
  };
  std::vector<Partial> partial_;  // per reader, a result that is coming in
};

class RingReader : public RingEnd {
 public:
  // In another process: `fd` is the writer's fd(), owned by the reader from now on.
  static Result<std::unique_ptr<RingReader>> attach(int fd, int index, WaitPolicy wait = {});
  RingReader(const RingReader&) = delete;
  RingReader& operator=(const RingReader&) = delete;

  // The next message, in place and valid until release(). Messages published before a close() are
  // still delivered. kUnavailable: closed or the writer is gone. kDeadline: nothing came.
  Result<std::span<const uint8_t>> next(Deadline deadline);
  // Sequence number of the message that next() returned last.
  uint64_t sequence() const { return sequence_; }
  // The bytes are not needed any more. next() releases the one before by itself.
  void release();

  // After dealing with a message (released or not). Sequences must not go down.
  void ack(const Ack& ack);
  // Sends a result to the writer; waits while its ring is full.
  Result<void> put_result(std::span<const std::span<const uint8_t>> parts, Deadline deadline);

 private:
  friend class RingWriter;
  RingReader(std::shared_ptr<ShmRegion> region, int index, Duration yield_for);
  bool writer_gone() const;
  Result<void> put_bytes(std::span<const uint8_t> bytes, Deadline deadline);
  void wake_writer(bool always);

  const int index_;
  uint64_t sequence_ = 0;
  bool held_ = false;
};

}  // namespace towline::net
