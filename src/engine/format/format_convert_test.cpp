// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/format/convert_model.hpp"
#include "engine/format/dummy_model.hpp"
#include "engine/format/hf_tokenizer.hpp"
#include "engine/format/test_files.hpp"

namespace towline::engine {
namespace {

using Strings = std::vector<std::string_view>;

// Converts and opens again.
Result<ModelFile> converted(const std::string& from, const char* type, const std::string& to) {
  ASSIGN_OR_RETURN(const ModelFile model, ModelFile::open(from));
  ASSIGN_OR_RETURN(const QuantRecipe recipe, quant_recipe(type));
  TRY(convert_model(model, recipe, to, WriteOptions{2, {}}));
  return ModelFile::open(to);
}

void expect_same_tensors(const ModelFile& a, const ModelFile& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const Tensor& t : a.tensors()) {
    const Tensor* u = b.find(t.name);
    ASSERT_NE(u, nullptr) << t.name;
    ASSERT_EQ(std::tuple(t.dtype, t.rows, t.cols), std::tuple(u->dtype, u->rows, u->cols))
        << t.name;
    EXPECT_EQ(std::memcmp(t.data, u->data, static_cast<size_t>(t.bytes())), 0) << t.name;
  }
}

// Our quantiser against files made by llama.cpp's from the same weights.
TEST(Convert, ReproducesOrdinaryFilesByteForByte) {
  const TempDir dir;
  for (const std::string name : {"stories260K", "TinyStories-656K"}) {
    for (const std::string type : {"Q8_0", "Q4_0"}) {
      TOWLINE_SHARED_MODEL(f32, name + "/" + name + "-f32.gguf");
      TOWLINE_SHARED_MODEL(peers, name + "/" + name + "-" + type + ".gguf");
      const Result<ModelFile> ours = converted(f32, type.c_str(), dir / (name + type));
      const Result<ModelFile> theirs = ModelFile::open(peers);
      ASSERT_TRUE(ours) << ours.error().to_string();
      ASSERT_TRUE(theirs) << theirs.error().to_string();
      expect_same_tensors(*theirs, *ours);
      // All metadata are kept, with their types.
      for (size_t i = 0; i < theirs->all_meta().size(); ++i) {
        const std::string& key = theirs->all_meta()[i].first;
        EXPECT_EQ(theirs->meta(key), ours->meta(key)) << key;
      }
    }
  }
}

// The shared GGUF files were converted from the same directory by another program.
TEST(Convert, HuggingFaceDirectoryBecomesTheSameGguf) {
  TOWLINE_SHARED_MODEL(hf, "TinyStories-656K/hf");
  TOWLINE_SHARED_MODEL(gguf, "TinyStories-656K/TinyStories-656K-f32.gguf");
  const TempDir dir;
  const Result<ModelFile> ours = converted(hf, "f32", dir / "f32");
  const Result<ModelFile> theirs = ModelFile::open(gguf);
  ASSERT_TRUE(ours) << ours.error().to_string();
  expect_same_tensors(*theirs, *ours);
  for (const char* key :
       {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
        "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_space_prefix", "llama.block_count", "llama.rope.freq_base",
        "llama.attention.layer_norm_rms_epsilon", "llama.attention.head_count_kv"}) {
    EXPECT_EQ(theirs->meta(key), ours->meta(key)) << key;
  }
  // Scores need not be equal, only in the same order where they decide.
  const auto& a = std::get<std::vector<float>>(theirs->meta("tokenizer.ggml.scores"));
  const auto& b = std::get<std::vector<float>>(ours->meta("tokenizer.ggml.scores"));
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 3; i < a.size(); ++i) EXPECT_EQ(a[i], b[i]) << i;
}

TEST(Convert, InterleavingPairsTheHalves) {
  // One head of 8, all rotary: (0,4) (1,5) (2,6) (3,7).
  const std::vector<int64_t> wanted = {0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15};
  for (int64_t r = 0; r < 16; ++r) {
    EXPECT_EQ(interleaved_source_row(r, 8, 8), wanted[static_cast<size_t>(r)]);
  }
  // Only the first 4 of 8 are rotary.
  const std::vector<int64_t> partial = {0, 2, 1, 3, 4, 5, 6, 7, 8, 10};
  for (int64_t r = 0; r < 10; ++r) {
    EXPECT_EQ(interleaved_source_row(r, 8, 4), partial[static_cast<size_t>(r)]);
  }
}

spec::ModelDesc wide_shape() {
  spec::ModelDesc d;
  d.name = "wide";
  d.architecture = "llama";
  d.layers = 2;
  d.hidden = 256;
  d.ffn = 512;
  d.heads = 4;
  d.kv_heads = 2;
  d.head_dim = d.rope_dim = 64;
  d.vocab = 300;
  d.context = 128;
  d.rope_scaling = spec::RopeScaling::kLlama3;
  d.rope_factor = 8;
  return d;
}

double distance(const ModelFile& a, const ModelFile& b) {
  double miss = 0, size = 0;
  for (const Tensor& t : a.tensors()) {
    const Tensor* u = b.find(t.name);
    if (u == nullptr || t.rows == 1) continue;
    std::vector<float> x(static_cast<size_t>(t.cols)), y(x.size());
    for (int64_t r = 0; r < t.rows; ++r) {
      dequantize_row(t.dtype, t.row(r), x);
      dequantize_row(u->dtype, u->row(r), y);
      for (size_t i = 0; i < x.size(); ++i) {
        miss += (x[i] - y[i]) * double{x[i] - y[i]};
        size += double{x[i]} * x[i];
      }
    }
  }
  return std::sqrt(miss / size);
}

TEST(Convert, EveryTypeStaysCloseAndKeepsTheDescription) {
  const TempDir dir;
  ASSERT_TRUE(make_dummy_model(wide_shape(), *quant_recipe("f32"), 3, dir / "f32", {}));
  const Result<ModelFile> original = ModelFile::open(dir / "f32");
  ASSERT_TRUE(original);
  const std::pair<const char*, double> cases[] = {
      {"f16", 5e-4},   {"bf16", 3e-3},   {"q8_0", 0.007},   {"q6_k", 0.02},  {"q5_k_m", 0.035},
      {"q5_1", 0.035}, {"q5_0", 0.035}, {"q4_k_m", 0.065}, {"q4_1", 0.065}, {"q4_0", 0.07}};
  for (const auto& [type, bound] : cases) {
    const Result<ModelFile> model = converted(dir / "f32", type, dir / type);
    ASSERT_TRUE(model) << model.error().to_string();
    EXPECT_LT(distance(*original, *model), bound) << type;
    EXPECT_EQ(model->desc().rope_factors, original->desc().rope_factors);
    EXPECT_EQ(model->desc().name, "wide");
    EXPECT_TRUE(model->check({0, 2}));
    EXPECT_TRUE(check_values(*model, WriteOptions{2, {}}));
  }
  // From a quantised file back: the same type copies the blocks.
  const Result<ModelFile> again = converted(dir / "q4_k_m", "q4_k_m", dir / "again");
  ASSERT_TRUE(again);
  EXPECT_EQ(*read_file(dir / "again"), *read_file(dir / "q4_k_m"));
}

TEST(Convert, NonFiniteWeightsAreNamed) {
  const TempDir dir;
  GgufMeta meta;
  spec::ModelDesc d = wide_shape();
  d.rope_scaling = spec::RopeScaling::kNone;
  set_model_keys(d, meta);
  const std::vector<PlannedTensor> tensors = dummy_tensors(d, *quant_recipe("f32"));
  const FillRows fill = [&](size_t index, int64_t begin, int64_t end,
                            std::byte* out) -> Result<void> {
    const PlannedTensor& t = tensors[index];
    std::vector<float> values(static_cast<size_t>((end - begin) * t.cols), 0.5f);
    if (t.name == "blk.1.attn_v.weight" && begin == 0) {
      values[static_cast<size_t>(2 * t.cols + 5)] = std::numeric_limits<float>::infinity();
    }
    std::memcpy(out, values.data(), values.size() * sizeof(float));
    return {};
  };
  ASSERT_TRUE(write_gguf(dir / "bad", meta, tensors, fill, {}));
  const Result<ModelFile> model = ModelFile::open(dir / "bad");
  ASSERT_TRUE(model) << model.error().to_string();
  const Result<void> checked = check_values(*model, WriteOptions{2, {}});
  const Result<void> written = convert_model(*model, *quant_recipe("q8_0"), dir / "out", {});
  for (const Result<void>* r : {&checked, &written}) {
    ASSERT_FALSE(*r);
    EXPECT_EQ(r->error().message(),
              "the tensor 'blk.1.attn_v.weight' has the value inf at row 2, column 5");
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
}

Json parse(std::string_view text) {
  Result<Json> j = parse_json(text, "test");
  EXPECT_TRUE(j) << j.error().to_string();
  return *j;
}

// Writes the keys into a file without tensors and reads them back.
Result<ModelFile> vocabulary_file(const HfTokenizerFiles& files, int32_t vocab,
                                  const std::string& path) {
  GgufMeta meta;
  TRY(set_tokenizer_keys(files, vocab, meta));
  TRY(write_gguf(path, meta, {}, {}, {}));
  return ModelFile::open(path);
}

HfTokenizerFiles byte_level_files() {
  HfTokenizerFiles files;
  files.tokenizer =
      parse(R"JSON({
    "added_tokens":[{"id":4,"content":"<|end|>","special":true},
                    {"id":5,"content":"<tool>","special":false}],
    "pre_tokenizer":{"type":"Sequence","pretokenizers":[
      {"type":"Split","pattern":{"Regex":
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|)JSON"
            R"JSON(\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
       "behavior":"Isolated","invert":false},
      {"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
    "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"aba":3},"merges":[["a","b"],"ab a"]}})JSON");
  files.config = parse(R"({"eos_token":{"content":"<|end|>"},"add_bos_token":false,
                          "chat_template":[{"name":"tool","template":"T"},
                                           {"name":"default","template":"D"}]})");
  return files;
}

TEST(HfTokenizer, ByteLevelKeys) {
  const TempDir dir;
  const Result<ModelFile> file = vocabulary_file(byte_level_files(), 8, dir / "v");
  ASSERT_TRUE(file) << file.error().to_string();
  EXPECT_EQ(std::get<std::string_view>(file->meta("tokenizer.ggml.model")), "gpt2");
  EXPECT_EQ(std::get<std::string_view>(file->meta("tokenizer.ggml.pre")), "qwen2");
  EXPECT_EQ(std::get<Strings>(file->meta("tokenizer.ggml.tokens")),
            (Strings{"a", "b", "ab", "aba", "<|end|>", "<tool>", "[PAD6]", "[PAD7]"}));
  EXPECT_EQ(std::get<std::vector<int64_t>>(file->meta("tokenizer.ggml.token_type")),
            (std::vector<int64_t>{1, 1, 1, 1, 3, 4, 5, 5}));
  EXPECT_EQ(std::get<Strings>(file->meta("tokenizer.ggml.merges")), (Strings{"a b", "ab a"}));
  EXPECT_EQ(std::get<int64_t>(file->meta("tokenizer.ggml.eos_token_id")), 4);
  EXPECT_EQ(std::get<bool>(file->meta("tokenizer.ggml.add_bos_token")), false);
  EXPECT_EQ(std::get<std::string_view>(file->meta("tokenizer.chat_template")), "D");
}

TEST(HfTokenizer, RefusesWhatGgufCannotSay) {
  const TempDir dir;
  const auto message = [&](auto&& change, int32_t vocab = 8) {
    HfTokenizerFiles files = byte_level_files();
    change(files);
    const Result<ModelFile> file = vocabulary_file(files, vocab, dir / "v");
    return file ? std::string("fine") : file.error().to_string();
  };
  const auto has = [](const std::string& text, const char* word) {
    return text.find(word) != std::string::npos;
  };
  EXPECT_EQ(message([](auto&) {}), "fine");
  EXPECT_TRUE(has(message([](auto&) {}, 5), "<tool>"));
  EXPECT_TRUE(has(message([](auto& f) { f.tokenizer.set("pre_tokenizer", Json()); }), "pre-split"));
  EXPECT_TRUE(has(message([](auto& f) {
                    f.tokenizer.set("model", parse(R"({"type":"Unigram","vocab":[]})"));
                  }),
                  "Unigram"));
  EXPECT_TRUE(has(message([](auto& f) {
                    f.tokenizer.set("model", parse(R"({"type":"BPE","vocab":{"a":-1}})"));
                  }),
                  "-1"));
  EXPECT_TRUE(has(message([](auto& f) {
                    f.tokenizer.set("model",
                                    parse(R"({"type":"BPE","vocab":{"a":1},"merges":["x"]})"));
                  }),
                  "merge 0"));
}

}  // namespace
}  // namespace towline::engine
