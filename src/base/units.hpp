// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Strong units. A planner that mixes bytes, tokens and seconds dies of unit slips; these types turn
// the slip into a compile error. Quantities of one unit add, compare and scale; the few products
// and quotients that mean something are spelled out below.
//
// Time is integer nanoseconds: no doubles in decisions (docs/decisions: integer time).
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace towline {

template <class Tag, class Rep>
struct Quantity {
  using rep = Rep;
  Rep value{};
  constexpr Quantity() = default;
  constexpr explicit Quantity(Rep v) : value(v) {}
  friend constexpr auto operator<=>(Quantity, Quantity) = default;
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return Quantity(a.value + b.value); }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return Quantity(a.value - b.value); }
  friend constexpr Quantity operator*(Quantity a, Rep k) { return Quantity(a.value * k); }
  friend constexpr Quantity operator*(Rep k, Quantity a) { return Quantity(a.value * k); }
  friend constexpr Quantity operator/(Quantity a, Rep k) { return Quantity(a.value / k); }
  friend constexpr Rep operator/(Quantity a, Quantity b) { return a.value / b.value; }
  constexpr Quantity& operator+=(Quantity b) { value += b.value; return *this; }
  constexpr Quantity& operator-=(Quantity b) { value -= b.value; return *this; }
};

using Tokens = Quantity<struct TokensTag, int64_t>;
using Bytes = Quantity<struct BytesTag, int64_t>;
using TokensPerSec = Quantity<struct TokensPerSecTag, double>;
using BytesPerSec = Quantity<struct BytesPerSecTag, double>;
using Duration = Quantity<struct DurationTag, int64_t>;  // nanoseconds
// A measured or described length of time (a link latency, a profiled layer); never a clock reading.
using Seconds = Quantity<struct SecondsTag, double>;

// A point on the driver's clock (steady or virtual), nanoseconds since the driver began.
struct Instant {
  int64_t ns = 0;
  friend constexpr auto operator<=>(Instant, Instant) = default;
  friend constexpr Instant operator+(Instant t, Duration d) { return Instant{t.ns + d.value}; }
  friend constexpr Instant operator-(Instant t, Duration d) { return Instant{t.ns - d.value}; }
  friend constexpr Duration operator-(Instant a, Instant b) { return Duration(a.ns - b.ns); }
};
inline constexpr Instant kNever{std::numeric_limits<int64_t>::max()};

constexpr Duration nanoseconds(int64_t n) { return Duration(n); }
constexpr Duration microseconds(int64_t n) { return Duration(n * 1'000); }
constexpr Duration milliseconds(int64_t n) { return Duration(n * 1'000'000); }
constexpr Duration seconds(int64_t n) { return Duration(n * 1'000'000'000); }
constexpr double to_seconds(Duration d) { return static_cast<double>(d.value) * 1e-9; }
constexpr double to_seconds(Instant t) { return static_cast<double>(t.ns) * 1e-9; }

constexpr Bytes kibibytes(int64_t n) { return Bytes(n << 10); }
constexpr Bytes mebibytes(int64_t n) { return Bytes(n << 20); }
constexpr Bytes gibibytes(int64_t n) { return Bytes(n << 30); }

}  // namespace towline
