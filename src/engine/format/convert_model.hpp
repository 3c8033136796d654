// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Work over all the weights of a model: writing them as a GGUF file of another type, and checking
// that every value is finite.
#pragma once

#include <string>

#include "base/result.hpp"
#include "engine/format/gguf_writer.hpp"
#include "engine/format/model_file.hpp"
#include "engine/format/quant_recipe.hpp"

namespace towline::engine {

// Writes any model that opens as one GGUF file. From a GGUF file all metadata are kept; from a
// Hugging Face directory they are made from config.json and the tokenizer's files. Tensors whose
// type is already the wanted one are copied bit for bit. The rows of q and k of Hugging Face's
// llama and mistral files are put into the order that GGUF files have (interleaved rotary pairs).
// A value that is not finite is an error: it would poison its block.
Result<void> convert_model(const ModelFile& model, const QuantRecipe& recipe,
                           const std::string& path, const WriteOptions& options);

// The row of the source that becomes row `row` of the target, when half-split rotary pairs become
// interleaved ones: within each head of `head_dim` rows the first `rope_dim` are reordered so that
// (j, j + rope_dim / 2) become (2j, 2j + 1).
int64_t interleaved_source_row(int64_t row, int64_t head_dim, int64_t rope_dim);

// Reads every weight and reports the first value that is not finite, by tensor and place.
Result<void> check_values(const ModelFile& model, const WriteOptions& options);

}  // namespace towline::engine
