// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ModelFile: an opened model on disk, whichever format it has.
//
// A GGUF file (v2, v3; possibly the first of several shards) or a Hugging Face directory
// (config.json, *.safetensors, tokenizer.json). Everything is memory-mapped; opening reads headers
// only, so a worker that needs layers [a, b) touches just those bytes. Tensors carry one set of
// names, GGUF's ("token_embd.weight", "blk.3.attn_q.weight", "output_norm.weight", ...), whichever
// the source; element order is the file's own, and ModelDesc says which rotary pairing it implies.
//
// Immutable once open and safe to share between threads. Every byte of the file is untrusted:
// opening checks all offsets, sizes and counts against the file and reports what is wrong.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "engine/format/dtype.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

// A matrix [rows, cols] (cols is the contiguous, quantised dimension) or a vector (rows == 1).
struct Tensor {
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = 1;
  int64_t cols = 0;
  // rows * row_bytes(dtype, cols) bytes, inside a mapping; aligned to the element for the float
  // types, and to 8 bytes in GGUF files.
  const std::byte* data = nullptr;
  int32_t file = 0;                 // which mapped file
  int64_t bytes() const { return rows * row_bytes(dtype, cols); }
  const std::byte* row(int64_t r) const { return data + r * row_bytes(dtype, cols); }
};

// A GGUF metadata value. Arrays of strings and numbers are kept as vectors: vocabularies have
// 150,000 entries. Strings point into the mapping. An array of arrays is checked but not kept: it
// reads as monostate.
using MetaValue = std::variant<std::monostate, int64_t, double, bool, std::string_view,
                               std::vector<int64_t>, std::vector<float>,
                               std::vector<std::string_view>>;

// What a reader of one format hands to ModelFile.
struct ModelParts {
  std::string path;
  bool directory = false;
  spec::ModelDesc desc;
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;                          // sorted by name, names unique
  std::vector<std::pair<std::string, MetaValue>> meta;  // sorted by key, keys unique
  // As meta: the value as the file has it, a 4-byte type and then the bytes, to copy it unchanged.
  std::vector<std::span<const std::byte>> meta_bytes;
};

class ModelFile {
 public:
  // `path`: a .gguf file or a directory. A vocabulary-only GGUF opens too (no tensors), whatever
  // its architecture.
  static Result<ModelFile> open(const std::string& path);

  const spec::ModelDesc& desc() const { return parts_.desc; }
  const std::string& path() const { return parts_.path; }
  bool is_directory() const { return parts_.directory; }

  std::span<const Tensor> tensors() const { return parts_.tensors; }
  const Tensor* find(std::string_view name) const;  // null if absent
  // As find, but absence or a shape other than [rows, cols] is an error naming both.
  Result<const Tensor*> require(std::string_view name, int64_t rows, int64_t cols) const;

  // GGUF key-values ("tokenizer.ggml.tokens", ...); monostate if absent or not a GGUF file.
  const MetaValue& meta(std::string_view key) const;
  std::span<const std::pair<std::string, MetaValue>> all_meta() const { return parts_.meta; }
  // The bytes of all_meta()[index] as they stand in the file: type (u32) and value.
  std::span<const std::byte> meta_bytes(size_t index) const { return parts_.meta_bytes[index]; }
  // Hugging Face side files, parsed on demand: "config.json", "tokenizer.json", ...
  Result<Json> side_file(std::string_view name) const;

  // Checks that everything the decoder needs for `layers` is present with the right shape.
  Result<void> check(LayerRange layers) const;
  // Lets go of a tensor's resident pages once it has been copied into its working layout.
  void drop_pages(const Tensor& tensor) const;

 private:
  explicit ModelFile(ModelParts parts) : parts_(std::move(parts)) {}
  ModelParts parts_;
};

}  // namespace towline::engine
