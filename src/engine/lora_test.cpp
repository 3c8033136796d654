// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/lora.hpp"

#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "engine/oracle_decoder.hpp"
#include "engine/stage.hpp"
#include "engine/testing_lora.hpp"
#include "engine/testing_model.hpp"

namespace towline::engine {
namespace {

spec::ModelDesc shape(spec::RopePairing pairing) {
  return small_shape(pairing == spec::RopePairing::kInterleaved ? "llama" : "qwen3", 3);
}

constexpr const char* kConfig = R"({"peft_type":"LORA","r":6,"lora_alpha":9})";

struct Target {
  const char* hf;
  const char* gguf;
  int64_t in, out;
};
std::vector<Target> targets(const spec::ModelDesc& d) {
  return {{"self_attn.q_proj", "attn_q", d.hidden, d.q_width()},
          {"self_attn.k_proj", "attn_k", d.hidden, d.kv_width()},
          {"self_attn.v_proj", "attn_v", d.hidden, d.kv_width()},
          {"self_attn.o_proj", "attn_output", d.q_width(), d.hidden},
          {"mlp.gate_proj", "ffn_gate", d.hidden, d.ffn},
          {"mlp.up_proj", "ffn_up", d.hidden, d.ffn},
          {"mlp.down_proj", "ffn_down", d.ffn, d.hidden}};
}

std::vector<LoraEntry> random_adapter(const spec::ModelDesc& d, uint64_t seed, int64_t r = 6) {
  Rng rng(seed);
  std::vector<LoraEntry> entries;
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols, double size) {
    LoraEntry e{name, rows, cols, {}};
    for (int64_t i = 0; i < rows * cols; ++i) {
      e.values.push_back(static_cast<float>((rng.unit() - 0.5) * size));
    }
    entries.push_back(std::move(e));
  };
  for (int32_t layer = 0; layer < d.layers; ++layer) {
    for (const Target& t : targets(d)) {
      if (layer == 1 && t.in != d.hidden) continue;  // not every matrix need be there
      const std::string name = format("base_model.model.model.layers.{}.{}", layer, t.hf);
      add(name + ".lora_A.weight", r, t.in, 0.3);
      add(name + ".lora_B.weight", t.out, r, 0.3);
    }
  }
  return entries;
}

// W + B A * alpha / r for every entry, into the oracle's matrices.
void merge(OracleDecoder& oracle, const spec::ModelDesc& d, const std::vector<LoraEntry>& entries,
           double scale) {
  std::map<std::string, const LoraEntry*> by_name;
  for (const LoraEntry& e : entries) by_name[e.name] = &e;
  for (int32_t layer = 0; layer < d.layers; ++layer) {
    for (const Target& t : targets(d)) {
      const std::string name = format("base_model.model.model.layers.{}.{}", layer, t.hf);
      if (!by_name.contains(name + ".lora_A.weight")) continue;
      const LoraEntry& a = *by_name[name + ".lora_A.weight"];
      const LoraEntry& b = *by_name[name + ".lora_B.weight"];
      auto& w = oracle.edit(format("blk.{}.{}.weight", layer, t.gguf));
      const bool rotated =
          std::string_view(t.gguf) == "attn_q" || std::string_view(t.gguf) == "attn_k";
      for (int64_t row = 0; row < t.out; ++row) {
        int64_t from = row;  // the row of Hugging Face's order that the file keeps here
        if (rotated && d.rope_pairing == spec::RopePairing::kInterleaved) {
          const int64_t i = row % d.head_dim;
          from = row - i + i % 2 * (d.head_dim / 2) + i / 2;
        }
        for (int64_t k = 0; k < t.in; ++k) {
          double sum = 0;
          for (int64_t j = 0; j < a.rows; ++j) {
            sum += static_cast<double>(b.values[static_cast<size_t>(from * a.rows + j)]) *
                   static_cast<double>(a.values[static_cast<size_t>(j * t.in + k)]);
          }
          w[static_cast<size_t>(row * t.in + k)] += sum * scale;
        }
      }
    }
  }
}

std::vector<int32_t> some_tokens(uint64_t seed, size_t count) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  while (tokens.size() < count) tokens.push_back(static_cast<int32_t>(rng.below(300)));
  return tokens;
}

struct Sequence {
  std::vector<int32_t> tokens;
  const LoraAdapter* adapter = nullptr;
};

// Logits of every row of every sequence, all sequences in one step after the other of `chunk` rows.
std::vector<std::vector<float>> evaluate(Stage& stage, const std::vector<Sequence>& sequences,
                                         int32_t chunk) {
  std::vector<std::vector<float>> all(sequences.size());
  std::vector<std::vector<int32_t>> blocks(sequences.size());
  int32_t next_block = 0, longest = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto length = static_cast<int32_t>(sequences[s].tokens.size());
    longest = std::max(longest, length);
    for (int32_t i = 0; i < length; i += 16) blocks[s].push_back(next_block++);
  }
  for (int32_t from = 0; from < longest; from += chunk) {
    std::vector<StepSpan> spans;
    std::vector<size_t> who;
    int32_t rows = 0;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto length = static_cast<int32_t>(sequences[s].tokens.size());
      const int32_t to = std::min(length, from + chunk);
      if (from >= to) continue;
      spans.push_back({from, to,
                       std::span(sequences[s].tokens)
                           .subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)),
                       blocks[s], sequences[s].adapter});
      who.push_back(s);
      rows += to - from;
    }
    std::vector<float> hidden(static_cast<size_t>(rows) * 256);
    EXPECT_TRUE(stage.run({spans}, hidden));
    int32_t row = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
      for (int32_t end = row + spans[i].rows(); row < end; ++row) {
        const auto logits = stage.logits(hidden, {&row, 1});
        EXPECT_TRUE(logits);
        all[who[i]].insert(all[who[i]].end(), logits->begin(), logits->end());
      }
    }
  }
  return all;
}

StageOptions options() {
  StageOptions o;
  o.max_rows = 200;
  o.max_logit_rows = 1;
  return o;
}

std::unique_ptr<LoraAdapter> load(const std::string& path, const spec::ModelDesc& d,
                                  LayerRange layers = {0, 3}, Shard shard = {}) {
  auto adapter = LoraAdapter::load(path, d, layers, shard);
  EXPECT_TRUE(adapter) << adapter.error().to_string();
  return adapter ? std::move(adapter).value() : nullptr;
}

TEST(Lora, LogitsAreThoseOfMergedWeights) {
  for (const auto pairing : {spec::RopePairing::kInterleaved, spec::RopePairing::kHalfSplit}) {
    const TempDir dir;
    const spec::ModelDesc d = shape(pairing);
    const auto file = make_model(dir, d, "f32");
    const std::vector<LoraEntry> entries = random_adapter(d, 5);
    for (const bool by_root : {false, true}) {
      write_lora(dir / "adapter",
                 format(R"({{"peft_type":"LORA","r":6,"lora_alpha":9,"use_rslora":{}}})", by_root),
                 entries);
      const auto adapter = load(dir / "adapter", d);
      OracleDecoder plain(*file), merged(*file);
      merge(merged, d, entries, by_root ? 9 / std::sqrt(6.0) : 9 / 6.0);
      ComputeTeam team(1);
      auto stage = Stage::load(file, options(), **kernel_table(), team);
      ASSERT_TRUE(stage);
      const std::vector<int32_t> tokens = some_tokens(1, 20);
      const auto ours = evaluate(*stage, {{tokens, adapter.get()}}, 20)[0];
      const auto expected = merged.logits(tokens), without = plain.logits(tokens);
      double error = 0, size = 0, change = 0;
      for (size_t i = 0; i < ours.size(); ++i) {
        const double e = expected[i / 300][i % 300];
        error += std::pow(static_cast<double>(ours[i]) - e, 2);
        change += std::pow(without[i / 300][i % 300] - e, 2);
        size += e * e;
      }
      EXPECT_LT(std::sqrt(error / size), 1e-3);  // the float16 KV cache
      EXPECT_GT(std::sqrt(change / size), 0.1);  // the adapter matters
    }
  }
}

// Rows with different adapters and none in one step; prompts cut anyhow; threads; stages.
TEST(Lora, BitsDoNotDependOnTheCompany) {
  const TempDir dir;
  const spec::ModelDesc d = shape(spec::RopePairing::kInterleaved);
  for (const char* type : {"f32", "q4_0"}) {
    const auto file = make_model(dir, d, type);
    write_lora(dir / "a", kConfig, random_adapter(d, 5));
    write_lora(dir / "b", kConfig, random_adapter(d, 6, 17));
    const auto a = load(dir / "a", d), b = load(dir / "b", d);
    ComputeTeam one(1), two(2);
    auto stage = Stage::load(file, options(), **kernel_table(), one);
    auto other = Stage::load(file, options(), **kernel_table(), two);
    ASSERT_TRUE(stage && other);
    std::vector<Sequence> sequences;
    std::vector<std::vector<float>> alone;
    for (size_t i = 0; i < 6; ++i) {
      sequences.push_back({some_tokens(i, 9 + 4 * i), i % 3 == 0   ? nullptr
                                                      : i % 3 == 1 ? a.get()
                                                                   : b.get()});
      alone.push_back(evaluate(*stage, {sequences.back()}, 200)[0]);
    }
    EXPECT_EQ(alone[0], evaluate(*stage, {{sequences[0].tokens, nullptr}}, 200)[0]);
    EXPECT_NE(alone[1], evaluate(*stage, {{sequences[1].tokens, nullptr}}, 200)[0]);
    for (const int32_t chunk : {1, 5, 30}) {
      EXPECT_TRUE(evaluate(*stage, sequences, chunk) == alone) << type << chunk;
      EXPECT_TRUE(evaluate(*other, sequences, chunk) == alone) << type << chunk;
    }
  }
}

class ThreadCollective final : public Collective {
 public:
  ThreadCollective(std::vector<float>& memory, std::barrier<>& gate, Shard shard)
      : memory_(memory), gate_(gate), shard_(shard) {}
  Shard shard() const override { return shard_; }
  std::span<float> memory() const override { return memory_; }
  Result<void> barrier() override {
    gate_.arrive_and_wait();
    return {};
  }

 private:
  std::vector<float>& memory_;
  std::barrier<>& gate_;
  Shard shard_;
};

TEST(Lora, AnyNumberOfRanksGivesTheBitsOfOne) {
  const TempDir dir;
  const spec::ModelDesc d = shape(spec::RopePairing::kInterleaved);
  const auto file = make_model(dir, d, "q8_0");
  write_lora(dir / "a", kConfig, random_adapter(d, 5));
  const auto serve = [&](Collective* collective, Shard shard) {
    StageOptions o = options();
    o.collective = collective;
    ComputeTeam team(1);
    auto stage = Stage::load(file, o, **kernel_table(), team);
    EXPECT_TRUE(stage);
    const auto adapter = load(dir / "a", d, {0, 3}, shard);
    return evaluate(*stage, {{some_tokens(3, 30), adapter.get()}, {some_tokens(4, 20), nullptr}},
                    7);
  };
  const auto expected = serve(nullptr, {});
  for (const int32_t ranks : {2, 4}) {
    std::vector<float> memory(static_cast<size_t>(Stage::shared_floats(d, options(), ranks)));
    std::barrier<> gate(ranks);
    std::vector<std::thread> threads;
    for (int32_t rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        ThreadCollective collective(memory, gate, {rank, ranks});
        EXPECT_TRUE(serve(&collective, {rank, ranks}) == expected) << rank << " of " << ranks;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(Lora, AStageTakesItsLayersOnly) {
  const TempDir dir;
  const spec::ModelDesc d = shape(spec::RopePairing::kInterleaved);
  write_lora(dir / "a", kConfig, random_adapter(d, 5));
  const auto all = load(dir / "a", d), last = load(dir / "a", d, {2, 3});
  EXPECT_LT(last->bytes(), all->bytes() * 2 / 3);
  EXPECT_TRUE(last->pair(0, LoraTarget::kDown).present());
  EXPECT_FALSE(all->pair(1, LoraTarget::kDown).present());
  EXPECT_EQ(all->largest_rank(), 6);
}

TEST(Lora, WhatIsNotSupportedOrBrokenIsRefusedByName) {
  const TempDir dir;
  const spec::ModelDesc d = shape(spec::RopePairing::kInterleaved);
  const auto error = [&](const std::string& config, const std::vector<LoraEntry>& entries) {
    write_lora(dir / "bad", config, entries);
    const auto adapter = LoraAdapter::load(dir / "bad", d, {0, 3});
    return adapter ? std::string() : adapter.error().to_string();
  };
  const auto has = [](const std::string& text, const char* what) {
    return text.find(what) != std::string::npos;
  };
  const std::vector<LoraEntry> good = random_adapter(d, 5);
  EXPECT_EQ(error(kConfig, good), "");
  EXPECT_TRUE(has(error(R"({"peft_type":"IA3","lora_alpha":9})", good), "IA3"));
  EXPECT_TRUE(has(error(R"({"lora_alpha":9,"use_dora":true})", good), "DoRA"));
  EXPECT_TRUE(has(error(R"({"lora_alpha":9,"bias":"all"})", good), "bias"));
  EXPECT_TRUE(has(error(R"({"lora_alpha":0})", good), "lora_alpha"));
  EXPECT_TRUE(has(error(R"({"lora_alpha":)", good), "adapter_config.json"));
  EXPECT_TRUE(has(error(kConfig, {}), "no LoRA"));
  std::vector<LoraEntry> bad = good;
  bad[0].name = "base_model.model.lm_head.lora_A.weight";
  EXPECT_TRUE(has(error(kConfig, bad), "lm_head"));
  bad = good;
  bad.erase(bad.begin());
  EXPECT_TRUE(has(error(kConfig, bad), "only one of"));
  bad = good;
  std::swap(bad[0].rows, bad[0].cols);
  EXPECT_TRUE(has(error(kConfig, bad), "blk.0.attn_q"));
  bad = good;
  bad[3].values[5] = NAN;
  EXPECT_TRUE(has(error(kConfig, bad), "no number"));
  bad = good;
  bad[0].name = "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight";
  EXPECT_TRUE(has(error(kConfig, bad), "layers.9"));
  std::filesystem::resize_file(dir / "bad/adapter_model.safetensors", 2000);
  EXPECT_FALSE(LoraAdapter::load(dir / "bad", d, {0, 3}));
  EXPECT_FALSE(LoraAdapter::load(dir / "nowhere", d, {0, 3}));
}

}  // namespace
}  // namespace towline::engine
