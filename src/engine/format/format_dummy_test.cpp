// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "engine/format/dummy_model.hpp"
#include "engine/format/model_file.hpp"
#include "engine/format/test_files.hpp"
#include "engine/testing_model.hpp"
#include "spec/model_shapes.hpp"

namespace towline::engine {
namespace {

// Small enough to write in a blink.
spec::ModelDesc tiny_shape(const std::string& architecture) {
  spec::ModelDesc d = small_shape(architecture, 3);
  d.context = 64;
  return d;
}

double rms(const Tensor& t) {
  std::vector<float> row(static_cast<size_t>(t.cols));
  double sum = 0, mean = 0;
  for (int64_t r = 0; r < t.rows; ++r) {
    dequantize_row(t.dtype, t.row(r), row);
    for (const float v : row) {
      sum += double{v} * v;
      mean += v;
    }
  }
  const auto n = static_cast<double>(t.rows * t.cols);
  EXPECT_LT(std::fabs(mean / n), 0.05 * std::sqrt(sum / n)) << t.name;
  return std::sqrt(sum / n);
}

TEST(DummyModel, OpensWithTheShapeAndSaneWeightsInEveryType) {
  const TempDir dir;
  for (const char* type : {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m",
                           "q4_k_s", "q5_k_m", "q5_k_s", "q6_k"}) {
    const spec::ModelDesc d = tiny_shape("llama");
    const std::string path = dir / type;
    ASSERT_TRUE(make_dummy_model(d, *quant_recipe(type), 1, path, {}));
    const Result<ModelFile> model = ModelFile::open(path);
    ASSERT_TRUE(model) << model.error().to_string();
    EXPECT_TRUE(model->check({0, 3}));
    for (const Tensor& t : model->tensors()) {
      if (t.rows == 1) continue;
      EXPECT_NEAR(rms(t) * std::sqrt(static_cast<double>(t.cols)), 1, 0.04)
          << type << " " << t.name;
    }
  }
}

TEST(DummyModel, DescriptionSurvivesTheFile) {
  const TempDir dir;
  for (const std::string_view name : spec::model_shape_names()) {
    spec::ModelDesc d = *spec::model_shape(name);
    d.layers = 1;  // one layer of a small width stands for all
    d.hidden = 32;
    d.ffn = 64;
    d.vocab = 300;
    const std::string path = dir / std::string(name);
    ASSERT_TRUE(make_dummy_model(d, *quant_recipe("q8_0"), 1, path, {}));
    const Result<ModelFile> model = ModelFile::open(path);
    ASSERT_TRUE(model) << model.error().to_string();
    const spec::ModelDesc& r = model->desc();
    EXPECT_EQ(r.name, d.name);
    EXPECT_EQ(r.architecture, d.architecture == "mistral" ? "llama" : d.architecture);
    EXPECT_EQ(std::tuple(r.layers, r.hidden, r.ffn, r.heads, r.kv_heads, r.head_dim, r.vocab),
              std::tuple(d.layers, d.hidden, d.ffn, d.heads, d.kv_heads, d.head_dim, d.vocab));
    EXPECT_EQ(std::tuple(r.context, r.norm_eps, r.tied_embeddings, r.qkv_bias, r.qk_norm),
              std::tuple(d.context, d.norm_eps, d.tied_embeddings, d.qkv_bias, d.qk_norm));
    EXPECT_EQ(std::tuple(r.sliding_window, r.rope_pairing, r.rope_theta, r.rope_dim),
              std::tuple(d.sliding_window, d.rope_pairing, d.rope_theta, d.rope_dim));
    if (d.rope_scaling == spec::RopeScaling::kLlama3) {
      EXPECT_EQ(r.rope_scaling, spec::RopeScaling::kTable);
      EXPECT_EQ(r.rope_factors, llama3_rope_factors(d));
      EXPECT_EQ(r.rope_factors.front(), 1.0f);
      EXPECT_EQ(r.rope_factors.back(), d.rope_factor);
    } else {
      EXPECT_EQ(r.rope_scaling, spec::RopeScaling::kNone);
    }
  }
}

TEST(DummyModel, BytesDependOnTheSeedAndNotOnTheThreads) {
  const TempDir dir;
  const spec::ModelDesc d = tiny_shape("qwen2");
  const QuantRecipe recipe = *quant_recipe("q4_k_m");
  int64_t last = 0, total = 0;
  WriteOptions two{2, [&](int64_t done, int64_t all) {
                     EXPECT_GT(done, last);
                     last = done;
                     total = all;
                   }};
  ASSERT_TRUE(make_dummy_model(d, recipe, 7, dir / "one", {}));
  ASSERT_TRUE(make_dummy_model(d, recipe, 7, dir / "two", two));
  ASSERT_TRUE(make_dummy_model(d, recipe, 8, dir / "other", {}));
  EXPECT_EQ(*read_file(dir / "one"), *read_file(dir / "two"));
  EXPECT_NE(*read_file(dir / "one"), *read_file(dir / "other"));
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0);
  // Nothing else is left behind.
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.string())) {
    files += entry.exists();
  }
  EXPECT_EQ(files, 3);
}

TEST(DummyModel, FailureLeavesNoFile) {
  const TempDir dir;
  const spec::ModelDesc d = tiny_shape("llama");
  const Result<void> r = make_dummy_model(d, *quant_recipe("q4_0"), 1, dir / "absent/f", {});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code(), Code::kNotFound);
  GgufMeta meta;
  const std::vector<PlannedTensor> tensors = {{"a", DType::kF32, 4, 8}};
  const FillRows refuse = [](size_t, int64_t, int64_t, std::byte*) -> Result<void> {
    return Error(Code::kInternal, "refused");
  };
  const Result<void> w = write_gguf(dir / "f", meta, tensors, refuse, {});
  ASSERT_FALSE(w);
  EXPECT_EQ(w.error().message(), "refused");
  EXPECT_TRUE(std::filesystem::is_empty(dir.string()));
}

// Resident bytes of the mapping of `path` in this process.
int64_t resident_bytes(const std::string& path) {
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  int64_t kilobytes = 0;
  while (std::getline(smaps, line)) {
    if (line.find('-') < line.find(' ')) {  // "begin-end perms ... path"
      inside = line.ends_with(path);
    } else if (inside && line.starts_with("Rss:")) {
      kilobytes += std::strtoll(line.c_str() + 4, nullptr, 10);
    }
  }
  return kilobytes * 1024;
}

// A worker that holds layers [4, 5) of 8 maps the file and touches little more than that layer.
TEST(DummyModel, ALayerRangeTouchesItsOwnBytes) {
  const TempDir dir;
  spec::ModelDesc d = tiny_shape("llama");
  d.layers = 8;
  d.ffn = 2048;
  const std::string path = dir / "m.gguf";
  ASSERT_TRUE(make_dummy_model(d, *quant_recipe("f32"), 1, path, {}));
  const Result<ModelFile> model = ModelFile::open(path);
  ASSERT_TRUE(model);
  ASSERT_TRUE(model->check({4, 5}));
  const int64_t opened = resident_bytes(path);
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, 600'000);  // the header, and what the kernel maps around it
  int64_t layer_bytes = 0;
  std::vector<float> row;
  for (const Tensor& t : model->tensors()) {
    if (!t.name.starts_with("blk.4.")) continue;
    layer_bytes += t.bytes();
    row.resize(static_cast<size_t>(t.cols));
    for (int64_t r = 0; r < t.rows; ++r) dequantize_row(t.dtype, t.row(r), row);
  }
  const int64_t loaded = resident_bytes(path);
  EXPECT_GE(loaded, layer_bytes);
  EXPECT_LT(loaded, opened + layer_bytes + 600'000);
  EXPECT_LT(loaded * 4, static_cast<int64_t>(std::filesystem::file_size(path)));
  for (const Tensor& t : model->tensors()) model->drop_pages(t);
  EXPECT_LT(resident_bytes(path), opened + 300'000);
}

// What ordinary files of these names contain (engine users compare speeds on them).
TEST(QuantRecipe, ChoosesAsOrdinaryFilesDo) {
  const spec::ModelDesc llama = *spec::model_shape("llama-3.2-1b");
  const spec::ModelDesc qwen = *spec::model_shape("qwen2.5-0.5b");
  const spec::ModelDesc untied = *spec::model_shape("tinyllama-1.1b");
  const auto type = [](const char* recipe, const spec::ModelDesc& d, const char* name,
                       int64_t cols) {
    return choose_dtype(*quant_recipe(recipe), d, name, 64, cols);
  };
  EXPECT_EQ(type("q4_0", llama, "token_embd.weight", 2048), DType::kQ6_K);
  EXPECT_EQ(type("q4_0", qwen, "token_embd.weight", 896), DType::kQ8_0);
  EXPECT_EQ(type("q4_0", untied, "token_embd.weight", 2048), DType::kQ4_0);
  EXPECT_EQ(type("q4_0", untied, "output.weight", 2048), DType::kQ6_K);
  EXPECT_EQ(type("q8_0", llama, "token_embd.weight", 2048), DType::kQ8_0);
  EXPECT_EQ(type("q4_0", llama, "blk.0.ffn_down.weight", 172), DType::kF16);
  EXPECT_EQ(type("q4_k_m", llama, "blk.0.attn_v.weight", 2048), DType::kQ6_K);
  EXPECT_EQ(type("q4_k_m", llama, "blk.2.attn_v.weight", 2048), DType::kQ4_K);
  EXPECT_EQ(type("q4_k_m", llama, "blk.4.ffn_down.weight", 2048), DType::kQ6_K);
  EXPECT_EQ(type("q4_k_m", llama, "blk.0.attn_q.weight", 2048), DType::kQ4_K);
  EXPECT_EQ(type("q4_k_m", qwen, "blk.0.attn_q.weight", 896), DType::kQ5_0);
  EXPECT_EQ(type("q4_k_m", qwen, "blk.0.attn_v.weight", 896), DType::kQ8_0);
  EXPECT_EQ(type("f16", qwen, "token_embd.weight", 896), DType::kF16);
  EXPECT_EQ(choose_dtype(*quant_recipe("q4_0"), llama, "output_norm.weight", 1, 2048), DType::kF32);
  EXPECT_EQ(quant_recipe("Q4_K")->name, "q4_k_m");
  EXPECT_FALSE(quant_recipe("q3_k"));
}

}  // namespace
}  // namespace towline::engine
