// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// PyRandom: the random stream of CPython's `random` module (3.2 to 3.12), bit for bit.
//
// Helix's cluster generators, heuristics and simulator draw from it, and their files can be
// reproduced byte for byte only with the same stream. Nothing else should use it: base/rng.hpp is
// the product's own generator.
//
// The generator is MT19937 (Matsumoto and Nishimura, ACM TOMACS 8(1), 1998) seeded through
// init_by_array with the 32-bit words of |seed|. How floats, ranges, shuffles and samples are drawn
// from it follows the documented behaviour of Python's library. Not thread-safe; copyable.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace towline {

class PyRandom {
 public:
  explicit PyRandom(uint64_t seed) {
    const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                         static_cast<uint32_t>(seed >> 32)};
    init_by_array(std::span(key).first(key[1] == 0 ? 1 : 2));
  }

  // random.random(): uniform in [0, 1) with 53 bits.
  double random() {
    const uint32_t a = next_word() >> 5;
    const uint32_t b = next_word() >> 6;
    return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
  }

  // random.uniform(low, high)
  double uniform(double low, double high) { return low + (high - low) * random(); }

  // random.getrandbits(bits), 0 <= bits <= 64
  uint64_t random_bits(int bits) {
    if (bits == 0) return 0;
    if (bits <= 32) return next_word() >> (32 - bits);
    const uint64_t low = next_word();
    return low | (static_cast<uint64_t>(next_word() >> (64 - bits)) << 32);
  }

  // random.randrange(n): uniform in [0, n); 0 when n is 0.
  uint64_t below(uint64_t n) {
    if (n == 0) return 0;
    const int bits = static_cast<int>(std::bit_width(n));
    uint64_t draw = random_bits(bits);
    while (draw >= n) draw = random_bits(bits);
    return draw;
  }

  // random.randint(low, high): both ends included.
  int64_t randint(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low) + 1));
  }

  // random.choice(items); `items` is not empty.
  template <class T>
  const T& choice(const std::vector<T>& items) {
    return items[below(items.size())];
  }

  // random.shuffle(items)
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i-- > 1;) {
      const size_t j = below(i + 1);
      if (i != j) std::swap(items[i], items[j]);
    }
  }

  // random.sample(range(n), count): distinct indices in the order drawn; count <= n.
  std::vector<size_t> sample_indices(size_t n, size_t count) {
    std::vector<size_t> result;
    result.reserve(count);
    if (n <= pool_limit(count)) {
      std::vector<size_t> pool(n);
      std::iota(pool.begin(), pool.end(), size_t{0});
      for (size_t i = 0; i < count; ++i) {
        const size_t j = below(n - i);
        result.push_back(pool[j]);
        pool[j] = pool[n - i - 1];
      }
      return result;
    }
    std::set<size_t> chosen;
    while (result.size() < count) {
      const size_t j = below(n);
      if (chosen.insert(j).second) result.push_back(j);
    }
    return result;
  }

  // random.sample(items, count); count <= items.size().
  template <class T>
  std::vector<T> sample(const std::vector<T>& items, size_t count) {
    std::vector<T> result;
    result.reserve(count);
    for (const size_t i : sample_indices(items.size(), count)) result.push_back(items[i]);
    return result;
  }

  // random.expovariate(rate)
  double expovariate(double rate) { return -std::log(1.0 - random()) / rate; }

  // random.gauss(mean, sigma): pairs of Box and Muller, the second kept for the next call.
  double gauss(double mean, double sigma) {
    double z;
    if (spare_gauss_) {
      z = *spare_gauss_;
      spare_gauss_.reset();
    } else {
      const double angle = random() * (2.0 * std::numbers::pi);
      const double radius = std::sqrt(-2.0 * std::log(1.0 - random()));
      z = std::cos(angle) * radius;
      spare_gauss_ = std::sin(angle) * radius;
    }
    return mean + z * sigma;
  }

 private:
  static constexpr size_t kWords = 624;
  static constexpr size_t kShift = 397;

  // Above this many items, sampling by rejection is cheaper than copying the population.
  static size_t pool_limit(size_t count) {
    size_t limit = 21;
    if (count > 5) {
      const double power = std::ceil(std::log(static_cast<double>(count) * 3) / std::log(4.0));
      limit += size_t{1} << (2 * static_cast<size_t>(power));
    }
    return limit;
  }

  void init(uint32_t seed) {
    state_[0] = seed;
    for (size_t i = 1; i < kWords; ++i) {
      const uint32_t previous = state_[i - 1];
      state_[i] = 1812433253u * (previous ^ (previous >> 30)) + static_cast<uint32_t>(i);
    }
    next_ = kWords;
  }

  void init_by_array(std::span<const uint32_t> key) {
    init(19650218u);
    size_t i = 1;
    size_t j = 0;
    const auto advance = [&] {
      if (++i == kWords) {
        state_[0] = state_[kWords - 1];
        i = 1;
      }
    };
    for (size_t round = 0; round < kWords; ++round) {
      const uint32_t mixed = state_[i - 1] ^ (state_[i - 1] >> 30);
      state_[i] = (state_[i] ^ (mixed * 1664525u)) + key[j] + static_cast<uint32_t>(j);
      advance();
      j = (j + 1) % key.size();
    }
    for (size_t round = 1; round < kWords; ++round) {
      const uint32_t mixed = state_[i - 1] ^ (state_[i - 1] >> 30);
      state_[i] = (state_[i] ^ (mixed * 1566083941u)) - static_cast<uint32_t>(i);
      advance();
    }
    state_[0] = 0x80000000u;
  }

  void refill() {
    for (size_t i = 0; i < kWords; ++i) {
      const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kWords] & 0x7fffffffu);
      state_[i] = state_[(i + kShift) % kWords] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
    }
    next_ = 0;
  }

  uint32_t next_word() {
    if (next_ == kWords) refill();
    uint32_t y = state_[next_++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
  }

  std::array<uint32_t, kWords> state_{};
  size_t next_ = kWords;
  std::optional<double> spare_gauss_;
};

}  // namespace towline
