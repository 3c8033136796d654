// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Counter-based random numbers: random_at(key, counter) is a pure function, so a draw depends only
// on (seed, position) and never on how many draws other sequences made. This is what lets a sampled
// token be the same whatever the batch, route or failure (docs/architecture.md, "Exact tokens").
//
// The mixing is two rounds of the splitmix64 finaliser (Steele, Lea, Flood, OOPSLA 2014) over
// key and counter. Not for cryptography.
#pragma once

#include <cstdint>

namespace towline {

constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr uint64_t random_at(uint64_t key, uint64_t counter) {
  return mix64(mix64(key) ^ mix64(counter * 0xd1342543de82ef95ull + 1));
}

// Uniform in [0, 1) with 53 bits.
constexpr double to_unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

// A sequential generator over random_at, for tests, workloads and searches. Satisfies
// UniformRandomBitGenerator.
class Rng {
 public:
  using result_type = uint64_t;
  explicit constexpr Rng(uint64_t seed) : key_(seed) {}
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  constexpr uint64_t operator()() { return random_at(key_, counter_++); }
  constexpr double unit() { return to_unit((*this)()); }
  // Uniform in [0, n); n > 0. The bias of the multiply-shift is below 2^-32 for n < 2^32.
  constexpr uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>((*this)()) * n) >> 64);
  }
  constexpr int64_t between(int64_t low, int64_t high) {  // inclusive
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low) + 1));
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace towline
