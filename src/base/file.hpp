// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Files: read whole, map read-only, and write so that a reader sees the old file or the new one,
// never half of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace towline {

// The whole file as bytes. Directories, missing files and files over `max_bytes` are errors.
Result<std::string> read_file(const std::string& path, int64_t max_bytes = int64_t{1} << 30);

// Writes `path` + ".tmp-<pid>", flushes it to disk and renames it over `path`. On failure the
// temporary file is removed and `path` is as it was. Devices and pipes are written to, not replaced.
Result<void> write_file_atomic(const std::string& path, std::string_view bytes);

// A read-only memory mapping of a whole file. Movable; unmaps when destroyed. An empty file maps to
// an empty span. Truncation by another process while mapped raises SIGBUS on access: model files
// are taken to be immutable while they are open.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Tells the kernel that these bytes will not be needed soon, so that they leave this process's
  // resident memory (they stay in the page cache).
  void drop_pages(size_t offset, size_t length) const;

 private:
  MappedFile(std::string path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace towline
