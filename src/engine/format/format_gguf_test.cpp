// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "base/for_seeds.hpp"
#include "engine/format/gguf_writer.hpp"
#include "engine/format/model_file.hpp"
#include "engine/format/model_shape.hpp"
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
  const auto& tokens =
      std::get<std::vector<std::string_view>>(model->meta("tokenizer.ggml.tokens"));
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

// ---- files made by hand, to be damaged ----

// The bytes of a GGUF file, field by field; every field can be overridden.
struct RawGguf {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> keys;     // encoded key-values
  std::vector<std::string> tensors;  // encoded tensor entries
  int64_t extra_keys = 0, extra_tensors = 0;  // added to the counts
  size_t data_bytes = 0;

  template <class T>
  static std::string num(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  static std::string text(std::string_view s) {
    return num(static_cast<uint64_t>(s.size())) + std::string(s);
  }
  RawGguf& key(std::string_view name, uint32_t type, std::string_view value) {
    keys.push_back(text(name) + num(type) + std::string(value));
    return *this;
  }
  RawGguf& u32(std::string_view name, uint32_t v) { return key(name, 4, num(v)); }
  RawGguf& str(std::string_view name, std::string_view v) { return key(name, 8, text(v)); }
  RawGguf& tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type,
                  uint64_t offset) {
    std::string t = text(name) + num(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) t += num(d);
    tensors.push_back(t + num(type) + num(offset));
    return *this;
  }
  std::string bytes() const {
    std::string out = magic + num(version) +
                      num(tensors.size() + static_cast<uint64_t>(extra_tensors)) +
                      num(keys.size() + static_cast<uint64_t>(extra_keys));
    for (const std::string& k : keys) out += k;
    for (const std::string& t : tensors) out += t;
    out.resize((out.size() + 31) / 32 * 32);
    out.append(data_bytes, '\0');
    return out;
  }
};

// A whole model: 1 layer, 2 heads of 4, 3 tokens.
RawGguf small_model() {
  RawGguf g;
  g.str("general.architecture", "llama");
  g.u32("llama.block_count", 1)
      .u32("llama.embedding_length", 8)
      .u32("llama.feed_forward_length", 4);
  g.u32("llama.attention.head_count", 2).u32("llama.context_length", 16);
  g.key("odd.nested", 9,
        RawGguf::num(uint32_t{9}) + RawGguf::num(uint64_t{2}) + RawGguf::num(uint32_t{0}) +
            RawGguf::num(uint64_t{3}) + "abc" + RawGguf::num(uint32_t{0}) +
            RawGguf::num(uint64_t{0}));
  g.key("odd.f64", 12, RawGguf::num(0.5));
  g.key("odd.i8s", 9, RawGguf::num(uint32_t{1}) + RawGguf::num(uint64_t{2}) + "\xff\x01");
  uint64_t offset = 0;
  spec::ModelDesc d;
  d.layers = 1;
  d.hidden = 8;
  d.ffn = 4;
  d.heads = d.kv_heads = 2;
  d.head_dim = 4;
  d.vocab = 3;
  for (const TensorShape& t : needed_tensors(d, {0, 1})) {
    std::vector<uint64_t> dims = {static_cast<uint64_t>(t.cols)};
    if (t.rows > 1) dims.push_back(static_cast<uint64_t>(t.rows));
    g.tensor(t.name, dims, 0, offset);
    offset += (static_cast<uint64_t>(t.rows * t.cols) * 4 + 31) / 32 * 32;
  }
  g.data_bytes = offset;
  return g;
}

class Opener {
 public:
  Result<ModelFile> open(std::string_view bytes, const std::string& name = "m.gguf") {
    write(name, bytes);
    return ModelFile::open(dir_ / name);
  }
  Result<ModelFile> open(const RawGguf& raw) { return open(raw.bytes()); }
  void write(const std::string& name, std::string_view bytes) {
    std::ofstream file(dir_ / name, std::ios::binary);  // thousands of files: no flush to disk
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(file.flush());
  }
  std::string operator/(const std::string& name) const { return dir_ / name; }

 private:
  TempDir dir_;
};

TEST(Gguf, ReadsEveryKindOfMetadataInBothVersions) {
  Opener opener;
  for (const uint32_t version : {2u, 3u}) {
    RawGguf raw = small_model();
    raw.version = version;
    const Result<ModelFile> model = opener.open(raw);
    ASSERT_TRUE(model) << model.error().to_string();
    EXPECT_TRUE(model->check({0, 1}));
    EXPECT_EQ(std::get<double>(model->meta("odd.f64")), 0.5);
    EXPECT_EQ(std::get<std::vector<int64_t>>(model->meta("odd.i8s")),
              (std::vector<int64_t>{-1, 1}));
    EXPECT_TRUE(std::holds_alternative<std::monostate>(model->meta("odd.nested")));
    EXPECT_EQ(model->desc().name, "m");  // no general.name: the file's
    EXPECT_EQ(model->desc().kv_heads, 2);
    EXPECT_EQ(model->desc().head_dim, 4);
  }
}

TEST(Gguf, EveryFaultIsOneSentenceThatNamesIt) {
  using Change = std::function<void(RawGguf&)>;
  const std::string array = RawGguf::num(uint32_t{9});
  std::string deep;  // arrays of arrays of ...
  for (int i = 0; i < 6; ++i) deep += RawGguf::num(uint32_t{9}) + RawGguf::num(uint64_t{1});
  const std::pair<const char*, Change> cases[] = {
      {"letters GGUF", [](RawGguf& g) { g.magic = "GGML"; }},
      {"version 1 ", [](RawGguf& g) { g.version = 1; }},
      {"version 9 ", [](RawGguf& g) { g.version = 9; }},
      {"big endian", [](RawGguf& g) { g.version = 0x03000000; }},
      {"claims", [](RawGguf& g) { g.extra_keys = int64_t{1} << 40; }},
      {"claims", [](RawGguf& g) { g.extra_tensors = INT64_MAX; }},
      {"empty name", [](RawGguf& g) { g.extra_tensors = 2; }},
      {"'a.b'", [](RawGguf& g) { g.key("a.b", 13, "x"); }},
      {"key is empty", [](RawGguf& g) { g.key("", 4, "1234"); }},
      {"occurs twice", [](RawGguf& g) { g.u32("llama.block_count", 2); }},
      {"claims 99999999999 elements",
       [](RawGguf& g) {
         g.key("a", 9, RawGguf::num(uint32_t{0}) + RawGguf::num(uint64_t{99999999999}));
       }},
      {"nested more than", [&](RawGguf& g) { g.key("a", 9, deep); }},
      {"type 77",
       [](RawGguf& g) { g.key("a", 9, RawGguf::num(uint32_t{77}) + std::string(8, '\0')); }},
      {"file ends inside", [](RawGguf& g) { g.key("a", 8, RawGguf::num(UINT64_MAX)); }},
      {"general.alignment is 3;", [](RawGguf& g) { g.u32("general.alignment", 3); }},
      {"general.alignment is 0;", [](RawGguf& g) { g.u32("general.alignment", 0); }},
      {"not a multiple of 64", [](RawGguf& g) { g.u32("general.alignment", 64); }},
      {"'x'", [](RawGguf& g) { g.tensor("x", {}, 0, 0); }},
      {"5 dimensions", [](RawGguf& g) { g.tensor("x", {1, 1, 1, 1, 1}, 0, 0); }},
      {"dimension 1 is 0", [](RawGguf& g) { g.tensor("x", {8, 0}, 0, 0); }},
      {"more than", [](RawGguf& g) { g.tensor("x", {1u << 30, 1u << 30}, 0, 0); }},
      {"dimension 0 is", [](RawGguf& g) { g.tensor("x", {UINT64_MAX}, 0, 0); }},
      {"iq4_xs (23)", [](RawGguf& g) { g.tensor("x", {256}, 23, 0); }},
      {"unknown (4711)", [](RawGguf& g) { g.tensor("x", {256}, 4711, 0); }},
      {"q4_0's block of 32", [](RawGguf& g) { g.tensor("x", {48}, 2, 0); }},
      {"truncated", [](RawGguf& g) { g.tensor("x", {8}, 0, UINT64_MAX - 31); }},
      {"truncated", [](RawGguf& g) { g.data_bytes -= 32; }},
      {"overlap", [](RawGguf& g) { g.tensor("x", {8}, 0, 0); }},
      {"not a multiple of 32",
       [](RawGguf& g) {
         g.tensor("x", {1}, 0, g.data_bytes + 4);
         g.data_bytes += 8;
       }},
      {"'output_norm.weight' occurs twice",
       [](RawGguf& g) {
         g.tensor("output_norm.weight", {8}, 0, g.data_bytes);
         g.data_bytes += 32;
       }},
      {"architecture 'mamba' is not supported",
       [](RawGguf& g) {
         g.keys[0] = RawGguf::text("general.architecture") + RawGguf::num(uint32_t{8}) +
                     RawGguf::text("mamba");
       }},
      {"general.architecture is missing", [](RawGguf& g) { g.keys.erase(g.keys.begin()); }},
      {"llama.block_count is missing", [](RawGguf& g) { g.keys.erase(g.keys.begin() + 1); }},
      {"mixture of 8 experts", [](RawGguf& g) { g.u32("llama.expert_count", 8); }},
      {"'yarn' is not supported", [](RawGguf& g) { g.str("llama.rope.scaling.type", "yarn"); }},
      {"must be equal", [](RawGguf& g) { g.u32("llama.attention.value_length", 5); }},
      {"key/value head count is 3", [](RawGguf& g) { g.u32("llama.attention.head_count_kv", 3); }},
      {"rotary width 3 is odd", [](RawGguf& g) { g.u32("llama.rope.dimension_count", 3); }},
      {"not an integer", [](RawGguf& g) { g.str("llama.vocab_size", "many"); }},
      {"split.count is 10000", [](RawGguf& g) { g.u32("split.count", 10000); }},
      {"open the first", [](RawGguf& g) { g.u32("split.count", 2); }},
      {"rope_freqs.weight",
       [](RawGguf& g) {
         g.tensor("rope_freqs.weight", {5}, 0, g.data_bytes);
         g.data_bytes += 32;
       }},
  };
  Opener opener;
  for (const auto& [word, change] : cases) {
    RawGguf raw = small_model();
    change(raw);
    const Result<ModelFile> model = opener.open(raw);
    ASSERT_FALSE(model) << word;
    EXPECT_NE(model.error().to_string().find(word), std::string::npos) << model.error().to_string();
  }
}

TEST(Gguf, MissingAndMisshapenTensorsAreFoundByCheck) {
  Opener opener;
  RawGguf raw = small_model();
  raw.tensors.erase(raw.tensors.begin() + 2);  // attn_q
  Result<ModelFile> model = opener.open(raw);
  ASSERT_TRUE(model);
  EXPECT_NE(model->check({0, 1}).error().message().find("'blk.0.attn_q.weight' (a [8 x 8] one"),
            std::string::npos);
  raw = small_model();
  raw.keys[3] = RawGguf::text("llama.feed_forward_length") + RawGguf::num(uint32_t{4}) +
                RawGguf::num(uint32_t{5});
  model = opener.open(raw);
  ASSERT_TRUE(model);
  EXPECT_NE(model->check({0, 1}).error().message().find("is [4 x 8]; [5 x 8] is needed"),
            std::string::npos);
}

TEST(Gguf, EveryTruncationIsAnError) {
  Opener opener;
  const std::string whole = small_model().bytes();
  for (size_t n = 0; n < whole.size(); n += n < 200 ? 1 : 7) {
    const Result<ModelFile> model = opener.open(std::string_view(whole).substr(0, n));
    ASSERT_FALSE(model) << n;
    EXPECT_EQ(model.error().code(), Code::kDataCorrupt);
  }
}

// Whatever the bytes: an error, or a model all of whose tensors lie inside the file.
TEST(Gguf, AnyDamagedByteIsAnErrorOrHarmless) {
  Opener opener;
  const std::string whole = small_model().bytes();
  int opened = 0;
  for_seeds(800, [&](Rng& rng) {
    std::string bytes = whole;
    const size_t header = whole.size() - small_model().data_bytes;
    for (uint64_t n = 1 + rng.below(3); n > 0; --n) {
      const size_t at = rng.below(header);
      bytes[at] = rng.below(2) ? static_cast<char>(rng())
                               : static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
    }
    const Result<ModelFile> model = opener.open(bytes);
    if (!model) return;
    ++opened;
    (void)model->check({0, model->desc().layers});
    std::vector<float> row;
    for (const Tensor& t : model->tensors()) {
      row.resize(static_cast<size_t>(t.cols));
      dequantize_row(t.dtype, t.row(t.rows - 1), row);
    }
  });
  const bool all_seeds = std::getenv("TOWLINE_SEED") == nullptr;
  EXPECT_GT(opened, all_seeds ? 20 : -1);
}

TEST(Gguf, ShardsOpenAsOneModel) {
  Opener opener;
  const RawGguf whole = small_model();
  const auto shard = [&](uint32_t no, uint32_t count, size_t from, size_t to) {
    RawGguf g;
    if (no == 0) g.keys = whole.keys;
    g.u32("split.no", no).u32("split.count", count).u32("split.tensors.count", 12);
    for (size_t i = from; i < to; ++i) {
      // Offsets begin anew in each shard.
      std::string t = whole.tensors[i];
      const uint64_t offset = (i - from) * 256;
      std::memcpy(t.data() + t.size() - 8, &offset, 8);
      g.tensors.push_back(t);
    }
    g.data_bytes = (to - from) * 256;
    return g;
  };
  ASSERT_EQ(whole.tensors.size(), 12u);
  opener.write("m-00002-of-00003.gguf", shard(1, 3, 4, 5).bytes());
  opener.write("m-00003-of-00003.gguf", shard(2, 3, 5, 12).bytes());
  Result<ModelFile> model = opener.open(shard(0, 3, 0, 4).bytes(), "m-00001-of-00003.gguf");
  ASSERT_TRUE(model) << model.error().to_string();
  EXPECT_TRUE(model->check({0, 1}));
  EXPECT_EQ(model->tensors().size(), 12u);
  EXPECT_EQ(model->find("output_norm.weight")->file, 2);
  // The wrong end, a shard in the wrong place, a tensor too few, a missing file.
  const auto fails_with = [&](const char* word) {
    model = ModelFile::open(opener / "m-00001-of-00003.gguf");
    ASSERT_FALSE(model);
    EXPECT_NE(model.error().to_string().find(word), std::string::npos) << model.error().to_string();
  };
  EXPECT_FALSE(ModelFile::open(opener / "m-00002-of-00003.gguf"));
  opener.write("m-00002-of-00003.gguf", shard(2, 3, 4, 5).bytes());
  fails_with("not shard 2");
  opener.write("m-00002-of-00003.gguf", shard(1, 3, 4, 4).bytes());
  fails_with("split.tensors.count says 12");
  std::filesystem::remove(opener / "m-00003-of-00003.gguf");
  fails_with("m-00003-of-00003.gguf");
}

TEST(Gguf, MissingFilesAndFoldersSayWhichAndWhy) {
  const TempDir dir;
  EXPECT_EQ(ModelFile::open(dir / "absent.gguf").error().code(), Code::kNotFound);
  EXPECT_NE(ModelFile::open(dir.string()).error().to_string().find("no config.json"),
            std::string::npos);
}

}  // namespace
}  // namespace towline::engine
