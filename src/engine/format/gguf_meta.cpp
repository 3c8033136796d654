// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/gguf_meta.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/format/gguf.hpp"

namespace towline::engine {
namespace {

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}
void put_type(std::string& out, GgufType type) { put(out, static_cast<uint32_t>(type)); }
void put_array(std::string& out, GgufType element, size_t count) {
  put_type(out, GgufType::kArray);
  put_type(out, element);
  put(out, static_cast<uint64_t>(count));
}

}  // namespace

std::string& GgufMeta::slot(std::string_view key) {
  for (auto& [name, bytes] : entries_) {
    if (name == key) {
      bytes.clear();
      return bytes;
    }
  }
  return entries_.emplace_back(std::string(key), std::string()).second;
}

void GgufMeta::set_u32(std::string_view key, uint32_t value) {
  std::string& out = slot(key);
  put_type(out, GgufType::kU32);
  put(out, value);
}

void GgufMeta::set_f32(std::string_view key, float value) {
  std::string& out = slot(key);
  put_type(out, GgufType::kF32);
  put(out, value);
}

void GgufMeta::set_bool(std::string_view key, bool value) {
  std::string& out = slot(key);
  put_type(out, GgufType::kBool);
  put(out, static_cast<uint8_t>(value));
}

void GgufMeta::set_string(std::string_view key, std::string_view value) {
  std::string& out = slot(key);
  put_type(out, GgufType::kString);
  put_text(out, value);
}

void GgufMeta::set_strings(std::string_view key, std::span<const std::string> values) {
  std::string& out = slot(key);
  put_array(out, GgufType::kString, values.size());
  for (const std::string& value : values) put_text(out, value);
}

void GgufMeta::set_i32s(std::string_view key, std::span<const int32_t> values) {
  std::string& out = slot(key);
  put_array(out, GgufType::kI32, values.size());
  for (const int32_t value : values) put(out, value);
}

void GgufMeta::set_f32s(std::string_view key, std::span<const float> values) {
  std::string& out = slot(key);
  put_array(out, GgufType::kF32, values.size());
  for (const float value : values) put(out, value);
}

void GgufMeta::set_bytes(std::string_view key, std::span<const std::byte> bytes) {
  slot(key).assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

bool GgufMeta::contains(std::string_view key) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const auto& entry) { return entry.first == key; });
}

std::string GgufMeta::encode() const {
  std::string out;
  for (const auto& [key, bytes] : entries_) {
    put_text(out, key);
    out += bytes;
  }
  return out;
}

std::string gguf_architecture(const spec::ModelDesc& desc) {
  return desc.architecture == "mistral" ? "llama" : desc.architecture;
}

void set_model_keys(const spec::ModelDesc& d, GgufMeta& meta) {
  const std::string architecture = gguf_architecture(d);
  const auto u32 = [&](std::string_view suffix, int32_t value) {
    meta.set_u32(architecture + "." + std::string(suffix), static_cast<uint32_t>(value));
  };
  const auto f32 = [&](std::string_view suffix, float value) {
    meta.set_f32(architecture + "." + std::string(suffix), value);
  };
  meta.set_string("general.architecture", architecture);
  meta.set_string("general.type", "model");
  meta.set_string("general.name", d.name);
  u32("block_count", d.layers);
  u32("context_length", d.context);
  u32("embedding_length", d.hidden);
  u32("feed_forward_length", d.ffn);
  u32("attention.head_count", d.heads);
  u32("attention.head_count_kv", d.kv_heads);
  u32("attention.key_length", d.head_dim);
  u32("attention.value_length", d.head_dim);
  u32("vocab_size", d.vocab);
  u32("rope.dimension_count", d.rope_dim);
  f32("rope.freq_base", d.rope_theta);
  f32("attention.layer_norm_rms_epsilon", d.norm_eps);
  if (d.sliding_window > 0) u32("attention.sliding_window", d.sliding_window);
  if (d.rope_scaling == spec::RopeScaling::kLinear) {
    meta.set_string(architecture + ".rope.scaling.type", "linear");
    f32("rope.scaling.factor", d.rope_factor);
  }
}

std::vector<float> llama3_rope_factors(const spec::ModelDesc& d) {
  std::vector<float> factors(static_cast<size_t>(d.rope_dim / 2));
  const double context = d.rope_original_context;
  const double low = d.rope_low_freq, high = d.rope_high_freq;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / d.rope_dim;
    const double wavelength = 2 * std::numbers::pi * std::pow(double{d.rope_theta}, exponent);
    const double ramp = std::clamp((context / wavelength - low) / (high - low), 0.0, 1.0);
    factors[i] = static_cast<float>(1.0 / ((1 - ramp) / d.rope_factor + ramp));
  }
  return factors;
}

}  // namespace towline::engine
