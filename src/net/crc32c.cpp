// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/crc32c.hpp"

#include <array>
#include <cstring>

namespace towline::net {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82f63b78u : 0u);
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(uint32_t crc,
                                                        std::span<const uint8_t> bytes) {
  uint64_t value = ~crc;
  const uint8_t* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    value = __builtin_ia32_crc32di(value, word);
  }
  auto low = static_cast<uint32_t>(value);
  for (; left > 0; --left, ++p) low = __builtin_ia32_crc32qi(low, *p);
  return ~low;
}
#endif

}  // namespace

uint32_t crc32c_portable(uint32_t crc, std::span<const uint8_t> bytes) {
  uint32_t value = ~crc;
  for (const uint8_t byte : bytes) value = (value >> 8) ^ kTable[(value ^ byte) & 0xff];
  return ~value;
}

uint32_t crc32c(uint32_t crc, std::span<const uint8_t> bytes) {
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return crc32c_sse42(crc, bytes);
#endif
  return crc32c_portable(crc, bytes);
}

}  // namespace towline::net
