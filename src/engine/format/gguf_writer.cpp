// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/gguf_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "base/fmt.hpp"
#include "engine/format/gguf.hpp"

namespace towline::engine {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;

int64_t align_up(int64_t n) {
  return (n + kGgufDefaultAlignment - 1) / kGgufDefaultAlignment * kGgufDefaultAlignment;
}

// Everything before the data, padded to the alignment.
std::string encode_header(const GgufMeta& meta, std::span<const PlannedTensor> tensors) {
  std::string out;
  const auto put = [&](auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(kGgufMagic);
  put(uint32_t{3});
  put(static_cast<uint64_t>(tensors.size()));
  put(static_cast<uint64_t>(meta.size()));
  out += meta.encode();
  int64_t offset = 0;
  for (const PlannedTensor& t : tensors) {
    put(static_cast<uint64_t>(t.name.size()));
    out += t.name;
    const bool vector = t.rows == 1;
    put(vector ? uint32_t{1} : uint32_t{2});
    put(static_cast<uint64_t>(t.cols));
    if (!vector) put(static_cast<uint64_t>(t.rows));
    put(dtype_info(t.dtype).gguf_type);
    put(static_cast<uint64_t>(offset));
    offset = align_up(offset + t.bytes());
  }
  out.resize(static_cast<size_t>(align_up(static_cast<int64_t>(out.size()))));
  return out;
}

// A file under a temporary name that is removed unless it was published.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path)
      : path_(path), temporary_(path + ".tmp-" + std::to_string(::getpid())) {}
  ~TemporaryFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    if (!published_) ::unlink(temporary_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  Result<void> create(int64_t bytes) {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) return failure("create");
    if (::ftruncate(fd_, bytes) != 0) return failure("resize");
    return {};
  }
  Result<void> write_at(int64_t offset, const void* data, size_t size) const {
    const char* from = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t n = ::pwrite(fd_, from, size, offset);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return failure("write");
      from += n;
      offset += n;
      size -= static_cast<size_t>(n);
    }
    return {};
  }
  Result<void> publish() {
    if (::fsync(fd_) != 0) return failure("write");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return failure("rename");
    published_ = true;
    return {};
  }

 private:
  Error failure(std::string_view doing) const {
    const Code code = errno == ENOENT   ? Code::kNotFound
                      : errno == ENOSPC ? Code::kExhausted
                      : errno == EACCES ? Code::kPermissionDenied
                                        : Code::kIo;
    return errorf(code, "cannot {} '{}': {}", doing, temporary_, std::strerror(errno));
  }
  std::string path_, temporary_;
  int fd_ = -1;
  bool published_ = false;
};

// Rows [begin, end) of one tensor: what a thread does at a time.
struct Chunk {
  size_t tensor;
  int64_t begin, end;
  int64_t offset;  // in the file
  size_t bytes;
};

std::vector<Chunk> cut_into_chunks(std::span<const PlannedTensor> tensors, int64_t data_begin) {
  std::vector<Chunk> chunks;
  int64_t tensor_offset = data_begin;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const PlannedTensor& t = tensors[i];
    const int64_t row = row_bytes(t.dtype, t.cols);
    const int64_t step = std::max<int64_t>(1, kChunkBytes / row);
    for (int64_t r = 0; r < t.rows; r += step) {
      const int64_t end = std::min(t.rows, r + step);
      chunks.push_back(
          {i, r, end, tensor_offset + r * row, static_cast<size_t>((end - r) * row)});
    }
    tensor_offset = align_up(tensor_offset + t.bytes());
  }
  return chunks;
}

// Fills and writes all chunks with a few threads; the first error stops them all.
class ChunkWriter {
 public:
  ChunkWriter(const TemporaryFile& file, std::vector<Chunk> chunks, const FillRows& fill,
              const WriteOptions& options)
      : file_(file), chunks_(std::move(chunks)), fill_(fill), options_(options) {
    for (const Chunk& c : chunks_) total_ += static_cast<int64_t>(c.bytes);
  }

  Result<void> run() {
    {
      std::vector<std::jthread> team;
      for (int i = 1; i < options_.threads; ++i) team.emplace_back([this] { work(); });
      work();
    }
    if (error_) return *std::move(error_);
    return {};
  }

 private:
  void work() {
    std::vector<std::byte> buffer;
    while (!stop_.load(std::memory_order_relaxed)) {
      const size_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= chunks_.size()) return;
      const Chunk& c = chunks_[index];
      buffer.resize(std::max(buffer.size(), c.bytes));
      Result<void> done = fill_(c.tensor, c.begin, c.end, buffer.data());
      if (done) done = file_.write_at(c.offset, buffer.data(), c.bytes);
      report(c, std::move(done));
    }
  }

  void report(const Chunk& c, Result<void> done) {
    const std::lock_guard lock(mutex_);
    if (!done) {
      if (!error_) error_ = std::move(done).error();
      stop_ = true;
      return;
    }
    done_ += static_cast<int64_t>(c.bytes);
    if (options_.progress) options_.progress(done_, total_);
  }

  const TemporaryFile& file_;
  const std::vector<Chunk> chunks_;
  const FillRows& fill_;
  const WriteOptions& options_;
  int64_t total_ = 0;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;  // guards the two below
  int64_t done_ = 0;
  std::optional<Error> error_;
};

}  // namespace

int64_t gguf_file_bytes(const GgufMeta& meta, std::span<const PlannedTensor> tensors) {
  auto bytes = static_cast<int64_t>(encode_header(meta, tensors).size());
  for (const PlannedTensor& t : tensors) bytes = align_up(bytes + t.bytes());
  return bytes;
}

Result<void> write_gguf(const std::string& path, const GgufMeta& meta,
                        std::span<const PlannedTensor> tensors, const FillRows& fill,
                        const WriteOptions& options) {
  const std::string header = encode_header(meta, tensors);
  TemporaryFile file(path);
  TRY(file.create(gguf_file_bytes(meta, tensors)));
  TRY(file.write_at(0, header.data(), header.size()));
  ChunkWriter writer(file, cut_into_chunks(tensors, static_cast<int64_t>(header.size())), fill,
                     options);
  TRY(writer.run());
  return file.publish();
}

}  // namespace towline::engine
