// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// crc32c: the Castagnoli cyclic redundancy check (RFC 3720, appendix B.4), which processors have an
// instruction for. Catches torn writes and damaged frames; no protection against intent.
//
//   crc32c(bytes)                          of one span
//   crc32c(tail, crc32c(head))             of a text in pieces
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace towline {

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0);
inline uint32_t crc32c(std::string_view bytes, uint32_t before = 0) {
  return crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())), before);
}

}  // namespace towline
