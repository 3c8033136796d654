// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/for_seeds.hpp"
#include "engine/format/model_file.hpp"
#include "engine/format/safetensors.hpp"
#include "engine/format/test_files.hpp"

namespace towline::engine {
namespace {

Json parse(std::string_view text) {
  Result<Json> j = parse_json(text, "test");
  EXPECT_TRUE(j);
  return j ? *j : Json();
}

// A config with the members every model has, and `more` set over it.
Json config(std::string_view type, std::string_view more = "{}") {
  Json j = parse(R"({"hidden_size":64,"intermediate_size":128,"num_hidden_layers":4,
                     "num_attention_heads":8,"num_key_value_heads":2,"vocab_size":100,
                     "max_position_embeddings":1024,"rms_norm_eps":1e-5,"rope_theta":5000.0})");
  j.set("model_type", Json(type));
  const Json extra = parse(more);
  for (const auto& [name, value] : extra.members()) j.set(name, value);
  return j;
}

TEST(HfConfig, LlamaWithLlama3ScalingInBothSpellings) {
  const char* old_spelling = R"({"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3",
      "factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
      "original_max_position_embeddings":8192}})";
  const char* new_spelling = R"({"rope_theta":null,"rope_parameters":{"rope_type":"llama3",
      "rope_theta":500000.0,"factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
      "original_max_position_embeddings":8192}})";
  for (const char* text : {old_spelling, new_spelling}) {
    const Result<spec::ModelDesc> d = desc_from_hf_config(config("llama", text));
    ASSERT_TRUE(d) << d.error().to_string();
    EXPECT_EQ(d->rope_scaling, spec::RopeScaling::kLlama3);
    EXPECT_EQ(d->rope_theta, 500000.0f);
    EXPECT_EQ(d->rope_factor, 32.0f);
    EXPECT_EQ(d->rope_original_context, 8192);
    EXPECT_EQ(d->rope_pairing, spec::RopePairing::kHalfSplit);
    EXPECT_EQ(d->head_dim, 8);
    EXPECT_FALSE(d->qkv_bias);
  }
}

TEST(HfConfig, WindowsAndHeadWidths) {
  EXPECT_EQ(desc_from_hf_config(config("mistral", R"({"sliding_window":4096})"))->sliding_window,
            4096);
  EXPECT_EQ(desc_from_hf_config(config("mistral", R"({"sliding_window":null})"))->sliding_window,
            0);
  const auto qwen = [](const char* more) { return desc_from_hf_config(config("qwen2", more)); };
  EXPECT_EQ(qwen(R"({"sliding_window":4096,"use_sliding_window":false})")->sliding_window, 0);
  EXPECT_EQ(qwen(R"({"sliding_window":512,"use_sliding_window":true,"max_window_layers":0})")
                ->sliding_window,
            512);
  EXPECT_EQ(qwen(R"({"sliding_window":512,"use_sliding_window":true,"max_window_layers":4})")
                ->sliding_window,
            0);
  EXPECT_FALSE(qwen(R"({"sliding_window":512,"use_sliding_window":true,"max_window_layers":2})"));
  EXPECT_TRUE(qwen("{}")->qkv_bias);
  const Result<spec::ModelDesc> qwen3 = desc_from_hf_config(config("qwen3", R"({"head_dim":128})"));
  EXPECT_EQ(qwen3->head_dim, 128);
  EXPECT_EQ(qwen3->rope_dim, 128);
  EXPECT_TRUE(qwen3->qk_norm);
  EXPECT_EQ(desc_from_hf_config(config("llama", R"({"rope_scaling":{"type":"linear","factor":2}})"))
                ->rope_scaling,
            spec::RopeScaling::kLinear);
}

TEST(HfConfig, RefusesWithASentenceThatNamesTheThing) {
  const std::pair<Json, const char*> cases[] = {
      {config("gemma3"), "gemma3"},
      {config("llama", R"({"hidden_act":"gelu"})"), "gelu"},
      {config("llama", R"({"rope_scaling":{"rope_type":"yarn","factor":4}})"), "yarn"},
      {config("llama", R"({"num_hidden_layers":"4"})"), "num_hidden_layers"},
      {config("llama", R"({"num_hidden_layers":0})"), "layer count"},
      {config("llama", R"({"num_key_value_heads":3})"), "do not divide"},
      {config("llama", R"({"hidden_size":-64})"), "hidden_size"},
      {config("llama", R"({"hidden_size":1e30})"), "hidden_size"},
      {config("llama", R"({"vocab_size":null})"), "vocab_size"},
      {config("llama", R"({"rope_theta":0})"), "rotary base"},
      {config("llama", R"({"quantization_config":{"quant_method":"awq"}})"), "awq"},
      {config("llama", R"({"rope_scaling":{"rope_type":"llama3","factor":8}})"), "low_freq_factor"},
      {parse("[]"), "JSON object"},
  };
  for (const auto& [json, word] : cases) {
    const Result<spec::ModelDesc> d = desc_from_hf_config(json);
    ASSERT_FALSE(d) << word;
    EXPECT_NE(d.error().message().find(word), std::string::npos) << d.error().message();
  }
}

TEST(HfNames, MapToGgufNames) {
  EXPECT_EQ(gguf_name_of_hf("model.layers.17.self_attn.q_proj.bias"), "blk.17.attn_q.bias");
  EXPECT_EQ(gguf_name_of_hf("model.layers.0.post_attention_layernorm.weight"),
            "blk.0.ffn_norm.weight");
  EXPECT_EQ(gguf_name_of_hf("model.layers.0.self_attn.rotary_emb.inv_freq"), "");
  EXPECT_EQ(gguf_name_of_hf("model.layers.x.mlp.up_proj.weight"), "");
  EXPECT_EQ(gguf_name_of_hf("model.layers.99999999999.mlp.up_proj.weight"), "");
  EXPECT_EQ(gguf_name_of_hf("model.layers.1"), "");
}

// The same model in both formats: the same values, q and k rows in the other rotary order.
TEST(HfDirectory, EqualsTheGgufConversion) {
  for (const auto& [hf, gguf] :
       {std::pair{"TinyStories-656K/hf", "TinyStories-656K/TinyStories-656K-f32.gguf"},
        std::pair{"stories260K/hf", "stories260K/stories260K-f32.gguf"}}) {
    TOWLINE_SHARED_MODEL(hf_path, hf);
    TOWLINE_SHARED_MODEL(gguf_path, gguf);
    const Result<ModelFile> a = ModelFile::open(hf_path);
    const Result<ModelFile> b = ModelFile::open(gguf_path);
    ASSERT_TRUE(a) << a.error().to_string();
    ASSERT_TRUE(b) << b.error().to_string();
    EXPECT_TRUE(a->check({0, a->desc().layers}));
    EXPECT_TRUE(a->desc().tied_embeddings);
    EXPECT_EQ(a->desc().rope_pairing, spec::RopePairing::kHalfSplit);
    EXPECT_EQ(a->desc().vocab, b->desc().vocab);
    ASSERT_EQ(a->tensors().size(), b->tensors().size());
    const int64_t head = a->desc().head_dim;
    for (const Tensor& t : a->tensors()) {
      const Result<const Tensor*> u = b->require(t.name, t.rows, t.cols);
      ASSERT_TRUE(u) << u.error().to_string();
      const bool rotary = t.name.ends_with("attn_q.weight") || t.name.ends_with("attn_k.weight");
      for (int64_t r = 0; r < t.rows; ++r) {
        const int64_t in_head = r % head;
        const int64_t s =
            rotary ? r - in_head + in_head % (head / 2) * 2 + in_head / (head / 2) : r;
        ASSERT_EQ(std::memcmp(t.row(r), (*u)->row(s), static_cast<size_t>(t.cols) * 4), 0)
            << t.name << " row " << r;
      }
    }
  }
}

std::string safetensors_bytes(std::string_view header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  out += header;
  out.append(data_bytes, '\1');
  return out;
}

std::span<const std::byte> as_bytes(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

TEST(Safetensors, RefusesDamagedHeaders) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "too few"},
      {std::string(8, '\xff'), "truncated"},
      {safetensors_bytes("[]", 0), "not a JSON object"},
      {safetensors_bytes("{", 0), "safetensors header"},
      {safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}})", 8),
       "truncated"},
      {safetensors_bytes(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
       "12 bytes"},
      {safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8), "-8"},
      {safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}})", 8),
       "two integers"},
      {safetensors_bytes(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],
          "data_offsets":[0,0]}})",
                         8),
       "not possible"},
      {safetensors_bytes(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), "no dtype"},
      {safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
          "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                         12),
       "overlap"},
  };
  for (const auto& [bytes, word] : cases) {
    const Result<std::vector<SafeTensor>> r = read_safetensors(as_bytes(bytes));
    ASSERT_FALSE(r) << word;
    EXPECT_NE(r.error().to_string().find(word), std::string::npos) << r.error().to_string();
  }
}

// A two-layer directory cut into two shards, made by hand.
class SmallDirectory {
 public:
  SmallDirectory() {
    write("config.json", config("llama", R"({"hidden_size":16,"intermediate_size":8,
        "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":4})").dump());
    add("model.embed_tokens.weight", 4, 16);
    add("model.layers.0.self_attn.q_proj.weight", 16, 16);
    add("model.layers.0.self_attn.k_proj.weight", 16, 16);
    add("model.layers.0.self_attn.v_proj.weight", 16, 16);
    add("model.layers.0.self_attn.o_proj.weight", 16, 16);
    flush("a.safetensors");
    add("model.layers.0.input_layernorm.weight", 1, 16);
    add("model.layers.0.post_attention_layernorm.weight", 1, 16);
    add("model.layers.0.mlp.gate_proj.weight", 8, 16);
    add("model.layers.0.mlp.up_proj.weight", 8, 16);
    add("model.layers.0.mlp.down_proj.weight", 16, 8);
    add("model.layers.0.self_attn.rotary_emb.inv_freq", 1, 4);
    add("model.norm.weight", 1, 16);
    add("lm_head.weight", 4, 16);
    flush("b.safetensors");
    write("model.safetensors.index.json", Json::object({{"weight_map", map_}}).dump());
  }
  void write(const std::string& name, std::string_view bytes) {
    ASSERT_TRUE(write_file_atomic(dir_ / name, bytes));
  }
  Result<ModelFile> open() const { return ModelFile::open(dir_.string()); }
  std::string operator/(const std::string& name) const { return dir_ / name; }

 private:
  void add(const std::string& name, int64_t rows, int64_t cols) {
    Json shape = Json::array();
    if (rows > 1) shape.push(rows);
    shape.push(cols);
    const int64_t begin = data_bytes_;
    data_bytes_ += rows * cols * 2;
    header_.set(name, Json::object({{"dtype", "BF16"},
                                    {"shape", shape},
                                    {"data_offsets", Json::array({begin, data_bytes_})}}));
    names_.push_back(name);
  }
  void flush(const std::string& file) {
    std::string text = header_.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    write(file, safetensors_bytes(text, static_cast<size_t>(data_bytes_)));
    for (const std::string& name : names_) map_.set(name, Json(file));
    header_ = Json::object();
    names_.clear();
    data_bytes_ = 0;
  }
  TempDir dir_;
  Json header_ = Json::object(), map_ = Json::object();
  std::vector<std::string> names_;
  int64_t data_bytes_ = 0;
};

TEST(HfDirectory, OpensShardsThroughTheIndex) {
  const SmallDirectory dir;
  const Result<ModelFile> model = dir.open();
  ASSERT_TRUE(model) << model.error().to_string();
  EXPECT_EQ(model->tensors().size(), 12u);
  EXPECT_FALSE(model->desc().tied_embeddings);
  EXPECT_TRUE(model->check({0, 1}));
  EXPECT_EQ(model->find("output.weight")->dtype, DType::kBF16);
  EXPECT_TRUE(model->side_file("config.json"));
  EXPECT_EQ(model->side_file("tokenizer.json").error().code(), Code::kNotFound);
}

TEST(HfDirectory, TellsWhatIsMissingOrWrong) {
  const auto message = [](const std::function<void(SmallDirectory&)>& damage) {
    SmallDirectory dir;
    damage(dir);
    Result<ModelFile> model = dir.open();
    if (!model) return model.error().to_string();
    const Result<void> checked = model->check({0, 1});
    return checked ? std::string("fine") : checked.error().to_string();
  };
  const auto index_to = [&](const char* file) {
    return message([&](SmallDirectory& d) {
      d.write("model.safetensors.index.json",
              Json::object({{"weight_map", Json::object({{"x", file}})}}).dump());
    });
  };
  EXPECT_EQ(message([](SmallDirectory&) {}), "fine");
  EXPECT_NE(index_to("../../etc/passwd.safetensors").find("not a .safetensors file of this"),
            std::string::npos);
  EXPECT_NE(index_to("a.safetensors").find("has no tensor 'blk.0.attn_norm.weight'"),
            std::string::npos);
  EXPECT_NE(index_to("c.safetensors").find("c.safetensors"), std::string::npos);
  EXPECT_NE(message([](SmallDirectory& d) { std::filesystem::remove(d / "config.json"); })
                .find("no config.json"),
            std::string::npos);
  EXPECT_NE(message([](SmallDirectory& d) {
              std::filesystem::remove(d / "config.json");
              std::filesystem::create_symlink("config.json", d / "config.json");  // to itself
            }).find("no config.json"),
            std::string::npos);
  EXPECT_NE(message([](SmallDirectory& d) { d.write("b.safetensors", "short"); })
                .find("b.safetensors"),
            std::string::npos);
}

TEST(HfDirectory, AnyDamagedByteIsAnErrorOrHarmless) {
  const SmallDirectory dir;
  const std::string whole = *read_file(dir / "b.safetensors");
  for_seeds(300, [&](Rng& rng) {
    std::string bytes = whole;
    for (uint64_t n = 1 + rng.below(4); n > 0; --n) {
      bytes[rng.below(std::min<size_t>(bytes.size(), 1400))] = static_cast<char>(rng());
    }
    if (rng.below(4) == 0) bytes.resize(rng.below(bytes.size()));
    const Result<std::vector<SafeTensor>> r = read_safetensors(as_bytes(bytes));
    if (!r) return;
    for (const SafeTensor& t : *r) {
      EXPECT_LE(t.begin, t.end);
      EXPECT_LE(t.end, bytes.size());
    }
  });
}

}  // namespace
}  // namespace towline::engine
