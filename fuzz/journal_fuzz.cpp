// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Journals (obs/journal.hpp): no crash, an end in bounded time, offsets that grow.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.hpp"
#include "obs/journal.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using towline::obs::JournalReader;
  auto reader =
      JournalReader::from_bytes(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  int64_t last = 0;
  while (reader) {
    const auto record = reader->next();
    if (!record || !record->has_value()) break;
    CHECK(reader->offset() > last, reader->offset(), last);
    last = reader->offset();
    CHECK(record->value().payload.size() <= size, size);
  }
  return 0;
}
