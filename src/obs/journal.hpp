// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Journal: what a run's policy machines were told, in order, so that the run can be repeated.
//
// A policy machine is a pure function of the events it received (docs/architecture.md).
// So a journal holds its configuration, every event with the instant at which it came,
// and from time to time a digest of the actions that it answered with. Replaying feeds a fresh
// machine the same events and compares the digests: the decisions are the same, bit for bit,
// or the first difference is found.
//
// File format (docs/formats.md), all numbers little-endian:
//   "TLJOURN1"                                        8 bytes
//   then records: u32 size of the body | u32 crc32c of the body | body
//   body: i64 now (ns) | u16 machine | u16 kind | payload, size - 12 bytes
// A run that dies leaves a torn last record; readers take it for the end of the file. Damage before
// the end is an error that names the offset.
//
// What the bytes of an event mean is the machine's business (policy/*_journal.hpp). One machine's
// records are in order of time; different machines may share a file.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace towline::obs {

enum class RecordKind : uint16_t {
  kSetup = 1,    // payload: JSON, the configuration the machine was made with
  kEvent = 2,    // payload: one event, in the machine's own encoding
  kActions = 3,  // payload: i64 digest of all actions so far (base/digest.hpp), i64 their number
  kNote = 4,     // payload: text for people; replay ignores it
  kEnd = 5,      // written last by a run that ended in order; payload empty
};

struct JournalRecord {
  int64_t now = 0;       // ns on the driver's clock
  uint16_t machine = 0;  // the driver's number of the machine
  RecordKind kind = RecordKind::kEvent;
  std::string_view payload;  // of a record read: valid until the next read
};

// What a journal's file begins with.
inline constexpr std::string_view kJournalMagic = "TLJOURN1";
// Appends a record's bytes to `out`. Refuses a payload above JournalWriter::kMaxPayload.
Result<void> encode_record(const JournalRecord& record, std::string& out);

// Buffers up to 256 KiB. One thread. A full disk or any other failure is reported once by the call
// that met it and by every call after it; the run may go on without a journal.
class JournalWriter {
 public:
  static constexpr size_t kMaxPayload = size_t{64} << 20;

  // Replaces a file of this name.
  static Result<JournalWriter> create(const std::string& path);
  JournalWriter(JournalWriter&&) noexcept;
  JournalWriter& operator=(JournalWriter&&) noexcept;
  ~JournalWriter();  // flushes; call close() to learn whether that worked

  Result<void> append(const JournalRecord& record);
  // To the operating system: survives this process's death.
  Result<void> flush();
  // To the disk: survives the machine's.
  Result<void> sync();
  Result<void> close();
  int64_t bytes() const { return bytes_; }  // of the file, buffered ones included

 private:
  explicit JournalWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  Result<void> fail(std::string_view doing);

  std::string path_;
  int fd_ = -1;
  std::string buffer_;
  int64_t bytes_ = 0;
  bool failed_ = false;
};

// Streams a journal in bounded memory. Safe against hostile input.
class JournalReader {
 public:
  static Result<JournalReader> open(const std::string& path);
  // From bytes, for tests and fuzzing; `source` names them in errors.
  static Result<JournalReader> from_bytes(std::string bytes, std::string source);

  // The next record, or nothing at the end (of a file cut short: at its last whole record).
  Result<std::optional<JournalRecord>> next();
  // After the end: the file stops in the middle of a record.
  bool torn() const { return torn_; }
  int64_t offset() const { return offset_; }  // of the next record

 private:
  struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  JournalReader() = default;
  Result<void> begin();
  // Makes `size` bytes from at_ on available; false if the file ends before.
  Result<bool> need(size_t size);
  bool only_zeros_left();

  std::string source_;
  std::unique_ptr<std::FILE, FileCloser> file_;
  std::string buffer_;
  size_t at_ = 0;
  int64_t offset_ = 0;
  bool ended_ = false, torn_ = false;
};

// Payload of kActions.
std::string actions_payload(uint64_t digest, int64_t actions);
struct ActionsSeen {
  uint64_t digest = 0;
  int64_t actions = 0;
  friend bool operator==(const ActionsSeen&, const ActionsSeen&) = default;
};
std::optional<ActionsSeen> parse_actions(std::string_view payload);

}  // namespace towline::obs
