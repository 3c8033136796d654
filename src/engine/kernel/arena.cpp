// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/arena.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::engine {
namespace {
constexpr int64_t kHugePage = int64_t{2} << 20;
}

Result<Arena> Arena::create(int64_t bytes) {
  CHECK(bytes >= 0, bytes);
  Arena arena;
  if (bytes == 0) return arena;
  // Whole huge pages, so that the tail of an arena gets them too; but a small arena must not cost
  // two megabytes.
  const int64_t page = bytes >= kHugePage ? kHugePage : 4096;
  const int64_t size = (bytes + page - 1) / page * page;
  void* base = ::mmap(nullptr, static_cast<size_t>(size + page), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return errorf(Code::kExhausted, "cannot reserve {} bytes of memory: {}", size,
                  std::strerror(errno));
  }
  // Cut the mapping so that it begins at a multiple of the page.
  const auto address = reinterpret_cast<uintptr_t>(base);
  const auto mask = static_cast<uintptr_t>(page - 1);
  const auto skip = static_cast<int64_t>(((address + mask) & ~mask) - address);
  if (skip > 0) ::munmap(base, static_cast<size_t>(skip));
  arena.base_ = static_cast<std::byte*>(base) + skip;
  arena.size_ = size;
  if (skip < page) ::munmap(arena.base_ + size, static_cast<size_t>(page - skip));
  // Refusal costs speed only; `towline doctor` reports how the system is set.
  if (page == kHugePage) ::madvise(arena.base_, static_cast<size_t>(size), MADV_HUGEPAGE);
  return arena;
}

Arena::~Arena() {
  if (base_ != nullptr) ::munmap(base_, static_cast<size_t>(size_));
}
Arena::Arena(Arena&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      used_(std::exchange(other.used_, 0)) {}
Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  std::swap(used_, other.used_);
  return *this;
}

std::byte* Arena::take(int64_t bytes) {
  CHECK(bytes >= 0 && rounded(bytes) <= size_ - used_, bytes, used_, size_);
  std::byte* place = base_ + used_;
  used_ += rounded(bytes);
  return place;
}

}  // namespace towline::engine
