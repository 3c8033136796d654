// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a .safetensors file, and any JSON as a config.json.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "engine/format/model_shape.hpp"
#include "engine/format/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline;
  using namespace towline::engine;
  const auto tensors = read_safetensors(std::as_bytes(std::span(data, size)));
  if (tensors) {
    for (const SafeTensor& t : *tensors) {
      if (t.begin > t.end || t.end > size) std::abort();
      (void)gguf_name_of_hf(t.name);
    }
  }
  const Result<Json> json = parse_json({reinterpret_cast<const char*>(data), size}, "config.json");
  if (!json) return 0;
  const Result<spec::ModelDesc> desc = desc_from_hf_config(*json);
  if (desc && !validate(*desc)) std::abort();
  return 0;
}
