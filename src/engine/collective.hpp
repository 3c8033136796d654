// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Collective: what the ranks of a tensor-parallel stage share: memory and a barrier.
//
// Nothing else is needed inside one machine. A rank writes its part of a sum (or its columns of the
// logits) straight into the shared memory, all meet at the barrier, and everyone reads all parts.
// Every rank runs the same sequence of barriers, because every rank runs the same steps in the same
// order, so no message says what an exchange is about.
//
// Two buffers in turn need one barrier an exchange: a rank can be ahead of another by one exchange
// at most, so nobody writes a buffer that somebody still reads (engine/stage.cpp).
//
// Threading: one caller a rank; abort() from any thread or process.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.hpp"

namespace towline::engine {

// Rank `rank` of `of` that hold one stage together; of is a power of two.
struct Shard {
  int32_t rank = 0;
  int32_t of = 1;
  friend bool operator==(const Shard&, const Shard&) = default;
};

class Collective {
 public:
  virtual ~Collective() = default;
  virtual Shard shard() const = 0;
  // The same memory in all ranks, 64-byte aligned, zero at first.
  virtual std::span<float> memory() const = 0;
  // Returns when all ranks have called it equally often; what they wrote before is then visible.
  // kUnavailable once the group was aborted (a rank died): the stage's KV cache and the sums under
  // way are worthless then, and the group must be made anew.
  virtual Result<void> barrier() = 0;
};

}  // namespace towline::engine
