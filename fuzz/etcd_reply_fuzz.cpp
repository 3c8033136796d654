// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever a registry answers: values that keep their promises, or an error with a short message.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "net/etcd_reply.hpp"
#include "net/leadership.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline;
  using namespace towline::net;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  if (const auto entries = read_etcd_range(body, "p/")) {
    const RegistryEntry* before = nullptr;
    for (const RegistryEntry& entry : *entries) {
      if (entry.key.empty() || entry.version <= 0) std::abort();
      if (before != nullptr && before->key >= entry.key) std::abort();
      before = &entry;
      (void)LeaderRecord::parse(entry.value);
    }
  }
  (void)read_etcd_txn(body);
  for (const auto& lease : {read_etcd_grant(body), read_etcd_renewal(body)}) {
    if (lease && (lease->id == kNoLease || lease->time <= Duration(0))) std::abort();
  }
  if (etcd_error(500, body).message().size() > 600) std::abort();
  if (const auto record = LeaderRecord::parse(body)) {
    const auto again = LeaderRecord::parse(record->dump());
    if (!again || again->dump() != record->dump() || record->epoch < 1) std::abort();
  }
  return 0;
}
