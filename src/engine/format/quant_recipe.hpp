// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Which type each tensor of a quantised file gets: the choices that ordinary GGUF files show, so
// that speed and quality compare with other tools' files of the same name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "engine/format/dtype.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

struct QuantRecipe {
  std::string_view name;    // "q4_0", "q4_k_m", ...
  DType base;               // of most matrices
  uint32_t gguf_file_type;  // general.file_type
};

// By name, any letter case; "q4_k" and "q5_k" mean the _m mixtures. The error lists all names.
Result<QuantRecipe> quant_recipe(std::string_view name);
std::string quant_recipe_names();  // "f32, f16, ..."

// The type of tensor `name` [rows, cols]:
//   vectors and the rotary table are f32;
//   the output matrix (the embedding, if tied) is q6_k, or q8_0 where 256 does not divide cols,
//   unless the recipe is q8_0 or a float type;
//   the _m mixtures give half of the attn_v and ffn_down layers q6_k, the _s ones a few q5_k;
//   what a block does not divide falls back: q4_k to q5_0, q5_k to q5_1, q6_k to q8_0, rest to f16.
DType choose_dtype(const QuantRecipe& recipe, const spec::ModelDesc& desc, std::string_view name,
                   int64_t rows, int64_t cols);

}  // namespace towline::engine
