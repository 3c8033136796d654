// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as JSON: what parses must print as JSON that parses to the same value.
#include <cstdint>
#include <cstdlib>

#include "base/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline;
  const Result<Json> json = parse_json({reinterpret_cast<const char*>(data), size}, "input");
  if (!json) return 0;
  const std::string text = json->dump();
  const Result<Json> again = parse_json(text, "dump");
  if (!again || again->dump() != text) std::abort();
  return 0;
}
