// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/stage.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/for_seeds.hpp"
#include "engine/oracle_decoder.hpp"
#include "engine/testing_model.hpp"

namespace towline::engine {
namespace {

constexpr int32_t kLayers = 5;

std::vector<int32_t> random_tokens(Rng& rng, int64_t count, int32_t vocab) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
  }
  return tokens;
}

std::vector<int32_t> blocks_from(int32_t first, size_t tokens) {
  std::vector<int32_t> blocks;
  for (size_t i = 0; i * 16 < tokens; ++i) blocks.push_back(first + static_cast<int32_t>(i));
  return blocks;
}

// One model as one or more stages in a row, evaluated as a pipeline.
class Pipeline {
 public:
  Pipeline(std::shared_ptr<const ModelFile> file, const std::vector<int32_t>& cuts, int threads,
           const KernelTable& kernels)
      : team_(threads) {
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      StageOptions options;
      options.layers = {cuts[i], cuts[i + 1]};
      options.kv_blocks = 200;
      options.max_rows = 512;
      options.max_logit_rows = 512;
      auto stage = Stage::load(file, options, kernels, team_);
      EXPECT_TRUE(stage) << stage.error().to_string();
      stages_.push_back(std::make_unique<Stage>(std::move(stage).value()));
    }
  }

  // The logits of every row of the step.
  std::vector<float> run(std::span<const StepSpan> spans) {
    const StepView view{spans};
    const auto rows = static_cast<size_t>(view.rows());
    std::vector<float> hidden(rows * static_cast<size_t>(stages_[0]->desc().hidden));
    for (const auto& stage : stages_) EXPECT_TRUE(stage->run(view, hidden));
    std::vector<int32_t> all(rows);
    for (size_t i = 0; i < rows; ++i) all[i] = static_cast<int32_t>(i);
    const auto logits = stages_.back()->logits(hidden, all);
    EXPECT_TRUE(logits);
    return {logits->begin(), logits->end()};
  }

  // A whole prompt in pieces of at most `chunk` tokens, in KV blocks from `first_block`.
  std::vector<float> evaluate(const std::vector<int32_t>& tokens, int32_t chunk,
                              int32_t first_block = 0) {
    const std::vector<int32_t> blocks = blocks_from(first_block, tokens.size());
    std::vector<float> logits;
    const auto count = static_cast<int32_t>(tokens.size());
    for (int32_t from = 0; from < count; from += chunk) {
      const int32_t to = std::min(count, from + chunk);
      const auto size = static_cast<size_t>(to - from);
      const StepSpan span{from, to, std::span(tokens).subspan(static_cast<size_t>(from), size),
                          blocks};
      const std::vector<float> part = run({&span, 1});
      logits.insert(logits.end(), part.begin(), part.end());
    }
    return logits;
  }

 private:
  ComputeTeam team_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

// Root mean square of the difference over that of the oracle's logits.
double relative_error(const std::vector<float>& logits,
                      const std::vector<OracleDecoder::Vector>& expected) {
  double error = 0, size = 0;
  size_t i = 0;
  for (const auto& row : expected) {
    for (const double v : row) {
      const double difference = static_cast<double>(logits[i++]) - v;
      error += difference * difference;
      size += v * v;
    }
  }
  EXPECT_EQ(i, logits.size());
  return std::sqrt(error / size);
}

struct Variant {
  std::string name;
  spec::ModelDesc desc;
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    all.push_back({architecture, small_shape(architecture, kLayers)});
  }
  Variant v{"tied, one head a KV head", small_shape("llama", kLayers)};
  v.desc.tied_embeddings = true;
  v.desc.kv_heads = 8;
  all.push_back(v);
  return all;
}

TEST(Stage, LogitsAreThoseOfTheFloat64Oracle) {
  const TempDir dir;
  Rng rng(1);
  for (const Variant& variant : variants()) {
    const auto file = make_model(dir, variant.desc, "f32");
    OracleDecoder oracle(*file);
    const std::vector<int32_t> tokens = random_tokens(rng, 40, 300);
    const auto expected = oracle.logits(tokens);
    for (const KernelTable* kernels : attainable_tables()) {
      Pipeline ours(file, {0, 5}, 1, *kernels);
      EXPECT_LT(relative_error(ours.evaluate(tokens, 512), expected), 1e-3)
          << variant.name << " " << kernels->name;  // float16 in the KV cache is most of it
    }
  }
}

// Switches that a file spells in its metadata.
TEST(Stage, SlidingWindowAndRopeScalingMatchTheOracle) {
  const TempDir dir;
  Rng rng(2);
  std::vector<Variant> all;
  Variant v{"window", small_shape("llama", kLayers)};
  v.desc.sliding_window = 20;
  all.push_back(v);
  v = {"linear", small_shape("llama", kLayers)};
  v.desc.rope_scaling = spec::RopeScaling::kLinear;
  v.desc.rope_factor = 4;
  all.push_back(v);
  v = {"table", small_shape("llama", kLayers)};
  v.desc.rope_scaling = spec::RopeScaling::kTable;
  v.desc.rope_factors.clear();
  for (int i = 0; i < 16; ++i) v.desc.rope_factors.push_back(1.0f + 0.5f * static_cast<float>(i));
  all.push_back(v);
  v = {"llama3", small_shape("llama", kLayers)};
  v.desc.rope_scaling = spec::RopeScaling::kLlama3;
  v.desc.rope_factor = 8;
  v.desc.rope_original_context = 64;
  all.push_back(v);
  v = {"partial rotation", small_shape("llama", kLayers)};
  v.desc.rope_dim = 16;
  all.push_back(v);
  for (const Variant& variant : all) {
    auto file = make_model(dir, variant.desc, "f32");
    const spec::ModelDesc& read = file->desc();
    EXPECT_EQ(read.rope_dim, variant.desc.rope_dim) << variant.name;
    EXPECT_EQ(read.sliding_window, variant.desc.sliding_window) << variant.name;
    OracleDecoder oracle(*file);
    const std::vector<int32_t> tokens = random_tokens(rng, 60, 300);
    Pipeline ours(file, {0, 5}, 1, **kernel_table());
    EXPECT_LT(relative_error(ours.evaluate(tokens, 512), oracle.logits(tokens)), 1e-3)
        << variant.name;
  }
}

TEST(Stage, QuantisedLogitsStayNearTheOracleOfTheSameWeights) {
  const TempDir dir;
  Rng rng(3);
  for (const char* type : {"f16", "bf16", "q8_0", "q4_0", "q5_0", "q4_k_m", "q5_k_m", "q6_k"}) {
    const auto file = make_model(dir, small_shape("llama", kLayers), type);
    OracleDecoder oracle(*file);
    const std::vector<int32_t> tokens = random_tokens(rng, 24, 300);
    Pipeline ours(file, {0, 5}, 1, **kernel_table());
    // int8 activations: about 1/127 of the largest of 32 values, through five layers.
    EXPECT_LT(relative_error(ours.evaluate(tokens, 512), oracle.logits(tokens)), 0.05) << type;
  }
}

// Exact bits, the heart of it: any cut of the prompt, of the layers, any number of threads.
TEST(Stage, BitsDoNotDependOnChunksThreadsOrStages) {
  const TempDir dir;
  Rng rng(4);
  for (const char* type : {"f32", "bf16", "q8_0", "q4_0", "q4_k_m"}) {
    const auto file = make_model(dir, small_shape("llama", kLayers), type);
    const std::vector<int32_t> tokens = random_tokens(rng, 150, 300);
    Pipeline reference(file, {0, 5}, 1, **kernel_table());
    const std::vector<float> expected = reference.evaluate(tokens, 512);
    for (const int32_t chunk : {1, 7, 16, 64, 149}) {
      EXPECT_EQ(reference.evaluate(tokens, chunk), expected) << type << " chunk " << chunk;
    }
    for (const int threads : {2, 3}) {
      Pipeline ours(file, {0, 5}, threads, **kernel_table());
      EXPECT_EQ(ours.evaluate(tokens, 40), expected) << type << " threads " << threads;
    }
    for (const std::vector<int32_t>& cuts : std::vector<std::vector<int32_t>>{
             {0, 2, 5}, {0, 1, 4, 5}, {0, 1, 2, 4, 5}, {0, 1, 2, 3, 4, 5}}) {
      Pipeline ours(file, cuts, 1, **kernel_table());
      EXPECT_EQ(ours.evaluate(tokens, 33), expected) << type << " stages " << cuts.size() - 1;
    }
  }
}

// Partial inference: a row may skip the first layers of a stage (another
// one did them), or stop early.
TEST(Stage, AnyPartsOfTheLayersInARowAreTheWhole) {
  const TempDir dir;
  const auto file = make_model(dir, small_shape("qwen3", kLayers), "q8_0");
  for_seeds(8, [&](Rng& rng) {
    const std::vector<int32_t> tokens = random_tokens(rng, 60, 300);
    Pipeline whole(file, {0, 5}, 1, **kernel_table());
    const std::vector<float> expected = whole.evaluate(tokens, 60);
    // Two stages that overlap in [1, 4): each row of a prompt takes its own hand-over layer.
    ComputeTeam team(1);
    std::vector<std::unique_ptr<Stage>> stages;
    for (const LayerRange layers : {LayerRange{0, 4}, LayerRange{1, 5}}) {
      StageOptions options;
      options.layers = layers;
      auto stage = Stage::load(file, options, **kernel_table(), team);
      ASSERT_TRUE(stage) << stage.error().to_string();
      stages.push_back(std::make_unique<Stage>(std::move(stage).value()));
    }
    const auto handover = static_cast<int32_t>(rng.between(1, 4));
    const std::vector<int32_t> blocks = blocks_from(2, tokens.size());
    const auto chunk = static_cast<int32_t>(rng.between(1, 32));
    const std::span all(tokens);
    std::vector<float> logits;
    for (int32_t from = 0; from < 60; from += chunk) {
      const auto rows = static_cast<size_t>(std::min(chunk, 60 - from));
      const StepSpan span{from, from + static_cast<int32_t>(rows),
                          all.subspan(static_cast<size_t>(from), rows), blocks};
      std::vector<float> hidden(rows * 256);
      int32_t layer = 0;
      while (layer < 5) {  // every stage in one or more calls
        Stage& stage = *stages[layer < handover ? 0 : 1];
        const int32_t most = layer < handover ? handover : 5;
        const auto to = static_cast<int32_t>(rng.between(layer + 1, most));
        ASSERT_TRUE(stage.run({{&span, 1}}, hidden, {layer, to}));
        layer = to;
      }
      std::vector<int32_t> indices(rows);
      for (size_t i = 0; i < rows; ++i) indices[i] = static_cast<int32_t>(i);
      const auto part = stages[1]->logits(hidden, indices);
      ASSERT_TRUE(part);
      logits.insert(logits.end(), part->begin(), part->end());
    }
    EXPECT_EQ(logits, expected) << "hand-over " << handover << " chunk " << chunk;
  });
}

TEST(Stage, BitsDoNotDependOnTheCompany) {
  const TempDir dir;
  const auto file = make_model(dir, small_shape("qwen2", kLayers), "q4_0");
  Pipeline pipeline(file, {0, 5}, 2, **kernel_table());
  for_seeds(10, [&](Rng& rng) {
    const auto count = static_cast<size_t>(rng.between(2, 12));
    std::vector<std::vector<int32_t>> tokens, blocks;
    std::vector<std::vector<float>> alone;
    for (size_t s = 0; s < count; ++s) {
      tokens.push_back(random_tokens(rng, rng.between(1, 40), 300));
      blocks.push_back(blocks_from(static_cast<int32_t>(s) * 3, tokens.back().size()));
      alone.push_back(pipeline.evaluate(tokens.back(), 512, 190));
    }
    // All together, each at its own pace.
    std::vector<int32_t> done(count);
    for (bool more = true; more;) {
      std::vector<StepSpan> spans;
      std::vector<size_t> who;
      for (size_t s = 0; s < count; ++s) {
        const auto left = static_cast<int32_t>(tokens[s].size()) - done[s];
        const auto rows = static_cast<int32_t>(std::min<int64_t>(left, rng.between(0, 9)));
        if (rows == 0) continue;
        spans.push_back({done[s], done[s] + rows,
                         std::span(tokens[s]).subspan(static_cast<size_t>(done[s]),
                                                      static_cast<size_t>(rows)),
                         blocks[s]});
        who.push_back(s);
        done[s] += rows;
      }
      const std::vector<float> logits = pipeline.run(spans);
      auto at = logits.begin();
      for (size_t i = 0; i < spans.size(); ++i) {
        const auto size = int64_t{spans[i].rows()} * 300;
        ASSERT_TRUE(std::equal(at, at + size,
                               alone[who[i]].begin() + int64_t{spans[i].from} * 300))
            << "sequence " << who[i] << " at " << spans[i].from;
        at += size;
      }
      more = false;
      for (size_t s = 0; s < count; ++s) more |= done[s] < static_cast<int32_t>(tokens[s].size());
    }
  });
}

TEST(Stage, ATiedMatrixIsHeldOnceAndAStageHoldsItsLayersOnly) {
  const TempDir dir;
  spec::ModelDesc d = small_shape("llama", kLayers);
  d.tied_embeddings = true;
  const auto file = make_model(dir, d, "q8_0");
  ComputeTeam team(1);
  int64_t file_bytes = 0;
  for (const Tensor& t : file->tensors()) file_bytes += t.bytes();
  const auto whole = Weights::load(file, {0, 5}, team);
  ASSERT_TRUE(whole);
  EXPECT_LT(whole->bytes(), file_bytes + file_bytes / 10 + 6 * 4096);
  const auto middle = Weights::load(file, {2, 3}, team);
  ASSERT_TRUE(middle);
  EXPECT_LT(middle->bytes(), whole->bytes() / 4);
  EXPECT_FALSE(Weights::load(file, {3, 3}, team));
  EXPECT_FALSE(Weights::load(file, {0, 6}, team));
}

}  // namespace
}  // namespace towline::engine
