// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/quant_recipe.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "base/fmt.hpp"

namespace towline::engine {
namespace {

constexpr auto kRecipes = std::to_array<QuantRecipe>({
    {"f32", DType::kF32, 0},
    {"f16", DType::kF16, 1},
    {"bf16", DType::kBF16, 32},
    {"q8_0", DType::kQ8_0, 7},
    {"q4_0", DType::kQ4_0, 2},
    {"q4_1", DType::kQ4_1, 3},
    {"q5_0", DType::kQ5_0, 8},
    {"q5_1", DType::kQ5_1, 9},
    {"q4_k_s", DType::kQ4_K, 14},
    {"q4_k_m", DType::kQ4_K, 15},
    {"q5_k_s", DType::kQ5_K, 16},
    {"q5_k_m", DType::kQ5_K, 17},
    {"q6_k", DType::kQ6_K, 18},
});

// The layer in "blk.<layer>.<rest>"; -1 for other names.
int32_t layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return -1;
  int32_t layer = -1;
  std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

// The first and the last eighth of the layers and every third between: where errors cost most.
bool sensitive_layer(int32_t layer, int32_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

DType mixed_dtype(const QuantRecipe& recipe, const spec::ModelDesc& desc, std::string_view name) {
  const int32_t layer = layer_of(name);
  const bool values = name.ends_with("attn_v.weight"), down = name.ends_with("ffn_down.weight");
  if (layer < 0 || (!values && !down)) return recipe.base;
  if (recipe.name.ends_with("_m")) {
    return sensitive_layer(layer, desc.layers) ? DType::kQ6_K : recipe.base;
  }
  if (recipe.name == "q4_k_s") {
    const bool early = values ? layer < 4 : layer < desc.layers / 8;
    if (early) return DType::kQ5_K;
  }
  return recipe.base;
}

DType with_fallback(DType type, int64_t cols) {
  if (cols % dtype_info(type).block == 0) return type;
  switch (type) {
    case DType::kQ4_K: type = DType::kQ5_0; break;
    case DType::kQ5_K: type = DType::kQ5_1; break;
    case DType::kQ6_K: type = DType::kQ8_0; break;
    default: break;
  }
  return cols % dtype_info(type).block == 0 ? type : DType::kF16;
}

}  // namespace

Result<QuantRecipe> quant_recipe(std::string_view name) {
  std::string wanted(name);
  std::transform(wanted.begin(), wanted.end(), wanted.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (wanted == "q4_k" || wanted == "q5_k") wanted += "_m";
  for (const QuantRecipe& recipe : kRecipes) {
    if (recipe.name == wanted) return recipe;
  }
  return errorf(Code::kInvalidArgument, "'{}' is not a type; the types are {}", name,
                quant_recipe_names());
}

std::string quant_recipe_names() {
  std::string names;
  for (const QuantRecipe& recipe : kRecipes) {
    names += (names.empty() ? "" : ", ") + std::string(recipe.name);
  }
  return names;
}

DType choose_dtype(const QuantRecipe& recipe, const spec::ModelDesc& desc, std::string_view name,
                   int64_t rows, int64_t cols) {
  if (rows == 1) return DType::kF32;
  if (dtype_info(recipe.base).block == 1) return recipe.base;
  const bool head =
      name == "output.weight" || (desc.tied_embeddings && name == "token_embd.weight");
  if (head && recipe.base != DType::kQ8_0) {
    return with_fallback(DType::kQ6_K, cols);
  }
  return with_fallback(mixed_dtype(recipe, desc, name), cols);
}

}  // namespace towline::engine
