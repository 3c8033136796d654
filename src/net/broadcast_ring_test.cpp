// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/broadcast_ring.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <numeric>
#include <thread>

#include "base/for_seeds.hpp"

namespace towline::net {
namespace {

Deadline soon() { return deadline_in(seconds(300)); }  // a bound for the test, never expected

RingOptions ring(int readers, uint32_t slots = 8, uint64_t arena = 1 << 20,
                 uint64_t back = 1 << 16) {
  RingOptions o;
  o.readers = readers;
  o.slots = slots;
  o.arena_bytes = arena;
  o.return_bytes = back;
  return o;
}

// The bytes of message `sequence`: anybody can check them without being told.
std::vector<uint8_t> message_of(uint64_t key, uint64_t sequence, size_t max_bytes) {
  std::vector<uint8_t> bytes(random_at(key, sequence) % (max_bytes + 1));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(random_at(key ^ sequence, i / 8) >> (i % 8 * 8));
  }
  return bytes;
}

Result<uint64_t> publish(RingWriter& writer, const std::vector<uint8_t>& bytes, Deadline deadline) {
  const std::span<const uint8_t> all(bytes);
  const std::span<const uint8_t> parts[] = {all.first(bytes.size() / 3),
                                            all.subspan(bytes.size() / 3)};
  return writer.publish(parts, deadline);
}

uint64_t sum_of(std::span<const uint8_t> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
}

// A rank: reads, checks, answers with the message itself every third time, acknowledges the sum.
// Returns the number of messages, or -1 for a wrong byte.
int64_t run_reader(RingReader& reader, uint64_t key, size_t max_bytes) {
  while (true) {
    Result<std::span<const uint8_t>> message = reader.next(soon());
    if (!message) return static_cast<int64_t>(reader.sequence());
    const std::vector<uint8_t> expected = message_of(key, reader.sequence(), max_bytes);
    if (!std::equal(message->begin(), message->end(), expected.begin(), expected.end())) return -1;
    if (reader.sequence() % 3 == 0) {
      const std::span<const uint8_t> part = *message;
      if (!reader.put_result({&part, 1}, soon())) return static_cast<int64_t>(reader.sequence());
    }
    const uint64_t sum = sum_of(*message);
    if (reader.sequence() % 2 == 0) reader.release();
    reader.ack({reader.sequence(), 0, sum});
  }
}

// Every message reaches every reader whole and in order, through an arena and return rings much
// smaller than what passes, and all answers come back.
TEST(BroadcastRing, AllToAllInSmallSpace) {
  for_seeds(12, [](Rng& rng) {
    const uint64_t key = rng();
    const int readers = 1 + static_cast<int>(rng.below(4));
    const size_t max_bytes = 1000 + rng.below(6000);
    const uint64_t depth = 1 + rng.below(6);
    RingOptions o;
    o.readers = readers;
    o.slots = 2 + static_cast<uint32_t>(rng.below(5));
    o.arena_bytes = 8192 + 4096 * rng.below(3);
    o.return_bytes = 64 << rng.below(8);
    o.wait.yield_for = microseconds(static_cast<int64_t>(rng.below(2) * 20));
    auto writer = *RingWriter::create(o);
    std::vector<std::unique_ptr<RingReader>> ends;
    std::vector<int64_t> seen(readers);
    std::vector<std::thread> threads;
    for (int r = 0; r < readers; ++r) ends.push_back(writer->reader(r));
    for (int r = 0; r < readers; ++r) {
      threads.emplace_back([&, r] { seen[r] = run_reader(*ends[r], key, max_bytes); });
    }
    const uint64_t total = 300;
    std::vector<uint64_t> results(readers);
    const auto drain = [&] {
      for (int r = 0; r < readers; ++r) {
        while (auto result = writer->next_result(r)) {
          results[r] += 3;
          ASSERT_EQ(*result, message_of(key, results[r], max_bytes));
        }
      }
    };
    uint64_t acked = 0;
    const auto wait_for = [&](uint64_t sequence) {
      while (!writer->all_acked(sequence)) {
        ASSERT_TRUE(writer->wait_acks(sequence, soon()));
        drain();
      }
      for (; acked < sequence; ++acked) {
        for (int r = 0; r < readers; ++r) {
          const std::optional<Ack> ack = writer->ack_of(r, acked + 1);
          ASSERT_TRUE(ack);
          ASSERT_EQ(ack->hash, sum_of(message_of(key, acked + 1, max_bytes)));
        }
      }
    };
    for (uint64_t n = 1; n <= total; ++n) {
      Result<uint64_t> sequence = publish(*writer, message_of(key, n, max_bytes), kNoWait);
      while (!sequence) {  // full: readers may be waiting for us to take results
        ASSERT_EQ(sequence.error().code(), Code::kDeadline);
        if (acked + 1 < n) wait_for(acked + 1);
        sequence =
            publish(*writer, message_of(key, n, max_bytes), acked + 1 < n ? kNoWait : soon());
      }
      ASSERT_EQ(*sequence, n);
      if (n > depth) wait_for(n - depth);
    }
    wait_for(total);
    drain();
    writer->close();
    for (std::thread& t : threads) t.join();
    for (int r = 0; r < readers; ++r) {
      EXPECT_EQ(seen[r], static_cast<int64_t>(total));
      EXPECT_EQ(results[r], total / 3 * 3);
    }
  });
}

// Steps long and steady enough to be awaited by alarm, with some that are far too short or too
// long: whoever waits, however patiently, sees every ack and the one failure.
TEST(BroadcastRing, AlarmsMissNothing) {
  for_seeds(4, [](Rng& rng) {
    const int readers = 1 + static_cast<int>(rng.below(2));
    auto writer = *RingWriter::create(ring(readers));
    const uint64_t total = 24, failing = 1 + rng.below(total), key = rng();
    std::vector<std::unique_ptr<RingReader>> ends;
    std::vector<std::thread> threads;
    for (int r = 0; r < readers; ++r) ends.push_back(writer->reader(r));
    for (int r = 0; r < readers; ++r) {
      threads.emplace_back([&, r] {
        while (ends[r]->next(soon())) {
          const uint64_t n = ends[r]->sequence(), odd = random_at(key, n) % 6;
          const Duration work = odd == 0 ? Duration(0) : microseconds(odd == 1 ? 3000 : 1200);
          for (const Instant end = steady_now() + work; steady_now() < end;) {
          }
          ends[r]->ack({n, n == failing && r == 0 ? 7u : 0u, n * 3});
        }
      });
    }
    uint64_t failures = 0;
    const auto wait_for = [&](uint64_t sequence, Patience patience) {
      while (!writer->all_acked(sequence)) {
        ASSERT_TRUE(writer->wait_acks(sequence, soon(), patience));
        if (const auto failure = writer->take_failure(0)) {
          ++failures;
          EXPECT_EQ(failure->sequence, failing);
          EXPECT_EQ(failure->status, 7u);
        }
      }
      for (int r = 0; r < readers; ++r) {
        const std::optional<Ack> ack = writer->ack_of(r, sequence);
        ASSERT_TRUE(ack);
        EXPECT_EQ(ack->hash, sequence * 3);
        EXPECT_GT(ack->at.ns, 0);
      }
    };
    for (uint64_t n = 1; n <= total; ++n) {
      ASSERT_TRUE(publish(*writer, {static_cast<uint8_t>(n)}, soon()));
      if (n > 1) wait_for(n - 1, rng.below(3) == 0 ? Patience::kNone : Patience::kSome);
      if (rng.below(8) == 0) wait_for(n, Patience::kNone);
    }
    wait_for(total, Patience::kSome);
    if (writer->take_failure(0)) ++failures;
    EXPECT_EQ(failures, 1u);
    writer->close();
    for (std::thread& t : threads) t.join();
  });
}

TEST(BroadcastRing, CloseWakesEveryWaiter) {
  auto writer = *RingWriter::create(ring(3, 2, 1 << 20, 64));
  const auto idle = writer->reader(0), busy = writer->reader(1), full = writer->reader(2);
  ASSERT_TRUE(publish(*writer, {1}, kNoWait));
  ASSERT_TRUE(publish(*writer, {2}, kNoWait));
  std::atomic<int> read = 0;
  std::thread reads([&] {
    while (idle->next(kNever)) ++read;
  });
  std::thread answers([&] {
    const std::vector<uint8_t> large(1000);
    const std::span<const uint8_t> part(large);
    EXPECT_EQ(full->put_result({&part, 1}, kNever).error().code(), Code::kUnavailable);
  });
  std::thread writes(
      [&] { EXPECT_EQ(publish(*writer, {3}, kNever).error().code(), Code::kUnavailable); });
  std::thread closes([&] {
    while (read < 2) std::this_thread::yield();
    busy->close();
  });
  for (std::thread* t : {&reads, &answers, &writes, &closes}) t->join();
  EXPECT_FALSE(writer->wait_acks(1, kNever));
  EXPECT_EQ(publish(*writer, {4}, kNever).error().code(), Code::kUnavailable);
}

TEST(BroadcastRing, TheDeadAreNotWaitedFor) {
  auto writer = *RingWriter::create(ring(2, 2));
  const auto alive = writer->reader(0), dead = writer->reader(1);
  std::thread reads([&] {
    while (Result<std::span<const uint8_t>> m = alive->next(kNever))
      alive->ack({alive->sequence(), 0, 0});
  });
  std::thread marks([&] {
    while (writer->published() < 2) std::this_thread::yield();
    alive->mark_dead(1);
  });
  for (uint8_t i = 1; i <= 100; ++i) ASSERT_TRUE(publish(*writer, {i}, soon()));
  while (!writer->all_acked(100)) ASSERT_TRUE(writer->wait_acks(100, soon()));
  EXPECT_FALSE(dead->next(soon()));
  writer->mark_dead(0);
  EXPECT_EQ(publish(*writer, {1}, soon()).error().code(), Code::kUnavailable);
  writer->close();
  reads.join();
  marks.join();
}

TEST(BroadcastRing, FailureOnAnyReaderIsSeenAtOnce) {
  auto writer = *RingWriter::create(ring(2));
  const auto good = writer->reader(0), bad = writer->reader(1);
  const uint64_t n = *publish(*writer, {1, 2, 3}, kNoWait);
  ASSERT_TRUE(bad->next(soon()));
  bad->ack({n, 7, 0});
  EXPECT_TRUE(writer->wait_acks(n, kNever));  // although reader 0 has said nothing
  EXPECT_FALSE(writer->all_acked(n));
  const std::optional<Ack> failure = writer->take_failure(1);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->status, 7u);
  EXPECT_EQ(failure->sequence, n);
  EXPECT_FALSE(writer->take_failure(1));
  EXPECT_FALSE(writer->wait_acks(n, deadline_in(milliseconds(1))));
}

TEST(BroadcastRing, PokeEndsAWait) {
  auto writer = *RingWriter::create(ring(1));
  ASSERT_TRUE(publish(*writer, {1}, kNoWait));
  std::thread pokes([&] { writer->poke(); });
  EXPECT_TRUE(writer->wait_acks(1, kNever));
  pokes.join();
  EXPECT_FALSE(writer->wait_acks(1, deadline_in(milliseconds(1))));
}

TEST(BroadcastRing, WrongUseIsASentence) {
  EXPECT_EQ(RingWriter::create(ring(65)).error().code(), Code::kInvalidArgument);
  auto writer = *RingWriter::create(ring(1, 8, 4096));
  EXPECT_EQ(publish(*writer, std::vector<uint8_t>(5000), soon()).error().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(RingReader::attach(::fcntl(writer->fd(), F_DUPFD_CLOEXEC, 0), 1).error().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(RingWriter::attach(::open("/dev/null", O_RDONLY)).error().code(),
            Code::kDataCorrupt);
  EXPECT_EQ(RingReader::attach(::open("/dev/null", O_RDONLY), 0).error().code(),
            Code::kDataCorrupt);
  ShmRegion other = *ShmRegion::create("other", 1 << 20);
  EXPECT_EQ(RingReader::attach(::fcntl(other.fd(), F_DUPFD_CLOEXEC, 0), 0).error().code(),
            Code::kDataCorrupt);
  const auto reader = writer->reader(0);
  EXPECT_EQ(reader->next(kNoWait).error().code(), Code::kDeadline);
  EXPECT_EQ(reader->next(deadline_in(milliseconds(1))).error().code(), Code::kDeadline);
}

TEST(BroadcastRing, AnIdleReaderUsesNoProcessor) {
  auto writer = *RingWriter::create(ring(1));
  const auto reader = writer->reader(0);
  // Processor time, not wall time: 2.5 % of the wait. One wait that nobody disturbs is enough: who
  // spins has none.
  int64_t least = INT64_MAX;
  for (int wait = 0; wait < 20 && least >= 10'000'000; ++wait) {
    timespec before{}, after{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    EXPECT_FALSE(reader->next(deadline_in(milliseconds(400))));
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    least = std::min(
        least, (after.tv_sec - before.tv_sec) * 1'000'000'000 + after.tv_nsec - before.tv_nsec);
  }
  EXPECT_LT(least, 10'000'000);
}

// --- processes
// -----------------------------------------------------------------------------------------

pid_t start_reader(RingWriter& writer, int index, uint64_t key, size_t max_bytes) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  auto reader = RingReader::attach(::fcntl(writer.fd(), F_DUPFD_CLOEXEC, 0), index);
  ::_exit(reader && run_reader(**reader, key, max_bytes) >= 0 ? 0 : 1);
}

// Readers in processes of their own, killed at any point. The writer never blocks for good, the
// survivors read every byte right, and nothing stays behind.
TEST(BroadcastRing, KillingReadersAtAnyPointWedgesNothing) {
  const auto count_fds = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto fds_before = count_fds();
  for_seeds(25, [](Rng& rng) {
    const uint64_t key = rng();
    constexpr int kReaders = 3;
    constexpr size_t kMaxBytes = 3000;
    auto writer = *RingWriter::create(ring(kReaders, 3, 8192, 256));
    pid_t pids[kReaders];
    for (int r = 0; r < kReaders; ++r) pids[r] = start_reader(*writer, r, key, kMaxBytes);
    const uint64_t total = 120;
    const uint64_t kill_at = rng.below(total), victim = rng.below(kReaders);
    const auto pause = microseconds(static_cast<int64_t>(rng.below(150)));
    std::thread killer([&] {
      while (writer->published() < kill_at) std::this_thread::yield();
      const Instant at = deadline_in(pause);
      while (steady_now() < at) std::this_thread::yield();
      ::kill(pids[victim], SIGKILL);
      ::waitpid(pids[victim], nullptr, 0);
      writer->mark_dead(static_cast<int>(victim));
    });
    const auto drain = [&] {
      for (int r = 0; r < kReaders; ++r) {
        while (writer->next_result(r)) {
        }
      }
    };
    uint64_t acked = 0;
    const auto wait_for = [&](uint64_t sequence) {
      while (!writer->all_acked(sequence)) {
        ASSERT_TRUE(writer->wait_acks(sequence, soon()));
        drain();
      }
      acked = sequence;
    };
    for (uint64_t n = 1; n <= total; ++n) {
      while (!publish(*writer, message_of(key, n, kMaxBytes), acked + 1 < n ? kNoWait : soon())) {
        wait_for(acked + 1);
      }
    }
    wait_for(total);
    drain();
    killer.join();
    writer->close();
    for (int r = 0; r < kReaders; ++r) {
      if (r == static_cast<int>(victim)) continue;
      int status = -1;
      ASSERT_EQ(::waitpid(pids[r], &status, 0), pids[r]);
      EXPECT_EQ(status, 0);
    }
  });
  EXPECT_EQ(count_fds(), fds_before);
}

// The writer's process is killed: its readers notice by themselves and leave.
TEST(BroadcastRing, ReadersOutliveNoWriter) {
  int tell[2];
  ASSERT_EQ(::pipe(tell), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto writer = *RingWriter::create(ring(1));
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
      auto reader = *RingReader::attach(::fcntl(writer->fd(), F_DUPFD_CLOEXEC, 0), 0);
      (void)reader->next(soon());
      const Result<std::span<const uint8_t>> end = reader->next(kNever);
      const char word = !end && end.error().code() == Code::kUnavailable ? 'y' : 'n';
      ::_exit(::write(tell[1], &word, 1) == 1 ? 0 : 1);
    }
    (void)publish(*writer, {1}, soon());
    while (!writer->all_acked(0) || writer->published() < 1) std::this_thread::yield();
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  char word = '?';
  ASSERT_EQ(::read(tell[0], &word, 1), 1);
  EXPECT_EQ(word, 'y');
  ::close(tell[0]);
  ::close(tell[1]);
}

// The creator only owns the ring; another process writes.
TEST(BroadcastRing, WriterMayBeAnotherProcess) {
  const auto owner = *RingWriter::create(ring(2, 4, 1 << 16));
  const auto first = owner->reader(0), second = owner->reader(1);
  const pid_t child = ::fork();
  if (child == 0) {
    auto writer = RingWriter::attach(::fcntl(owner->fd(), F_DUPFD_CLOEXEC, 0));
    for (uint64_t i = 1; writer && i <= 50; ++i) {  // more than there is room for
      if (!publish(**writer, message_of(7, i, 3000), soon())) ::_exit(1);
    }
    ::kill(::getpid(), SIGKILL);  // no farewell
  }
  for (uint64_t i = 1; i <= 50; ++i) {
    for (const auto* reader : {&first, &second}) {
      const Result<std::span<const uint8_t>> message = (*reader)->next(soon());
      ASSERT_TRUE(message) << message.error().to_string();
      const std::vector<uint8_t> expected = message_of(7, i, 3000);
      ASSERT_TRUE(std::ranges::equal(*message, expected)) << i;
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(first->next(kNever).error().code(), Code::kUnavailable);
  EXPECT_EQ(second->next(kNever).error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace towline::net
