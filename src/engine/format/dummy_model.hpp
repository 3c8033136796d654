// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Dummy models: a GGUF file of any shape with random weights, to measure speed and memory without
// a download. Helix's evaluation does the same. It opens in other GGUF programs too.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "engine/format/gguf_writer.hpp"
#include "engine/format/quant_recipe.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

// Writes `path`. The bytes depend on (desc, recipe, seed) alone, not on the threads. Matrices are
// uniform with a root mean square of 1/sqrt(cols), made directly as blocks, so that a file is made
// at the disk's speed; norms are near 1. The vocabulary is byte-level BPE: 256 bytes, some letter
// pairs, numbered fillers, and the last two tokens are the begin and the end of a text.
Result<void> make_dummy_model(const spec::ModelDesc& desc, const QuantRecipe& recipe, uint64_t seed,
                              const std::string& path, const WriteOptions& options);

// The tensors of that file in order, as make_dummy_model writes them.
std::vector<PlannedTensor> dummy_tensors(const spec::ModelDesc& desc, const QuantRecipe& recipe);

}  // namespace towline::engine
