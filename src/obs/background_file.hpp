// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// BackgroundFile: a file that a thread of its own writes, so that whoever appends never waits for a
// disk. What is not written yet is bounded: a disk that falls so far behind counts as failed, like
// a full one. After a failure nothing more is taken; the owner learns of it and goes on without.
//
// Threading: append(), failure() and close() are for one thread, the owner's.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.hpp"

namespace towline::obs {

class BackgroundFile {
 public:
  static constexpr size_t kMostWaiting = size_t{64} << 20;

  // Replaces a file of this name.
  static Result<std::unique_ptr<BackgroundFile>> create(const std::string& path,
                                                        size_t most_waiting = kMostWaiting);
  ~BackgroundFile();  // as close()
  BackgroundFile(const BackgroundFile&) = delete;
  BackgroundFile& operator=(const BackgroundFile&) = delete;

  // False: it has failed, now or before. What is appended is with the operating system within a
  // twentieth of a second.
  bool append(std::string_view bytes);
  // Why it failed; once, later calls give nothing.
  std::optional<Error> take_failure();
  // Waits until everything is written.
  Result<void> close();
  const std::string& path() const { return path_; }

 private:
  BackgroundFile(std::string path, int fd, size_t most_waiting);
  void loop();
  std::optional<Error> write_all(std::string_view bytes) const;

  const std::string path_;
  const int fd_;
  const size_t most_waiting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;              // guarded by mutex_
  bool failed_ = false, closing_ = false;  // guarded by mutex_
  std::optional<Error> failure_;     // guarded by mutex_
  bool closed_ = false;              // the owner's
  std::thread thread_;
};

}  // namespace towline::obs
