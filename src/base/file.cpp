// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/fmt.hpp"

namespace towline {
namespace {

Error system_error(const std::string& path, std::string_view doing) {
  const int err = errno;
  const Code code = err == ENOENT                      ? Code::kNotFound
                    : err == EACCES || err == EPERM    ? Code::kPermissionDenied
                                                       : Code::kIo;
  return errorf(code, "cannot {} '{}': {}", doing, path, std::strerror(err));
}

struct Fd {
  int fd = -1;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

Result<size_t> regular_size(const Fd& file, const std::string& path) {
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) return system_error(path, "read");
  if (S_ISDIR(info.st_mode)) {
    return errorf(Code::kInvalidArgument, "'{}' is a directory; a file is needed here", path);
  }
  return static_cast<size_t>(info.st_size);
}

}  // namespace

Result<std::string> read_file(const std::string& path, int64_t max_bytes) {
  Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return system_error(path, "open");
  ASSIGN_OR_RETURN(const size_t size, regular_size(file, path));
  std::string bytes;
  bytes.reserve(size);
  char chunk[1 << 16];
  while (true) {  // by chunks, so that pipes and /proc files work too
    const ssize_t n = ::read(file.fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path, "read");
    if (n == 0) return bytes;
    bytes.append(chunk, static_cast<size_t>(n));
    if (static_cast<int64_t>(bytes.size()) > max_bytes) {
      return errorf(Code::kExhausted, "'{}' is larger than the {} bytes allowed here", path,
                    max_bytes);
    }
  }
}

namespace {

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// /dev/stdout, a pipe: a file must not be put in its place.
bool is_device(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

}  // namespace

Result<void> write_file_atomic(const std::string& path, std::string_view bytes) {
  if (is_device(path)) {
    const Fd device{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
    if (device.fd < 0 || !write_all(device.fd, bytes)) return system_error(path, "write");
    return {};
  }
  const std::string temporary = path + ".tmp-" + std::to_string(::getpid());
  Fd file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (file.fd < 0) return system_error(path, "write");
  const auto fail = [&]() -> Error {
    Error error = system_error(path, "write");
    ::unlink(temporary.c_str());
    return error;
  };
  if (!write_all(file.fd, bytes) || ::fsync(file.fd) != 0) return fail();
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail();
  return {};
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not wait.
  Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) return system_error(path, "open");
  struct stat info {};
  if (::fstat(file.fd, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
    return errorf(Code::kInvalidArgument, "'{}' is a pipe or a device; an ordinary file is needed",
                  path);
  }
  ASSIGN_OR_RETURN(const size_t size, regular_size(file, path));
  if (size == 0) return MappedFile(path, nullptr, 0);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) return system_error(path, "map");
  return MappedFile(path, static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::drop_pages(size_t offset, size_t length) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;  // whole pages inside the range only
  const size_t end = (offset + length) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace towline
