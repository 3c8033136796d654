// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "obs/background_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/fmt.hpp"

namespace towline::obs {
namespace {

constexpr std::chrono::milliseconds kGather(50);  // small appends are written together
constexpr size_t kEnough = size_t{256} << 10;     // ...unless there is so much

}  // namespace

Result<std::unique_ptr<BackgroundFile>> BackgroundFile::create(const std::string& path,
                                                               size_t most_waiting) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return errorf(Code::kIo, "cannot write '{}': {}", path, std::strerror(errno));
  return std::unique_ptr<BackgroundFile>(new BackgroundFile(path, fd, most_waiting));
}

BackgroundFile::BackgroundFile(std::string path, int fd, size_t most_waiting)
    : path_(std::move(path)), fd_(fd), most_waiting_(most_waiting) {
  thread_ = std::thread([this] { loop(); });
}

BackgroundFile::~BackgroundFile() { (void)close(); }

bool BackgroundFile::append(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (failed_ || closing_) return false;
  if (waiting_.size() + bytes.size() > most_waiting_) {
    failed_ = true;
    failure_ = errorf(Code::kExhausted, "'{}' takes the bytes too slowly: {} MiB wait", path_,
                      waiting_.size() >> 20);
    return false;
  }
  const bool wake = waiting_.empty() || (waiting_.size() < kEnough &&
                                         waiting_.size() + bytes.size() >= kEnough);
  waiting_.append(bytes);
  if (wake) changed_.notify_one();
  return true;
}

std::optional<Error> BackgroundFile::take_failure() {
  const std::lock_guard lock(mutex_);
  return std::exchange(failure_, std::nullopt);
}

Result<void> BackgroundFile::close() {
  if (!std::exchange(closed_, true)) {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_one();
    thread_.join();
    ::close(fd_);
  }
  if (std::optional<Error> failure = take_failure()) return *std::move(failure);
  return {};
}

void BackgroundFile::loop() {
  std::string bytes;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    changed_.wait_for(lock, kGather, [this] { return closing_ || waiting_.size() >= kEnough; });
    bytes.clear();
    std::swap(bytes, waiting_);
    lock.unlock();
    std::optional<Error> fault = write_all(bytes);
    lock.lock();
    if (!fault) continue;
    if (!std::exchange(failed_, true)) failure_ = std::move(fault);
    return;
  }
}

std::optional<Error> BackgroundFile::write_all(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int cause = errno;
      return errorf(cause == ENOSPC ? Code::kExhausted : Code::kIo, "cannot write '{}': {}", path_,
                    std::strerror(cause));
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return std::nullopt;
}

}  // namespace towline::obs
