// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The promise "exact tokens": 64 requests give the same logits, bit for bit, and the same tokens,
// alone and in any company: batches of 2 to 32, chunks of 1 to 512, 1 and 2 threads, with and
// without the prefix cache, preempted at random.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "base/for_seeds.hpp"
#include "engine/sampler.hpp"
#include "engine/stage.hpp"
#include "engine/testing_model.hpp"
#include "policy/batcher.hpp"

namespace towline::serve {
namespace {

constexpr int32_t kPrompts = 64;
constexpr int32_t kOutputs = 6;
constexpr int32_t kPoolBlocks = 400;

struct Settings {
  int32_t sequences = 1;
  int32_t chunk = 512;
  bool prefix_cache = false;
  int32_t blocks = kPoolBlocks;  // fewer: preemption because they run out
  uint64_t preempt_seed = 0;     // 0: none at random
};

// One request's output: what was drawn, and a fingerprint of every row of logits it came from.
struct Output {
  std::vector<int32_t> tokens;
  std::vector<uint64_t> fingerprints;
  friend bool operator==(const Output&, const Output&) = default;
};

uint64_t fingerprint(std::span<const float> values) {
  uint64_t hash = 1;
  for (const float value : values) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    hash = mix64(hash ^ bits);
  }
  return hash;
}

class Machine {
 public:
  Machine(std::shared_ptr<const engine::ModelFile> file, int threads) : team_(threads) {
    engine::StageOptions options;
    options.kv_blocks = kPoolBlocks;
    options.max_rows = 512;
    options.max_logit_rows = 32;
    kernels_ = *engine::kernel_table();
    auto stage = engine::Stage::load(std::move(file), options, *kernels_, team_);
    EXPECT_TRUE(stage) << stage.error().to_string();
    stage_ = std::make_unique<engine::Stage>(std::move(stage).value());
  }

  std::map<int64_t, Output> run(const std::vector<std::vector<int32_t>>& prompts,
                                const Settings& settings, int64_t first_id = 0) {
    policy::Batcher batcher({.step_tokens = 512,
                             .sequences = settings.sequences,
                             .chunk_tokens = settings.chunk,
                             .prefix_cache = settings.prefix_cache},
                            settings.blocks);
    std::map<int64_t, Output> outputs;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto added = batcher.add({.id = SeqId(first_id + static_cast<int64_t>(i)),
                                      .prompt = prompts[i],
                                      .max_tokens = kOutputs});
      EXPECT_TRUE(added);
    }
    std::map<SeqId, std::vector<int32_t>> tables;
    Rng rng(settings.preempt_seed);
    while (!batcher.idle()) {
      if (settings.preempt_seed != 0 && rng.below(3) == 0) {
        batcher.preempt(SeqId(static_cast<int64_t>(rng.below(prompts.size()))));
      }
      const policy::Step step = batcher.next_step();
      for (const SeqId seq : step.dropped) tables.erase(seq);
      for (const policy::StepEntry& e : step.entries) {
        for (const BlockId block : e.blocks) tables[e.seq].push_back(block.value);
      }
      batcher.complete(step, evaluate(step, tables, outputs));
    }
    preemptions_ += batcher.counters().preemptions;
    hits_ += batcher.counters().prefix_hits;
    return outputs;
  }

  int64_t preemptions() const { return preemptions_; }
  int64_t prefix_hits() const { return hits_; }

 private:
  std::vector<policy::Sampled> evaluate(const policy::Step& step,
                                        std::map<SeqId, std::vector<int32_t>>& tables,
                                        std::map<int64_t, Output>& outputs) {
    const auto vocab = static_cast<size_t>(stage_->desc().vocab);
    std::vector<engine::StepSpan> spans;
    std::vector<int32_t> rows;
    std::vector<SeqId> who;
    int32_t row = 0;
    for (const policy::StepEntry& e : step.entries) {
      spans.push_back({e.from, e.to, e.tokens, tables.at(e.seq)});
      row += e.to - e.from;
      if (!e.samples) continue;
      rows.push_back(row - 1);
      who.push_back(e.seq);
    }
    hidden_.resize(static_cast<size_t>(row) * static_cast<size_t>(stage_->desc().hidden));
    EXPECT_TRUE(stage_->run({spans}, hidden_));
    const auto all_logits = stage_->logits(hidden_, rows);
    EXPECT_TRUE(all_logits);
    std::vector<policy::Sampled> sampled;
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::span<const float> logits = all_logits->subspan(i * vocab, vocab);
      Output& output = outputs[who[i].value];
      engine::SamplingParams params;
      params.temperature = who[i].value % 2 == 0 ? 0.0f : 1.0f;
      params.seed = 5;
      const auto token =
          engine::sample(*kernels_, params, static_cast<int32_t>(who[i].value),
                         static_cast<int32_t>(output.tokens.size()), {}, logits, scratch_);
      EXPECT_TRUE(token);
      output.tokens.push_back(token->token);
      output.fingerprints.push_back(fingerprint(logits));
      sampled.push_back({who[i], token->token, false, false});
    }
    return sampled;
  }

  engine::ComputeTeam team_;
  const engine::KernelTable* kernels_ = nullptr;
  std::unique_ptr<engine::Stage> stage_;
  std::vector<float> hidden_;
  engine::SamplerScratch scratch_;
  int64_t preemptions_ = 0, hits_ = 0;
};

// Lengths 1 to 120; half of them begin like others, so that the prefix cache has something to find.
std::vector<std::vector<int32_t>> make_prompts(int32_t vocab) {
  Rng rng(11);
  const auto word = [&] { return static_cast<int32_t>(rng.between(3, vocab - 1)); };
  std::vector<std::vector<int32_t>> stems(4), prompts;
  for (auto& stem : stems) {
    for (int i = 0; i < 70; ++i) stem.push_back(word());
  }
  for (int32_t i = 0; i < kPrompts; ++i) {
    std::vector<int32_t> prompt;
    const auto length = static_cast<size_t>(rng.between(1, 120));
    if (i % 2 == 0) prompt = stems[static_cast<size_t>(rng.below(4))];
    prompt.resize(std::min(prompt.size(), length));
    while (prompt.size() < length) prompt.push_back(word());
    prompts.push_back(prompt);
  }
  return prompts;
}

void expect_exact(std::shared_ptr<const engine::ModelFile> file) {
  const auto prompts = make_prompts(file->desc().vocab);
  Machine one(file, 1), two(file, 2);
  std::map<int64_t, Output> alone;
  for (size_t i = 0; i < prompts.size(); ++i) {
    alone.merge(one.run({prompts[i]}, {}, static_cast<int64_t>(i)));
  }
  ASSERT_EQ(alone.size(), prompts.size());
  const Settings all[] = {
      {.sequences = 2, .chunk = 1},
      {.sequences = 3, .chunk = 512, .prefix_cache = true},
      {.sequences = 8, .chunk = 16, .prefix_cache = true, .preempt_seed = 1},
      {.sequences = 17, .chunk = 5, .blocks = 30},
      {.sequences = 32, .chunk = 512},
      {.sequences = 32, .chunk = 64, .prefix_cache = true, .blocks = 24, .preempt_seed = 2},
      {.sequences = 32, .chunk = 31, .prefix_cache = true, .preempt_seed = 3},
  };
  for (Machine* machine : {&one, &two}) {
    for (const Settings& s : all) {
      const auto together = machine->run(prompts, s);
      EXPECT_TRUE(together == alone) << "batch " << s.sequences << ", chunk " << s.chunk
                                     << ", cache " << s.prefix_cache << ", blocks " << s.blocks
                                     << ", threads " << (machine == &one ? 1 : 2);
    }
    EXPECT_GT(machine->preemptions(), 0) << "the test must have preempted something";
    EXPECT_GT(machine->prefix_hits(), 0) << "the test must have used the cache";
  }
}

std::shared_ptr<const engine::ModelFile> open_model(const std::string& path) {
  auto file = engine::ModelFile::open(path);
  EXPECT_TRUE(file) << file.error().to_string();
  return std::make_shared<engine::ModelFile>(std::move(file).value());
}

class TrainedModels : public ::testing::TestWithParam<const char*> {};

TEST_P(TrainedModels, GiveTheSameBitsInAnyCompany) {
  TOWLINE_SHARED_MODEL(path, GetParam());
  expect_exact(open_model(path));
}

INSTANTIATE_TEST_SUITE_P(Exactness, TrainedModels,
                         ::testing::Values("stories260K/stories260K-f32.gguf",
                                           "stories260K/stories260K-Q4_0.gguf",
                                           "TinyStories-656K/TinyStories-656K-Q8_0.gguf"));

class DummyModels : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(DummyModels, GiveTheSameBitsInAnyCompany) {
  const engine::TempDir dir;
  const auto& [architecture, type] = GetParam();
  spec::ModelDesc d = engine::small_shape(architecture, 2);
  d.ffn = 256;
  d.heads = 4;
  d.head_dim = d.rope_dim = 64;
  expect_exact(open_model(engine::write_model(dir, d, type)));
}

INSTANTIATE_TEST_SUITE_P(Exactness, DummyModels,
                         ::testing::Values(std::pair{"llama", "q4_k_m"},
                                           std::pair{"qwen2", "q6_k"},
                                           std::pair{"llama", "bf16"}));

}  // namespace
}  // namespace towline::serve
