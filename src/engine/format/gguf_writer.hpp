// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Writes GGUF version 3 files of any size in a few megabytes of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.hpp"
#include "engine/format/dtype.hpp"
#include "engine/format/gguf_meta.hpp"

namespace towline::engine {

struct PlannedTensor {
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = 1;  // 1: written as a vector
  int64_t cols = 0;
  int64_t bytes() const { return rows * row_bytes(dtype, cols); }
};

// Puts rows [begin, end) of tensors[index] into `out`, (end - begin) * row_bytes bytes. Called from
// several threads at once, each range of rows exactly once, in no fixed order.
using FillRows =
    std::function<Result<void>(size_t index, int64_t begin, int64_t end, std::byte* out)>;

struct WriteOptions {
  int threads = 1;
  // (bytes done, bytes in all); called now and then, from one thread at a time.
  std::function<void(int64_t, int64_t)> progress;
};

// Writes `path` + ".tmp-<pid>" and renames it over `path` when everything is on disk. On failure
// the temporary file is removed and `path` is as it was.
Result<void> write_gguf(const std::string& path, const GgufMeta& meta,
                        std::span<const PlannedTensor> tensors, const FillRows& fill,
                        const WriteOptions& options);

// Where tensor data begin and end for this header: the size of the finished file.
int64_t gguf_file_bytes(const GgufMeta& meta, std::span<const PlannedTensor> tensors);

}  // namespace towline::engine
