// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The GGUF container, versions 2 and 3, little endian (docs/formats.md; source: the specification
// docs/gguf.md of the ggml project). Reading; writing is in gguf_writer.hpp.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "engine/format/model_file.hpp"

namespace towline::engine {

inline constexpr uint32_t kGgufMagic = 0x46554747;  // "GGUF"
inline constexpr uint32_t kGgufDefaultAlignment = 32;

// The type of a metadata value, as numbered in the file.
enum class GgufType : uint32_t {
  kU8 = 0, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64,
};

// Limits on what a header may ask for. The file's own size bounds everything else.
struct GgufLimits {
  static constexpr int64_t kKeyBytes = 65535;
  static constexpr int64_t kNameBytes = 1024;
  static constexpr int64_t kArrayElements = int64_t{1} << 25;  // all arrays of a file together
  static constexpr int kArrayDepth = 4;
  static constexpr int64_t kShards = 9999;
  static constexpr int64_t kDimension = int64_t{1} << 40;
  static constexpr int64_t kElements = int64_t{1} << 52;       // of one tensor
  static constexpr int64_t kAlignment = int64_t{1} << 20;
};

// Opens `path` and, if it is the first of several shards, the others beside it.
Result<ModelParts> read_gguf(const std::string& path);

// The description that the metadata and the tensors' names and shapes give. With no tensors it is
// as complete as the metadata is, and any architecture will do.
Result<spec::ModelDesc> desc_from_gguf(const ModelParts& parts);

}  // namespace towline::engine
