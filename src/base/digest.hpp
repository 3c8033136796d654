// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Digest: a 64-bit running hash of a sequence of numbers and texts, to compare two runs' decisions.
// The same calls give the same value on every machine. Not for cryptography.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/rng.hpp"

namespace towline {

class Digest {
 public:
  constexpr void add(int64_t number) {
    value_ = mix64(value_ ^ static_cast<uint64_t>(number)) + 0x632be59bd9b4e019ull;
  }
  // The length goes in first, so that ("ab", "c") differs from ("a", "bc").
  constexpr void add(std::string_view text) {
    add(static_cast<int64_t>(text.size()));
    uint64_t word = 0;
    size_t filled = 0;
    for (const char c : text) {
      word |= uint64_t{static_cast<uint8_t>(c)} << (8 * filled);
      if (++filled < 8) continue;
      add(static_cast<int64_t>(word));
      word = 0;
      filled = 0;
    }
    if (filled > 0) add(static_cast<int64_t>(word));
  }
  constexpr uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0x243f6a8885a308d3ull;
};

}  // namespace towline
