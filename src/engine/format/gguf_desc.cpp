// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// GGUF metadata -> ModelDesc. Keys are "<architecture>.block_count" and so on; the specification
// names them, docs/formats.md lists those read here.
#include <algorithm>
#include <filesystem>

#include "base/fmt.hpp"
#include "engine/format/gguf.hpp"
#include "engine/format/model_shape.hpp"

namespace towline::engine {
namespace {

using spec::ModelDesc;
using spec::RopePairing;
using spec::RopeScaling;

class GgufDesc {
 public:
  explicit GgufDesc(const ModelParts& parts) : parts_(parts) {}

  Result<ModelDesc> read() {
    d_.architecture = std::string(text("general.architecture"));
    d_.name = std::string(text("general.name"));
    if (d_.name.empty()) d_.name = std::filesystem::path(parts_.path).stem().string();
    if (d_.architecture.empty() && !parts_.tensors.empty()) {
      return Error(Code::kDataCorrupt, "the key general.architecture is missing");
    }
    if (parts_.tensors.empty()) return vocabulary_only();
    const bool known = d_.architecture == "llama" || d_.architecture == "mistral" ||
                       d_.architecture == "qwen2" || d_.architecture == "qwen3";
    if (!known) {
      return errorf(Code::kUnsupported, "the architecture '{}' is not supported; supported are {}",
                    printable(d_.architecture), kArchitectures);
    }
    TRY(read_sizes());
    TRY(read_switches());
    TRY(read_rope());
    TRY(validate(d_));
    return std::move(d_);
  }

 private:
  const MetaValue* value(std::string_view key) const {
    const auto at = std::lower_bound(
        parts_.meta.begin(), parts_.meta.end(), key,
        [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
    return at != parts_.meta.end() && at->first == key ? &at->second : nullptr;
  }
  std::string key(std::string_view suffix) const {
    return d_.architecture + "." + std::string(suffix);
  }
  std::string_view text(std::string_view key) const {
    const MetaValue* v = value(key);
    const auto* s = v != nullptr ? std::get_if<std::string_view>(v) : nullptr;
    return s != nullptr ? *s : std::string_view();
  }
  const Tensor* tensor(std::string_view name) const {
    const auto at = std::lower_bound(
        parts_.tensors.begin(), parts_.tensors.end(), name,
        [](const Tensor& t, std::string_view wanted) { return t.name < wanted; });
    return at != parts_.tensors.end() && at->name == name ? &*at : nullptr;
  }

  // The key's integer, or `fallback` if it is absent (kNeeded: an error). Some files keep a list
  // with one number a layer; it is accepted when all are equal.
  static constexpr int64_t kNeeded = INT64_MIN;
  Result<int32_t> integer(std::string_view suffix, int64_t fallback = kNeeded) const {
    const std::string name = key(suffix);
    const MetaValue* v = value(name);
    int64_t number = fallback;
    if (v != nullptr) {
      if (const auto* i = std::get_if<int64_t>(v)) {
        number = *i;
      } else if (const auto* list = std::get_if<std::vector<int64_t>>(v); list && !list->empty()) {
        number = list->front();
        if (std::any_of(list->begin(), list->end(), [&](int64_t n) { return n != number; })) {
          return errorf(Code::kUnsupported,
                        "{} differs from layer to layer, which is not supported", name);
        }
      } else {
        return errorf(Code::kDataCorrupt, "the key {} is not an integer", name);
      }
    }
    if (number == kNeeded) return errorf(Code::kDataCorrupt, "the key {} is missing", name);
    if (number < 0 || number > INT32_MAX) {
      return errorf(Code::kDataCorrupt, "{} is {}, which is out of range", name, number);
    }
    return static_cast<int32_t>(number);
  }
  Result<float> real(std::string_view suffix, double fallback) const {
    const std::string name = key(suffix);
    const MetaValue* v = value(name);
    if (v == nullptr) return static_cast<float>(fallback);
    if (const auto* f = std::get_if<double>(v)) return static_cast<float>(*f);
    if (const auto* i = std::get_if<int64_t>(v)) return static_cast<float>(*i);
    return errorf(Code::kDataCorrupt, "the key {} is not a number", name);
  }

  // What a file without weights says about itself, with no judgement: its tokenizer is what counts.
  Result<ModelDesc> vocabulary_only() {
    const auto lenient = [&](std::string_view suffix) {
      const Result<int32_t> v = integer(suffix, 0);
      return v ? *v : 0;
    };
    d_.layers = lenient("block_count");
    d_.hidden = lenient("embedding_length");
    d_.ffn = lenient("feed_forward_length");
    d_.heads = lenient("attention.head_count");
    d_.kv_heads = lenient("attention.head_count_kv");
    d_.context = lenient("context_length");
    d_.vocab = token_count();
    return std::move(d_);
  }

  int32_t token_count() const {
    const MetaValue* v = value("tokenizer.ggml.tokens");
    const auto* tokens = v != nullptr ? std::get_if<std::vector<std::string_view>>(v) : nullptr;
    return tokens != nullptr ? static_cast<int32_t>(tokens->size()) : 0;
  }

  Result<void> read_sizes() {
    ASSIGN_OR_RETURN(d_.layers, integer("block_count"));
    ASSIGN_OR_RETURN(d_.hidden, integer("embedding_length"));
    ASSIGN_OR_RETURN(d_.ffn, integer("feed_forward_length"));
    ASSIGN_OR_RETURN(d_.heads, integer("attention.head_count"));
    ASSIGN_OR_RETURN(d_.kv_heads, integer("attention.head_count_kv", d_.heads));
    ASSIGN_OR_RETURN(d_.context, integer("context_length"));
    if (d_.heads <= 0) return errorf(Code::kDataCorrupt, "{} is 0", key("attention.head_count"));
    ASSIGN_OR_RETURN(d_.head_dim, integer("attention.key_length", d_.hidden / d_.heads));
    ASSIGN_OR_RETURN(const int32_t value_width, integer("attention.value_length", d_.head_dim));
    if (value_width != d_.head_dim) {
      return errorf(Code::kUnsupported,
                    "keys have {} and values {} dimensions a head; they must be equal", d_.head_dim,
                    value_width);
    }
    ASSIGN_OR_RETURN(d_.norm_eps, real("attention.layer_norm_rms_epsilon", 1e-5));
    ASSIGN_OR_RETURN(d_.sliding_window, integer("attention.sliding_window", 0));
    return read_vocab();
  }

  // The embedding's rows are the truth; files pad them beyond the tokens that have a name.
  Result<void> read_vocab() {
    const Tensor* embedding = tensor("token_embd.weight");
    const int32_t tokens = token_count();
    ASSIGN_OR_RETURN(d_.vocab, integer("vocab_size", tokens));
    if (embedding != nullptr) {
      if (embedding->rows > INT32_MAX) {
        return errorf(Code::kDataCorrupt, "token_embd.weight has {} rows", embedding->rows);
      }
      d_.vocab = static_cast<int32_t>(embedding->rows);
    }
    if (tokens > d_.vocab) {
      return errorf(Code::kDataCorrupt,
                    "the vocabulary names {} tokens but the embedding has {} rows", tokens,
                    d_.vocab);
    }
    return {};
  }

  Result<void> read_switches() {
    ASSIGN_OR_RETURN(const int32_t experts, integer("expert_count", 0));
    if (experts > 0) {
      return errorf(Code::kUnsupported,
                    "this is a mixture of {} experts, which is not supported yet; dense models are",
                    experts);
    }
    for (const std::string_view name : {"blk.0.attn_output.bias", "blk.0.ffn_down.bias"}) {
      if (tensor(name) != nullptr) {
        return errorf(Code::kUnsupported,
                      "the tensor '{}' is present; only q, k and v may have a bias", name);
      }
    }
    if (tensor("blk.0.attn_qkv.weight") != nullptr) {
      return Error(Code::kUnsupported,
                   "the tensor 'blk.0.attn_qkv.weight' is present; q, k and v must be separate");
    }
    const bool qwen = d_.architecture.starts_with("qwen");
    d_.tied_embeddings = tensor("output.weight") == nullptr;
    d_.qkv_bias = tensor("blk.0.attn_q.bias") != nullptr;
    d_.qk_norm = d_.architecture == "qwen3" || tensor("blk.0.attn_q_norm.weight") != nullptr;
    d_.rope_pairing = qwen ? RopePairing::kHalfSplit : RopePairing::kInterleaved;
    return {};
  }

  Result<void> read_rope() {
    ASSIGN_OR_RETURN(d_.rope_theta, real("rope.freq_base", 10000.0));
    ASSIGN_OR_RETURN(d_.rope_dim, integer("rope.dimension_count", d_.head_dim));
    ASSIGN_OR_RETURN(d_.rope_original_context,
                     integer("rope.scaling.original_context_length", std::max(d_.context, 1)));
    const std::string_view type = text(key("rope.scaling.type"));
    ASSIGN_OR_RETURN(const float old_factor, real("rope.scale_linear", 1.0));
    ASSIGN_OR_RETURN(const float factor, real("rope.scaling.factor", double{old_factor}));
    if (!type.empty() && type != "none" && type != "linear") {
      return errorf(Code::kUnsupported,
                    "the rotary scaling '{}' is not supported; none, linear and a table of factors "
                    "(llama3) are",
                    printable(type));
    }
    if (type != "none" && factor != 1.0f) {
      d_.rope_scaling = RopeScaling::kLinear;
      d_.rope_factor = factor;
    }
    const Tensor* table = tensor("rope_freqs.weight");
    if (table == nullptr) return {};
    if (d_.rope_scaling != RopeScaling::kNone) {
      return Error(Code::kUnsupported,
                   "the model has both linear rotary scaling and a table of factors");
    }
    if (table->dtype != DType::kF32 || table->rows != 1 || table->cols != d_.rope_dim / 2) {
      return errorf(Code::kDataCorrupt, "rope_freqs.weight is {} [{} x {}]; f32 [1 x {}] is needed",
                    dtype_info(table->dtype).name, table->rows, table->cols, d_.rope_dim / 2);
    }
    d_.rope_scaling = RopeScaling::kTable;
    d_.rope_factors.resize(static_cast<size_t>(table->cols));
    dequantize_row(DType::kF32, table->data, d_.rope_factors);
    return {};
  }

  const ModelParts& parts_;
  ModelDesc d_;
};

}  // namespace

Result<ModelDesc> desc_from_gguf(const ModelParts& parts) { return GgufDesc(parts).read(); }

}  // namespace towline::engine
