// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/shm_region.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/fmt.hpp"

namespace towline::net {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

Error os_error(std::string_view what) {
  return errorf(Code::kIo, "{}: {}", what, std::strerror(errno));
}

}  // namespace

Result<ShmRegion> ShmRegion::create(const std::string& label, size_t bytes) {
  const int fd = ::memfd_create(label.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return os_error("cannot create shared memory");
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(fd, F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) {
    const Error error = os_error(format("cannot size {} bytes of shared memory", bytes));
    ::close(fd);
    return error;
  }
  return attach(fd, bytes);
}

Result<ShmRegion> ShmRegion::attach(int fd, size_t min_bytes) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const Error error = os_error(format("shared memory descriptor {}", fd));
    ::close(fd);
    return error;
  }
  const auto size = static_cast<size_t>(info.st_size);
  if ((::fcntl(fd, F_GET_SEALS) & kSeals) != kSeals || size < min_bytes || size == 0) {
    ::close(fd);
    return errorf(Code::kDataCorrupt,
                  "descriptor {} is not a sealed shared memory of at least {} bytes (it has {})",
                  fd, min_bytes, size);
  }
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    const Error error = os_error(format("cannot map {} bytes of shared memory", size));
    ::close(fd);
    return error;
  }
  return ShmRegion(fd, static_cast<uint8_t*>(at), size);
}

ShmRegion::ShmRegion(ShmRegion&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

ShmRegion& ShmRegion::operator=(ShmRegion&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

ShmRegion::~ShmRegion() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace towline::net
