// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LoRA adapters: low-rank changes of a model's matrices, chosen row by row while serving.
//
// A directory as Hugging Face PEFT writes it: adapter_config.json and adapter_model.safetensors.
// Each changed matrix W (q, k, v, o, gate, up, down of any layers) comes as A [r, in] and
// B [out, r]; a row then gets W x + B (A x) * scale, scale = alpha / r (or alpha / sqrt(r),
// "rslora"). Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv
// 2106.09685; the file layout is PEFT's.
//
// W stays as it is (quantised or not) and A, B are float32. The product A x of o and down is summed
// in the same kind of fixed tree as the matrix itself, so that bits do not depend on the number of
// tensor-parallel ranks; nothing depends on the other rows (docs/engine.md).
//
// A stage loads its layers' part, a rank its shard: rows of B for q, k, v, gate, up, columns of A
// for o and down. Rows of B for q and k are put into the model file's rotary order.
//
// Every byte of the files is untrusted. An adapter is immutable once loaded and safe to share.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "engine/collective.hpp"
#include "engine/kernel/arena.hpp"
#include "engine/kernel/packed.hpp"
#include "spec/model_desc.hpp"

namespace towline::engine {

enum class LoraTarget : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr size_t kLoraTargets = 7;
inline constexpr int32_t kMaxLoraRank = 256;

struct LoraPair {
  PackedMatrix a;  // [r, in]; o and down: this rank's columns
  PackedMatrix b;  // [out, r], times the scale; others: this rank's rows
  bool present() const { return a.panels != nullptr; }
};

class LoraAdapter {
 public:
  // The part of the adapter in directory `path` that a rank holding `layers` of the model needs.
  // Unsupported kinds (DoRA, trained biases, embeddings, other targets) are errors, never ignored.
  static Result<std::unique_ptr<LoraAdapter>> load(const std::string& path,
                                                   const spec::ModelDesc& model, LayerRange layers,
                                                   Shard shard = {});
  // The same from the contents of the two files; errors do not name them.
  static Result<std::unique_ptr<LoraAdapter>> parse(const Json& config,
                                                    std::span<const std::byte> weights,
                                                    const spec::ModelDesc& model, LayerRange layers,
                                                    Shard shard = {});

  // `layer` counts from the first of the loaded range.
  const LoraPair& pair(int32_t layer, LoraTarget target) const {
    return layers_[static_cast<size_t>(layer)][static_cast<size_t>(target)];
  }
  int32_t largest_rank() const { return largest_rank_; }
  int64_t bytes() const { return arena_.size(); }

 private:
  friend class LoraReader;
  LoraAdapter() = default;
  std::vector<std::array<LoraPair, kLoraTargets>> layers_;
  int32_t largest_rank_ = 0;
  Arena arena_;
};

}  // namespace towline::engine
