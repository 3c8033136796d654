// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "engine/format/model_file.hpp"
#include "engine/format/test_files.hpp"

namespace towline::engine {
namespace {

TEST(Gguf, OpensATrainedF32Model) {
  TOWLINE_SHARED_MODEL(path, "stories260K/stories260K-f32.gguf");
  const Result<ModelFile> model = ModelFile::open(path);
  ASSERT_TRUE(model) << model.error().to_string();
  const spec::ModelDesc& d = model->desc();
  EXPECT_EQ(d.architecture, "llama");
  EXPECT_EQ(d.layers, 5);
  EXPECT_EQ(d.hidden, 64);
  EXPECT_EQ(d.ffn, 172);
  EXPECT_EQ(d.heads, 8);
  EXPECT_EQ(d.kv_heads, 4);
  EXPECT_EQ(d.head_dim, 8);
  EXPECT_EQ(d.rope_dim, 8);
  EXPECT_EQ(d.vocab, 512);
  EXPECT_EQ(d.context, 512);
  EXPECT_TRUE(d.tied_embeddings);
  EXPECT_FALSE(d.qkv_bias);
  EXPECT_EQ(d.rope_pairing, spec::RopePairing::kInterleaved);
  EXPECT_EQ(model->tensors().size(), 47u);
  EXPECT_TRUE(model->check({0, 5}));
  EXPECT_TRUE(model->check({2, 3}));
  EXPECT_FALSE(model->check({0, 6}));
  EXPECT_FALSE(model->check({3, 3}));
  const auto& tokens = std::get<std::vector<std::string_view>>(model->meta("tokenizer.ggml.tokens"));
  EXPECT_EQ(tokens.size(), 512u);
  EXPECT_EQ(tokens[1], "<s>");
  EXPECT_TRUE(std::holds_alternative<std::monostate>(model->meta("no.such.key")));
}

TEST(Gguf, OpensVocabularyOnlyFilesOfAnyArchitecture) {
  for (const auto& [name, architecture, vocab] :
       {std::tuple{"vocab/ggml-vocab-phi-3.gguf", "phi3", 32064},
        std::tuple{"vocab/ggml-vocab-gpt-2.gguf", "gpt2", 50257},
        std::tuple{"vocab/ggml-vocab-qwen2.gguf", "qwen2", 151936}}) {
    TOWLINE_SHARED_MODEL(path, name);
    const Result<ModelFile> model = ModelFile::open(path);
    ASSERT_TRUE(model) << model.error().to_string();
    EXPECT_EQ(model->desc().architecture, architecture);
    EXPECT_EQ(model->desc().vocab, vocab);
    EXPECT_TRUE(model->tensors().empty());
    const Result<void> checked = model->check({0, 1});
    ASSERT_FALSE(checked);
  }
}

}  // namespace
}  // namespace towline::engine
