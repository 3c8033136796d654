// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Recorded runs of a rank (spec/run_record.hpp), and a profile learned from them
// (spec/profile_learn.hpp): whatever is read teaches finite times, or is refused.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/check.hpp"
#include "spec/profile_learn.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline;
  using namespace towline::spec;
  static const Profile profile = *builtin_profile("llama1-30b");
  const auto json = parse_json({reinterpret_cast<const char*>(data), size}, "trace");
  if (!json) return 0;
  const auto runs = parse_runs(*json, "trace");
  if (!runs) return 0;
  const MessageTimes messages = message_times({&*runs, 1}, profile.model.layers);
  CHECK(messages.between >= 0 && messages.coordinator >= 0 && messages.mean(1) >= 0,
        messages.between);
  for (const DeviceProfile& device : profile.devices) {
    const auto learned = learn_times(device, profile.model.layers, *runs);
    if (!learned) continue;
    for (const auto* table : {&learned->device.prompt, &learned->device.decode}) {
      for (const LayerTime& row : *table) CHECK(std::isfinite(row.time.value), row.tokens);
    }
    CHECK(std::isfinite(learned->factor) && learned->drift >= 1, learned->factor, learned->drift);
  }
  return 0;
}
