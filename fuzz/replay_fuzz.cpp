// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Replaying journals (sim/replay.hpp): whatever the events say, the host meets no bug of its own;
// and the workload they tell of (sim/journal_workload.hpp) is one that can be simulated.
// The input is a list of records: a byte for the kind (three bits) and how much later it is (five),
// two for the size, and the payload, so that the checksums are right.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.hpp"
#include "base/crc32c.hpp"
#include "obs/journal.hpp"
#include "sim/journal_workload.hpp"
#include "sim/replay.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes = "TLJOURN1";
  const auto put32 = [&](uint32_t v) {
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(v >> (8 * i)));
  };
  uint64_t now = 0;
  for (size_t at = 0; at + 3 <= size;) {
    const uint8_t kind = data[at];
    const size_t wanted = data[at + 1] + size_t{256} * data[at + 2];
    at += 3;
    const size_t length = wanted < size - at ? wanted : size - at;
    now += kind >> 3;
    std::string body;
    for (int i = 0; i < 8; ++i) body.push_back(static_cast<char>(now >> (8 * i)));
    body.append(2, '\0');  // the machine
    body.push_back(static_cast<char>(kind % 8));
    body.push_back('\0');
    body.append(reinterpret_cast<const char*>(data + at), length);
    at += length;
    put32(static_cast<uint32_t>(body.size()));
    put32(towline::crc32c(body));
    bytes += body;
  }
  auto journal = towline::obs::JournalReader::from_bytes(bytes, "fuzz");
  if (journal) (void)towline::sim::replay(*journal);
  auto again = towline::obs::JournalReader::from_bytes(bytes, "fuzz");
  if (!again) return 0;
  const auto workload = towline::sim::journal_workload(*again);
  if (!workload) return 0;
  int64_t last = 0;
  for (const towline::spec::TraceRequest& r : *workload) {
    CHECK(r.arrival_ns >= last && r.input >= 1 && r.output >= 1, r.arrival_ns, r.input, r.output);
    last = r.arrival_ns;
  }
  return 0;
}
