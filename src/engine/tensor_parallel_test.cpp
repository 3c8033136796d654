// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <barrier>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/rng.hpp"
#include "engine/stage.hpp"
#include "engine/testing_model.hpp"

namespace towline::engine {
namespace {

spec::ModelDesc shape(const std::string& architecture) {
  spec::ModelDesc d = small_shape(architecture, 3);
  d.tied_embeddings = architecture == "qwen3";
  return d;
}

// Ranks as threads: what all share is an ordinary vector and a std::barrier.
struct Group {
  Group(int32_t ranks, int64_t floats) : memory(static_cast<size_t>(floats)), gate(ranks) {}
  std::vector<float> memory;
  std::barrier<> gate;
};
class ThreadCollective final : public Collective {
 public:
  ThreadCollective(Group& group, Shard shard) : group_(group), shard_(shard) {}
  Shard shard() const override { return shard_; }
  std::span<float> memory() const override { return group_.memory; }
  Result<void> barrier() override {
    group_.gate.arrive_and_wait();
    return {};
  }

 private:
  Group& group_;
  Shard shard_;
};

struct Bits {
  std::vector<float> hidden, logits;
  friend bool operator==(const Bits&, const Bits&) = default;
};

// A prompt in pieces on one rank; the logits of every row.
Bits evaluate(Stage& stage, const std::vector<int32_t>& tokens, int32_t chunk) {
  std::vector<int32_t> blocks(tokens.size() / 16 + 1);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i) + 1;
  Bits bits;
  const auto count = static_cast<int32_t>(tokens.size());
  for (int32_t from = 0; from < count; from += chunk) {
    const int32_t to = std::min(count, from + chunk);
    const auto rows = static_cast<size_t>(to - from);
    const StepSpan span{from, to, std::span(tokens).subspan(static_cast<size_t>(from), rows),
                        blocks};
    std::vector<float> hidden(rows * static_cast<size_t>(stage.desc().hidden));
    EXPECT_TRUE(stage.run({{&span, 1}}, hidden));
    bits.hidden.insert(bits.hidden.end(), hidden.begin(), hidden.end());
    for (int32_t row = 0; row < to - from; ++row) {  // row by row: many exchanges in a row
      const auto logits = stage.logits(hidden, {&row, 1});
      EXPECT_TRUE(logits);
      bits.logits.insert(bits.logits.end(), logits->begin(), logits->end());
    }
  }
  return bits;
}

// What every rank saw.
std::vector<Bits> evaluate_group(const std::shared_ptr<const ModelFile>& file, int32_t ranks,
                                 const std::vector<int32_t>& tokens, int32_t chunk) {
  StageOptions options;
  options.max_rows = 40;
  options.max_logit_rows = 4;
  Group group(ranks, Stage::shared_floats(file->desc(), options, ranks));
  std::vector<Bits> seen(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadCollective collective(group, {rank, ranks});
      StageOptions own = options;
      own.collective = &collective;
      ComputeTeam team(1);
      auto stage = Stage::load(file, own, **kernel_table(), team);
      ASSERT_TRUE(stage) << stage.error().to_string();
      seen[static_cast<size_t>(rank)] = evaluate(*stage, tokens, chunk);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return seen;
}

std::vector<int32_t> some_tokens(int32_t count) {
  Rng rng(11);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(rng.below(300)));
  return tokens;
}

TEST(TensorParallel, AnyNumberOfRanksGivesTheBitsOfOne) {
  const TempDir dir;
  const std::vector<int32_t> tokens = some_tokens(50);
  for (const auto& [architecture, type] :
       std::vector<std::pair<std::string, std::string>>{{"llama", "f32"},
                                                        {"llama", "q4_0"},
                                                        {"llama", "bf16"},
                                                        {"qwen2", "q8_0"},
                                                        {"qwen3", "q5_0"}}) {
    const auto file = make_model(dir, shape(architecture), type);
    const Bits expected = evaluate_group(file, 1, tokens, 40)[0];
    ASSERT_EQ(expected.logits.size(), tokens.size() * 300);
    for (const int32_t ranks : {2, 4}) {  // 4 ranks share 2 KV heads
      for (const int32_t chunk : {7, 40}) {
        for (const Bits& bits : evaluate_group(file, ranks, tokens, chunk)) {
          EXPECT_TRUE(bits == expected) << architecture << " " << type << " on " << ranks;
        }
      }
    }
  }
}

TEST(TensorParallel, ARankHoldsItsShareOnly) {
  const TempDir dir;
  spec::ModelDesc d = shape("llama");
  d.layers = 8;
  const auto file = make_model(dir, d, "q8_0");
  ComputeTeam team(1);
  const auto whole = Weights::load(file, {0, 8}, team);
  ASSERT_TRUE(whole);
  int64_t sum = 0;
  for (int32_t rank = 0; rank < 4; ++rank) {
    const auto part = Weights::load(file, {0, 8}, team, {}, {rank, 4});
    ASSERT_TRUE(part) << part.error().to_string();
    EXPECT_LT(part->bytes_per_token(), whole->bytes_per_token() / 3);
    sum += part->bytes_per_token();
  }
  EXPECT_GE(sum, whole->bytes_per_token());
  EXPECT_LT(sum, whole->bytes_per_token() * 6 / 5);  // K and V of 2 heads are held twice; norms
}

TEST(TensorParallel, WhatCannotBeSplitIsRefusedWithTheReason) {
  const TempDir dir;
  ComputeTeam team(1);
  const auto load = [&](const spec::ModelDesc& d, const std::string& type, Shard shard) {
    const auto loaded = Weights::load(make_model(dir, d, type), {0, 3}, team, {}, shard);
    return loaded ? std::string() : loaded.error().to_string();
  };
  // 256 columns of 256-blocks cannot be summed in pieces.
  EXPECT_NE(load(shape("llama"), "q4_k_m", {0, 2}).find("attn_output.weight"), std::string::npos);
  EXPECT_NE(load(shape("llama"), "f32", {0, 16}).find("8 heads"), std::string::npos);
  EXPECT_NE(load(shape("llama"), "f32", {0, 3}).find("power of two"), std::string::npos);
  EXPECT_NE(load(shape("llama"), "f32", {2, 2}).find("rank 2 of 2"), std::string::npos);
}

TEST(TensorParallel, PiecesDependOnTheMatrixAlone) {
  EXPECT_EQ(reduction_pieces(DType::kQ4_0, 8192), 8);
  EXPECT_EQ(reduction_pieces(DType::kQ4_0, 2048), 4);
  EXPECT_EQ(reduction_pieces(DType::kQ4_0, 64), 2);
  EXPECT_EQ(reduction_pieces(DType::kQ4_K, 256), 1);
  EXPECT_EQ(reduction_pieces(DType::kQ4_K, 512), 2);
  EXPECT_EQ(reduction_pieces(DType::kF32, 172), 4);
  EXPECT_EQ(reduction_pieces(DType::kBF16, 172), 2);
}

}  // namespace
}  // namespace towline::engine
