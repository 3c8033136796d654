// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Hugging Face model directories: config.json, model.safetensors or its shards, tokenizer.json.
// Source of the container: the safetensors project's format description; see docs/formats.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "engine/format/model_file.hpp"

namespace towline::engine {

// One entry of a safetensors header, checked against the file.
struct SafeTensor {
  std::string name;             // as in the file
  std::string dtype;            // "F32", "BF16", "I64", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // offsets in the file
};

// The header of a whole .safetensors file: all offsets inside the file, none overlapping, sizes as
// shape and type say (for the types whose size is known here).
Result<std::vector<SafeTensor>> read_safetensors(std::span<const std::byte> file);

// Opens a directory. One without weights (a tokenizer, perhaps a config.json) opens with no
// tensors.
Result<ModelParts> read_hf_directory(const std::string& path);

// What config.json says, before the tensors are known (tied_embeddings and biases are adjusted to
// the tensors by read_hf_directory).
Result<spec::ModelDesc> desc_from_hf_config(const Json& config);

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; empty if it has no part here.
std::string gguf_name_of_hf(std::string_view name);

}  // namespace towline::engine
