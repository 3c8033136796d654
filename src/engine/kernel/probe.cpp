// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/probe.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "engine/kernel/arena.hpp"

namespace towline::engine {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The best rate of `work` (which returns how much it did) among repetitions within `seconds`.
template <class Work>
double best_rate(double seconds, const Work& work) {
  double best = 0;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    const auto amount = static_cast<double>(work());
    best = std::max(best, amount / since(start));
  } while (since(begin) < seconds);
  return best;
}

double measure_burst(ComputeTeam& team, int64_t (*burst)(int64_t), double seconds) {
  constexpr int64_t kRounds = 200'000;
  return best_rate(seconds, [&] {
    std::atomic<int64_t> operations{0};
    team.parallel_for(team.threads(), [&](int64_t, int) { operations += burst(kRounds); });
    return operations.load();
  });
}

}  // namespace

Result<double> measure_read_bandwidth(ComputeTeam& team, const KernelTable& table, int64_t bytes,
                                      double seconds) {
  ASSIGN_OR_RETURN(Arena arena, Arena::create(bytes));
  const int64_t share = bytes / team.threads() / 4096 * 4096;
  std::byte* memory = arena.take(share * team.threads());
  std::memset(memory, 1, static_cast<size_t>(share * team.threads()));
  std::atomic<uint64_t> sink{0};
  return best_rate(seconds, [&] {
    team.parallel_for(team.threads(), [&](int64_t part, int) {
      sink += table.read_all(memory + part * share, share);
    });
    return share * team.threads();
  });
}

double measure_int8_peak(ComputeTeam& team, const KernelTable& table, double seconds) {
  return measure_burst(team, table.int8_burst, seconds);
}
double measure_fma_peak(ComputeTeam& team, const KernelTable& table, double seconds) {
  return measure_burst(team, table.fma_burst, seconds);
}

}  // namespace towline::engine
