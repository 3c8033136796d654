// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// futex: sleeping on a 32-bit word that may lie in memory shared between processes (Linux).
//
// The protocol around it is always the same (see net/broadcast_ring.cpp): the sleeper announces
// itself, looks again, then sleeps on the value it saw before looking; the waker changes the state,
// then looks for sleepers, then changes the word. seq_cst on both sides makes one of them see the
// other.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

#include "net/clock.hpp"

namespace towline::net {

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

// Sleeps while *word == seen, until woken or `deadline`. May return early for no reason.
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, Deadline deadline) {
  timespec at{};
  at.tv_sec = deadline.ns / 1'000'000'000;
  at.tv_nsec = deadline.ns % 1'000'000'000;
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_BITSET, seen,
            deadline == kNever ? nullptr : &at, nullptr, FUTEX_BITSET_MATCH_ANY);
}

inline void futex_wake_all(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr,
            0);
}

}  // namespace towline::net
