// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C (Castagnoli; the polynomial of iSCSI, RFC 3720 B.4): finds the bit errors that TCP's
// checksum lets through. Uses the SSE 4.2 instruction where the processor has it.
#pragma once

#include <cstdint>
#include <span>

namespace towline::net {

// Continues `crc` (0 to begin) over `bytes`: crc32c(crc32c(0, a), b) == crc32c(0, a + b).
uint32_t crc32c(uint32_t crc, std::span<const uint8_t> bytes);

// The table-driven form, the oracle of the fast one.
uint32_t crc32c_portable(uint32_t crc, std::span<const uint8_t> bytes);

}  // namespace towline::net
