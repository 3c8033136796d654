// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Test code only: a small model of random weights, of any architecture and weight type.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/format/dummy_model.hpp"
#include "engine/format/model_file.hpp"
#include "engine/format/test_files.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

// Widths that every weight type and up to 8 ranks divide; four query heads of each KV head; an
// output matrix whose 19 panels no number of threads divides.
inline spec::ModelDesc small_shape(const std::string& architecture, int32_t layers) {
  spec::ModelDesc d;
  d.name = "small";
  d.architecture = architecture;
  d.layers = layers;
  d.hidden = 256;
  d.ffn = 512;
  d.heads = 8;
  d.kv_heads = 2;
  d.head_dim = d.rope_dim = 32;
  d.vocab = 300;
  d.context = 512;
  d.qkv_bias = architecture == "qwen2";
  d.qk_norm = architecture == "qwen3";
  d.rope_pairing = architecture == "llama" ? spec::RopePairing::kInterleaved
                                           : spec::RopePairing::kHalfSplit;
  return d;
}

// The path of a GGUF file of that shape in `dir`.
inline std::string write_model(const TempDir& dir, const spec::ModelDesc& d,
                               const std::string& type) {
  std::string path = dir / (d.architecture + "-" + type + ".gguf");
  const auto made = make_dummy_model(d, *quant_recipe(type), 7, path, {});
  EXPECT_TRUE(made) << made.error().to_string();
  return path;
}

inline std::shared_ptr<const ModelFile> make_model(const TempDir& dir, const spec::ModelDesc& d,
                                                   const std::string& type) {
  auto file = ModelFile::open(write_model(dir, d, type));
  EXPECT_TRUE(file) << file.error().to_string();
  return std::make_shared<ModelFile>(std::move(file).value());
}

}  // namespace towline::engine
