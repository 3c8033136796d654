// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "obs/journal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/crc32c.hpp"
#include "base/fmt.hpp"

namespace towline::obs {
namespace {

constexpr size_t kHead = 8;      // size and checksum
constexpr size_t kBodyHead = 12;  // now, machine, kind
constexpr size_t kBuffered = size_t{256} << 10;

template <class T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof value; ++i) {
    out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

template <class T>
T get(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  }
  return static_cast<T>(value);
}

}  // namespace

// --- writing ------------------------------------------------------------------------------------

Result<JournalWriter> JournalWriter::create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return errorf(Code::kIo, "cannot write the journal '{}': {}", path, std::strerror(errno));
  }
  JournalWriter writer(path, fd);
  writer.buffer_ = kJournalMagic;
  writer.bytes_ = static_cast<int64_t>(kJournalMagic.size());
  return writer;
}

JournalWriter::JournalWriter(JournalWriter&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)),
      bytes_(other.bytes_),
      failed_(other.failed_) {}

JournalWriter& JournalWriter::operator=(JournalWriter&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(buffer_, other.buffer_);
  std::swap(bytes_, other.bytes_);
  std::swap(failed_, other.failed_);
  return *this;
}

JournalWriter::~JournalWriter() { (void)close(); }

Result<void> JournalWriter::fail(std::string_view doing) {
  const int cause = errno;
  failed_ = true;
  buffer_.clear();
  return errorf(cause == ENOSPC ? Code::kExhausted : Code::kIo, "cannot {} the journal '{}': {}",
                doing, path_, std::strerror(cause));
}

Result<void> encode_record(const JournalRecord& record, std::string& out) {
  if (record.payload.size() > JournalWriter::kMaxPayload) {
    return errorf(Code::kInvalidArgument, "a journal record of {} bytes is above the limit of {}",
                  record.payload.size(), JournalWriter::kMaxPayload);
  }
  const size_t begin = out.size();
  put(out, static_cast<uint32_t>(kBodyHead + record.payload.size()));
  put(out, uint32_t{0});
  put(out, record.now);
  put(out, record.machine);
  put(out, static_cast<uint16_t>(record.kind));
  out.append(record.payload);
  const uint32_t crc = crc32c(std::string_view(out).substr(begin + kHead));
  for (size_t i = 0; i < 4; ++i) out[begin + 4 + i] = static_cast<char>(crc >> (8 * i));
  return {};
}

Result<void> JournalWriter::append(const JournalRecord& record) {
  if (failed_ || fd_ < 0) {
    return errorf(Code::kIo, "the journal '{}' failed before and takes no more", path_);
  }
  const size_t begin = buffer_.size();
  TRY(encode_record(record, buffer_));
  bytes_ += static_cast<int64_t>(buffer_.size() - begin);
  return buffer_.size() < kBuffered ? Result<void>() : flush();
}

Result<void> JournalWriter::flush() {
  std::string_view left = buffer_;
  while (!left.empty()) {
    const ssize_t n = ::write(fd_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("write");
    left.remove_prefix(static_cast<size_t>(n));
  }
  buffer_.clear();
  return {};
}

Result<void> JournalWriter::sync() {
  TRY(flush());
  if (::fdatasync(fd_) != 0 && errno != EINVAL) return fail("sync");  // EINVAL: not a plain file
  return {};
}

Result<void> JournalWriter::close() {
  if (fd_ < 0) return {};
  Result<void> flushed = flush();
  ::close(std::exchange(fd_, -1));
  return flushed;
}

// --- reading ------------------------------------------------------------------------------------

Result<JournalReader> JournalReader::open(const std::string& path) {
  JournalReader reader;
  reader.source_ = path;
  reader.file_.reset(std::fopen(path.c_str(), "rb"));
  if (!reader.file_) {
    return errorf(errno == ENOENT ? Code::kNotFound : Code::kIo,
                  "cannot open the journal '{}': {}", path, std::strerror(errno));
  }
  TRY(reader.begin());
  return reader;
}

Result<JournalReader> JournalReader::from_bytes(std::string bytes, std::string source) {
  JournalReader reader;
  reader.source_ = std::move(source);
  reader.buffer_ = std::move(bytes);
  reader.ended_ = true;
  TRY(reader.begin());
  return reader;
}

Result<void> JournalReader::begin() {
  ASSIGN_OR_RETURN(const bool whole, need(kJournalMagic.size()));
  if (!whole || std::string_view(buffer_).substr(0, kJournalMagic.size()) != kJournalMagic) {
    return errorf(Code::kDataCorrupt, "{}: not a journal (it does not begin with {})", source_,
                  kJournalMagic);
  }
  at_ = kJournalMagic.size();
  offset_ = static_cast<int64_t>(at_);
  return {};
}

Result<bool> JournalReader::need(size_t size) {
  while (buffer_.size() - at_ < size) {
    if (ended_) return false;
    if (at_ > 0) {
      buffer_.erase(0, at_);
      at_ = 0;
    }
    const size_t have = buffer_.size();
    // By blocks: a false size costs no more memory than the file has bytes.
    buffer_.resize(have + kBuffered);
    const size_t n = std::fread(buffer_.data() + have, 1, kBuffered, file_.get());
    buffer_.resize(have + n);
    if (n < kBuffered) {
      if (std::ferror(file_.get())) {
        return errorf(Code::kIo, "cannot read the journal '{}': {}", source_,
                      std::strerror(errno));
      }
      ended_ = true;
    }
  }
  return true;
}

// Space that was reserved and never written.
bool JournalReader::only_zeros_left() {
  for (;;) {
    for (; at_ < buffer_.size(); ++at_) {
      if (buffer_[at_] != 0) return false;
    }
    const Result<bool> more = need(1);
    if (!more || !*more) return true;
  }
}

Result<std::optional<JournalRecord>> JournalReader::next() {
  const auto end = [&](bool torn) {
    torn_ = torn;
    at_ = buffer_.size();
    ended_ = true;
    return std::optional<JournalRecord>();
  };
  ASSIGN_OR_RETURN(const bool head, need(kHead));
  if (!head) return end(at_ < buffer_.size());
  const auto size = get<uint32_t>(std::string_view(buffer_).substr(at_));
  const auto crc = get<uint32_t>(std::string_view(buffer_).substr(at_ + 4));
  const auto damaged = [&] {
    return errorf(Code::kDataCorrupt, "{}: the record at byte {} is damaged; what is before it can "
                  "be used", source_, offset_);
  };
  if (size == 0 && crc == 0 && only_zeros_left()) return end(true);
  if (size < kBodyHead || size > kBodyHead + JournalWriter::kMaxPayload) return damaged();
  ASSIGN_OR_RETURN(const bool body, need(kHead + size));
  if (!body) return end(true);
  const std::string_view bytes = std::string_view(buffer_).substr(at_ + kHead, size);
  if (crc32c(bytes) != crc) {
    const size_t after = kHead + size;
    ASSIGN_OR_RETURN(const bool more, need(after + 1));
    if (more) return damaged();
    return end(true);
  }
  JournalRecord record;
  record.now = get<int64_t>(bytes);
  record.machine = get<uint16_t>(bytes.substr(8));
  record.kind = static_cast<RecordKind>(get<uint16_t>(bytes.substr(10)));
  record.payload = bytes.substr(kBodyHead);
  at_ += kHead + size;
  offset_ += static_cast<int64_t>(kHead + size);
  return std::optional(record);
}

// --- actions ------------------------------------------------------------------------------------

std::string actions_payload(uint64_t digest, int64_t actions) {
  std::string bytes;
  put(bytes, digest);
  put(bytes, actions);
  return bytes;
}

std::optional<ActionsSeen> parse_actions(std::string_view payload) {
  if (payload.size() != 16) return std::nullopt;
  return ActionsSeen{get<uint64_t>(payload), get<int64_t>(payload.substr(8))};
}

}  // namespace towline::obs
