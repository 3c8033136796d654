// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/shm_collective.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "base/fmt.hpp"

namespace towline::worker {
namespace {

constexpr uint64_t kMagic = 0x31434c4f43574f54;  // "TOWCOLC1"
constexpr size_t kHeaderBytes = 4096;
constexpr auto kYieldFor = std::chrono::microseconds(50);

static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Between processes, hence without FUTEX_PRIVATE_FLAG.
void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  const timespec at_most{0, 100'000'000};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &at_most, nullptr, 0);
}
void futex_wake_all(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

struct ShmCollectiveRegion::Words {
  uint64_t magic = kMagic;
  int32_t ranks = 0;
  int64_t floats = 0;
  alignas(64) std::atomic<uint32_t> arrived{0};
  alignas(64) std::atomic<uint32_t> generation{0};
  alignas(64) std::atomic<uint32_t> waiters{0};
  alignas(64) std::atomic<uint32_t> aborted{0};
};

Result<ShmCollectiveRegion> ShmCollectiveRegion::create(int32_t of, int64_t floats) {
  constexpr int64_t kMost = int64_t{1} << 40;
  if (of < 1 || of > 64 || !std::has_single_bit(static_cast<uint32_t>(of)) || floats < 0 ||
      floats > kMost) {
    return errorf(Code::kInvalidArgument,
                  "a tensor-parallel group of {} ranks sharing {} numbers cannot be made: ranks "
                  "are a power of two up to 64", of, floats);
  }
  ShmCollectiveRegion region;
  region.fd_ = ::memfd_create("towline-collective", 0);
  region.bytes_ = kHeaderBytes + static_cast<size_t>(floats) * sizeof(float);
  if (region.fd_ < 0 || ::ftruncate(region.fd_, static_cast<off_t>(region.bytes_)) != 0) {
    return errorf(Code::kExhausted, "no shared memory of {} bytes for a tensor-parallel group: {}",
                  region.bytes_, std::strerror(errno));
  }
  TRY(region.map());
  auto* words = new (region.base_) Words();
  words->ranks = of;
  words->floats = floats;
  return region;
}

Result<ShmCollectiveRegion> ShmCollectiveRegion::adopt(int fd) {
  ShmCollectiveRegion region;
  region.fd_ = fd;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || info.st_size < static_cast<off_t>(kHeaderBytes)) {
    return errorf(Code::kInvalidArgument,
                  "descriptor {} is not the shared memory of a tensor-parallel group", fd);
  }
  region.bytes_ = static_cast<size_t>(info.st_size);
  TRY(region.map());
  const Words* words = region.words();
  const size_t expected = kHeaderBytes + static_cast<size_t>(words->floats) * sizeof(float);
  if (words->magic != kMagic || words->ranks < 1 || expected != region.bytes_) {
    return errorf(Code::kInvalidArgument,
                  "descriptor {} is not the shared memory of a tensor-parallel group of this build",
                  fd);
  }
  return region;
}

Result<void> ShmCollectiveRegion::map() {
  void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (at == MAP_FAILED) {
    return errorf(Code::kExhausted, "{} bytes of shared memory cannot be mapped: {}", bytes_,
                  std::strerror(errno));
  }
  base_ = static_cast<std::byte*>(at);
  return {};
}

ShmCollectiveRegion::~ShmCollectiveRegion() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

ShmCollectiveRegion::ShmCollectiveRegion(ShmCollectiveRegion&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      base_(std::exchange(other.base_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

ShmCollectiveRegion& ShmCollectiveRegion::operator=(ShmCollectiveRegion&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ShmCollectiveRegion::Words* ShmCollectiveRegion::words() const {
  return std::launder(reinterpret_cast<Words*>(base_));
}

int32_t ShmCollectiveRegion::ranks() const { return words()->ranks; }

std::span<float> ShmCollectiveRegion::memory() const {
  return {reinterpret_cast<float*>(base_ + kHeaderBytes), static_cast<size_t>(words()->floats)};
}

void ShmCollectiveRegion::abort() {
  words()->aborted.store(1, std::memory_order_seq_cst);
  // A waiter that read the abort word as 0 and is about to sleep finds the generation moved.
  words()->generation.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_all(words()->generation);
}

bool ShmCollectiveRegion::aborted() const {
  return words()->aborted.load(std::memory_order_seq_cst) != 0;
}

Result<void> ShmCollective::barrier() {
  ShmCollectiveRegion::Words& w = *region_->words();
  const auto result = [&]() -> Result<void> {
    if (!region_->aborted()) return {};
    return errorf(Code::kUnavailable, "the tensor-parallel group of {} ranks was aborted", w.ranks);
  };
  // Read before arriving: nobody can open the next generation without this rank.
  const uint32_t generation = w.generation.load(std::memory_order_acquire);
  if (region_->aborted()) return result();
  if (w.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(w.ranks)) {
    w.arrived.store(0, std::memory_order_relaxed);
    w.generation.fetch_add(1, std::memory_order_seq_cst);
    if (w.waiters.load(std::memory_order_seq_cst) != 0) futex_wake_all(w.generation);
    return result();
  }
  const auto passed = [&] { return w.generation.load(std::memory_order_acquire) != generation; };
  const auto hot_until = std::chrono::steady_clock::now() + kYieldFor;
  while (!passed() && std::chrono::steady_clock::now() < hot_until) ::sched_yield();
  if (!passed()) {
    w.waiters.fetch_add(1, std::memory_order_seq_cst);
    while (w.generation.load(std::memory_order_seq_cst) == generation) {
      futex_wait(w.generation, generation);
    }
    w.waiters.fetch_sub(1, std::memory_order_seq_cst);
  }
  return result();
}

}  // namespace towline::worker
