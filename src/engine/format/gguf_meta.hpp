// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// GgufMeta: the metadata of a GGUF file that is about to be written, in the order set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spec/model_desc.hpp"

namespace towline::engine {

class GgufMeta {
 public:
  // Each replaces a value of the same key.
  void set_u32(std::string_view key, uint32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_i32s(std::string_view key, std::span<const int32_t> values);
  void set_f32s(std::string_view key, std::span<const float> values);
  // `bytes`: a type and a value as they stand in another file (ModelFile::meta_bytes).
  void set_bytes(std::string_view key, std::span<const std::byte> bytes);

  bool contains(std::string_view key) const;
  size_t size() const { return entries_.size(); }
  // All key-value pairs as the file has them.
  std::string encode() const;

 private:
  std::string& slot(std::string_view key);
  std::vector<std::pair<std::string, std::string>> entries_;  // key, type and value
};

// The architecture a GGUF file of this model names: mistral's is "llama".
std::string gguf_architecture(const spec::ModelDesc& desc);

// Sets general.* and <architecture>.* keys so that desc_from_gguf gives `desc` back (a llama3
// rotary scaling becomes a table: llama3_rope_factors and the tensor rope_freqs.weight).
void set_model_keys(const spec::ModelDesc& desc, GgufMeta& meta);

// The divisor of each rotary frequency under llama3 scaling (Llama 3.1's reference code):
// wavelengths beyond context/low_freq are stretched by the factor, those below context/high_freq
// are left, and between them 1/divisor goes linearly from one to the other.
std::vector<float> llama3_rope_factors(const spec::ModelDesc& desc);

}  // namespace towline::engine
