// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A line of adapter_config.json, then the bytes of adapter_model.safetensors, for a tiny model.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "engine/lora.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline;
  using namespace towline::engine;
  spec::ModelDesc d;
  d.layers = 2;
  d.hidden = d.ffn = 8;
  d.heads = 2;
  d.kv_heads = 1;
  d.head_dim = d.rope_dim = 4;
  d.vocab = 32;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  if (line == std::string_view::npos) return 0;
  const Result<Json> config = parse_json(text.substr(0, line), "adapter_config.json");
  if (!config) return 0;
  const auto weights = std::as_bytes(std::span(data, size)).subspan(line + 1);
  const auto whole = LoraAdapter::parse(*config, weights, d, {0, 2});
  const auto part = LoraAdapter::parse(*config, weights, d, {1, 2}, {1, 2});
  if (whole && !part) std::abort();  // this model can be split
  return 0;
}
