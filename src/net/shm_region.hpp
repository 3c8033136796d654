// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ShmRegion: memory shared between processes of one machine, without a name.
//
// A memfd: nothing appears in /dev/shm, and when the last process that has it is gone, SIGKILL or
// not, so is the memory. Its size is sealed, so that no holder can make another one fault by
// shrinking it. Pages cost nothing until touched. Passed on by descriptor: inherited by a child, or
// sent over a Unix socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.hpp"

namespace towline::net {

class ShmRegion {
 public:
  ShmRegion() = default;  // empty
  // Zeroed. `label` is only seen in /proc/PID/maps.
  static Result<ShmRegion> create(const std::string& label, size_t bytes);
  // Maps a region made elsewhere; the descriptor is owned by the result, also on failure closed.
  // kDataCorrupt: not a sealed region of at least `min_bytes`.
  static Result<ShmRegion> attach(int fd, size_t min_bytes);

  ShmRegion(ShmRegion&& other) noexcept;
  ShmRegion& operator=(ShmRegion&& other) noexcept;
  ~ShmRegion();

  std::span<uint8_t> bytes() const { return {data_, size_}; }
  // Close-on-exec; a parent that passes it to a child clears that flag in the child.
  int fd() const { return fd_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  ShmRegion(int fd, uint8_t* data, size_t size) : fd_(fd), data_(data), size_(size) {}
  int fd_ = -1;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace towline::net
