// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// net_bench: round trips of the broadcast ring between processes,
// as docs/benchmarks.md reports them.
//
// Each message is written once; each reader process touches every byte and acknowledges; a round
// trip ends when all have. gap 0 is the hot path, gap 2 ms is like steps of a model (everybody has
// gone to sleep). Processor time is that of all processes together, for each message. At the end
// the cost of being idle. Transports: use 'towline net ping' between two processes.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "net/broadcast_ring.hpp"

namespace {

using namespace towline;
using namespace towline::net;

double cpu_seconds(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

std::unique_ptr<RingWriter> make_ring(int readers, Duration yield_for) {
  RingOptions o;
  o.readers = readers;
  o.wait.yield_for = yield_for;
  Result<std::unique_ptr<RingWriter>> ring = RingWriter::create(o);
  if (!ring) {
    std::fprintf(stderr, "net_bench: %s\n", ring.error().to_string().c_str());
    std::exit(1);
  }
  return std::move(*ring);
}

void start_readers(RingWriter& writer, int readers, Duration yield_for) {
  for (int r = 0; r < readers; ++r) {
    if (::fork() != 0) continue;
    auto reader = RingReader::attach(::fcntl(writer.fd(), F_DUPFD_CLOEXEC, 0), r, {yield_for});
    if (!reader) ::_exit(1);
    while (Result<std::span<const uint8_t>> m = (*reader)->next(kNever)) {
      (*reader)->ack(
          {(*reader)->sequence(), 0, std::accumulate(m->begin(), m->end(), uint64_t{0})});
    }
    ::_exit(0);
  }
}

void round_trips(int readers, size_t bytes, int gap_us, Duration yield_for, int count) {
  auto writer = make_ring(readers, yield_for);
  start_readers(*writer, readers, yield_for);
  const std::vector<uint8_t> payload(bytes, 7);
  const std::span<const uint8_t> part(payload);
  std::vector<double> us;
  double cpu = 0;
  const double children_before = cpu_seconds(RUSAGE_CHILDREN);
  for (int i = -50; i < count; ++i) {
    if (i == 0) cpu = cpu_seconds(RUSAGE_SELF);
    if (gap_us > 0) ::usleep(static_cast<useconds_t>(gap_us));
    const Instant begin = steady_now();
    const Result<uint64_t> n = writer->publish({&part, 1}, kNever);
    while (n && !writer->all_acked(*n)) writer->wait_acks(*n, kNever);
    if (i >= 0) us.push_back(static_cast<double>((steady_now() - begin).value) * 1e-3);
  }
  cpu = cpu_seconds(RUSAGE_SELF) - cpu;
  writer->close();
  while (::wait(nullptr) > 0) {
  }
  cpu += cpu_seconds(RUSAGE_CHILDREN) - children_before;  // with their start: a little too much
  std::sort(us.begin(), us.end());
  const auto at = [&](double q) {
    return us[static_cast<size_t>(q * static_cast<double>(us.size() - 1))];
  };
  std::printf("%7d %7zu %7d %9s %9.1f %9.1f %9.1f %12.1f\n", readers, bytes, gap_us,
              yield_for < Duration(0)    ? "adaptive"
              : yield_for == Duration(0) ? "none"
                                         : "always",
              at(0.5), at(0.9), at(0.99), cpu / count * 1e6);
  std::fflush(stdout);
}

void idle(int readers, int for_seconds) {
  auto writer = make_ring(readers, microseconds(-1));
  const double children_before = cpu_seconds(RUSAGE_CHILDREN);
  start_readers(*writer, readers, microseconds(-1));
  const double before = cpu_seconds(RUSAGE_SELF);
  writer->wait_acks(1, deadline_in(seconds(for_seconds)));
  const double self = cpu_seconds(RUSAGE_SELF) - before;
  writer->close();
  while (::wait(nullptr) > 0) {
  }
  const double all = self + cpu_seconds(RUSAGE_CHILDREN) - children_before;
  std::printf("idle, %d readers, %d s: %.3f %% of one core in total\n", readers, for_seconds,
              all / for_seconds * 100);
}

}  // namespace

int main() {
  std::printf("%7s %7s %7s %9s %9s %9s %9s %12s\n", "readers", "bytes", "gap us", "yield", "p50 us",
              "p90 us", "p99 us", "cpu us/msg");
  for (const Duration yield_for : {microseconds(-1), microseconds(0)}) {
    for (const int readers : {1, 2, 4}) {
      for (const size_t bytes : {size_t{4096}, size_t{65536}}) {
        if (bytes == 65536 && readers != 2) continue;
        round_trips(readers, bytes, 0, yield_for, 4000);
        round_trips(readers, bytes, 2000, yield_for, 500);
      }
    }
  }
  idle(2, 5);
}
