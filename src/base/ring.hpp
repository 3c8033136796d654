// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SpscRing<T>: a bounded queue from exactly one producer thread to exactly one consumer thread.
//
// try_push and try_pop never block and never allocate. Wake-up is the caller's business (an eventfd
// on the loop side, atomic::wait on the compute side), because the two sides sleep differently.
#pragma once

#include <atomic>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.hpp"

namespace towline {

template <class T>
class SpscRing {
 public:
  // Holds up to `capacity` items; rounded up to a power of two.
  explicit SpscRing(size_t capacity) {
    size_t size = 1;
    while (size < capacity) size *= 2;
    slots_.resize(size);
    mask_ = size - 1;
  }
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Producer. False when full; `item` is then left untouched.
  bool try_push(T& item) {
    const size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_cache_ > mask_) {
      head_cache_ = head_.load(std::memory_order_acquire);
      if (tail - head_cache_ > mask_) return false;
    }
    slots_[tail & mask_] = std::move(item);
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }
  bool try_push(T&& item) { return try_push(item); }

  // Consumer. Empty optional when there is nothing.
  std::optional<T> try_pop() {
    const size_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_cache_) {
      tail_cache_ = tail_.load(std::memory_order_acquire);
      if (head == tail_cache_) return std::nullopt;
    }
    std::optional<T> item(std::move(slots_[head & mask_]));
    head_.store(head + 1, std::memory_order_release);
    return item;
  }

  size_t capacity() const { return mask_ + 1; }
  // A snapshot; exact only when called by both sides' agreement.
  size_t size() const {
    return tail_.load(std::memory_order_acquire) - head_.load(std::memory_order_acquire);
  }

 private:
  std::vector<T> slots_;
  size_t mask_ = 0;
  alignas(64) std::atomic<size_t> head_{0};  // next to pop; written by the consumer
  size_t tail_cache_ = 0;                    // consumer's
  alignas(64) std::atomic<size_t> tail_{0};  // next to push; written by the producer
  size_t head_cache_ = 0;                    // producer's
};

}  // namespace towline
