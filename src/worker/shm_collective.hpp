// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ShmCollective: engine::Collective for ranks that are processes (or threads) of one machine.
//
// One memfd: a page with the barrier's words, then the shared floats. A memfd has no name, so a
// killed rank leaves nothing behind in /dev/shm. Ranks map it by the inherited descriptor.
//
// The barrier counts arrivals; the last one opens the next generation and wakes the others, who
// yield for at most 50 us (the ranks run in step, so the wait is usually short) and then sleep on a
// futex. abort() opens a generation too: sleepers wake at once and see the abort word. Whoever
// learns of a rank's death (the parent, by pidfd) aborts; the sleep's time-out of 100 ms is only a
// second belt. After an abort the group is over: make another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/collective.hpp"

namespace towline::worker {

// The group's memory; a descriptor that children inherit.
class ShmCollectiveRegion {
 public:
  // Room for `floats` shared numbers and `of` ranks. The pages become resident when written.
  static Result<ShmCollectiveRegion> create(int32_t of, int64_t floats);
  // The region behind an inherited descriptor; checks that it is one. Takes the descriptor.
  static Result<ShmCollectiveRegion> adopt(int fd);
  ~ShmCollectiveRegion();
  ShmCollectiveRegion(ShmCollectiveRegion&& other) noexcept;
  ShmCollectiveRegion& operator=(ShmCollectiveRegion&& other) noexcept;

  int fd() const { return fd_; }  // close-on-exec is off: it is meant to be inherited
  int32_t ranks() const;
  std::span<float> memory() const;
  // Everyone leaves the barrier with an error, now and ever after. From any thread or process.
  void abort();
  bool aborted() const;

 private:
  friend class ShmCollective;
  struct Words;
  ShmCollectiveRegion() = default;
  Result<void> map();
  Words* words() const;

  int fd_ = -1;
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

class ShmCollective final : public engine::Collective {
 public:
  // `region` must outlive it; 0 <= rank < region.ranks().
  ShmCollective(ShmCollectiveRegion& region, int32_t rank) : region_(&region), rank_(rank) {}
  engine::Shard shard() const override { return {rank_, region_->ranks()}; }
  std::span<float> memory() const override { return region_->memory(); }
  Result<void> barrier() override;

 private:
  ShmCollectiveRegion* region_;
  int32_t rank_;
};

}  // namespace towline::worker
