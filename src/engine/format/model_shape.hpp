// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a ModelDesc implies for a file: its sane limits and the tensors that must be there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

struct Tensor;

// "llama, mistral, qwen2, qwen3"
inline constexpr std::string_view kArchitectures = "llama, mistral, qwen2, qwen3";

// Every field positive, within limits that keep all later arithmetic inside int64 (and widths
// inside int32), heads divisible by kv_heads, rotary dimensions even and at most head_dim.
Result<void> validate(const spec::ModelDesc& desc);

struct TensorShape {
  std::string name;
  int64_t rows = 1;  // 1: a vector
  int64_t cols = 0;
};

// The tensors that layers [begin, end) need, in order of use. The first stage adds the embedding,
// the last the final norm and the output matrix (the embedding again, if tied).
std::vector<TensorShape> needed_tensors(const spec::ModelDesc& desc, LayerRange layers);

// By name; fails if one occurs twice.
Result<void> sort_tensors(std::vector<Tensor>& tensors);

// `text` for an error message: control characters as '?', at most 80 characters.
std::string printable(std::string_view text);

}  // namespace towline::engine
