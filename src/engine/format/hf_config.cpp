// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// config.json -> ModelDesc. Field names and defaults are those of the transformers library's
// LlamaConfig, MistralConfig, Qwen2Config and Qwen3Config.
#include <algorithm>
#include <cmath>

#include "base/fmt.hpp"
#include "engine/format/model_shape.hpp"
#include "engine/format/safetensors.hpp"

namespace towline::engine {
namespace {

using spec::ModelDesc;
using spec::RopeScaling;

class HfConfig {
 public:
  explicit HfConfig(const Json& json) : json_(json) {}

  Result<ModelDesc> read() {
    if (!json_.is_object()) return Error(Code::kDataCorrupt, "it is not a JSON object");
    d_.architecture = json_["model_type"].as_string();
    const bool known = d_.architecture == "llama" || d_.architecture == "mistral" ||
                       d_.architecture == "qwen2" || d_.architecture == "qwen3";
    if (!known) {
      return errorf(Code::kUnsupported, "the model_type '{}' is not supported; supported are {}",
                    printable(d_.architecture), kArchitectures);
    }
    TRY(refuse_variants());
    TRY(read_sizes());
    TRY(read_window());
    TRY(read_rope());
    TRY(validate(d_));
    return std::move(d_);
  }

 private:
  // A null or absent member takes the fallback; kNeeded makes it an error.
  static constexpr int64_t kNeeded = INT64_MIN;
  static Result<int32_t> integer(const Json& object, std::string_view name, int64_t fallback) {
    const Json& v = object[name];
    if (v.is_null() && fallback == kNeeded) {
      return errorf(Code::kDataCorrupt, "the member '{}' is missing", name);
    }
    const bool whole = v.is_double() && v.as_double() == std::floor(v.as_double());
    if (!v.is_null() && !v.is_int() && !whole) {
      return errorf(Code::kDataCorrupt, "the member '{}' is not an integer", name);
    }
    const int64_t n = v.is_null() ? fallback : v.as_int(-1);  // -1: a double beyond int64
    if (n < 0 || n > INT32_MAX) {
      return errorf(Code::kDataCorrupt, "'{}' is {}, which is out of range", name, n);
    }
    return static_cast<int32_t>(n);
  }
  static Result<float> real(const Json& object, std::string_view name, double fallback) {
    const Json& v = object[name];
    if (v.is_null() && std::isnan(fallback)) {
      return errorf(Code::kDataCorrupt, "the member '{}' is missing", name);
    }
    if (!v.is_null() && !v.is_number()) {
      return errorf(Code::kDataCorrupt, "the member '{}' is not a number", name);
    }
    return static_cast<float>(v.is_null() ? fallback : v.as_double());
  }

  Result<void> refuse_variants() const {
    if (!json_["quantization_config"].is_null()) {
      return errorf(
          Code::kUnsupported,
          "the weights are quantised ({}); use the original F32, F16 or BF16 files, or a "
          "GGUF file",
          printable(json_["quantization_config"]["quant_method"].as_string_or("unknown")));
    }
    const std::string act = json_["hidden_act"].as_string_or("silu");
    if (act != "silu" && act != "swish") {
      return errorf(Code::kUnsupported, "the activation '{}' is not supported; silu is",
                    printable(act));
    }
    if (json_["mlp_bias"].as_bool()) {
      return Error(Code::kUnsupported, "mlp_bias is set; feed-forward biases are not supported");
    }
    return {};
  }

  Result<void> read_sizes() {
    ASSIGN_OR_RETURN(d_.layers, integer(json_, "num_hidden_layers", kNeeded));
    ASSIGN_OR_RETURN(d_.hidden, integer(json_, "hidden_size", kNeeded));
    ASSIGN_OR_RETURN(d_.ffn, integer(json_, "intermediate_size", kNeeded));
    ASSIGN_OR_RETURN(d_.heads, integer(json_, "num_attention_heads", kNeeded));
    ASSIGN_OR_RETURN(d_.kv_heads, integer(json_, "num_key_value_heads", d_.heads));
    ASSIGN_OR_RETURN(d_.vocab, integer(json_, "vocab_size", kNeeded));
    ASSIGN_OR_RETURN(d_.context, integer(json_, "max_position_embeddings", 2048));
    if (d_.heads == 0) return Error(Code::kDataCorrupt, "num_attention_heads is 0");
    ASSIGN_OR_RETURN(d_.head_dim, integer(json_, "head_dim", d_.hidden / d_.heads));
    ASSIGN_OR_RETURN(d_.norm_eps, real(json_, "rms_norm_eps", 1e-6));
    d_.tied_embeddings = json_["tie_word_embeddings"].as_bool();
    d_.qkv_bias = d_.architecture == "qwen2" || json_["attention_bias"].as_bool();
    d_.qk_norm = d_.architecture == "qwen3";
    d_.rope_pairing = spec::RopePairing::kHalfSplit;
    return {};
  }

  Result<void> read_window() {
    ASSIGN_OR_RETURN(const int32_t window, integer(json_, "sliding_window", 0));
    int32_t windowed = d_.layers;  // layers that see only the window
    if (d_.architecture == "llama") {
      windowed = 0;
    } else if (json_["layer_types"].is_array()) {
      const auto& types = json_["layer_types"].items();
      windowed = static_cast<int32_t>(
          std::count(types.begin(), types.end(), Json("sliding_attention")));
    } else if (d_.architecture != "mistral") {
      ASSIGN_OR_RETURN(const int32_t full, integer(json_, "max_window_layers", 28));
      windowed = json_["use_sliding_window"].as_bool() ? std::max(0, d_.layers - full) : 0;
    }
    if (window == 0 || windowed == 0) return {};
    if (windowed != d_.layers) {
      return errorf(Code::kUnsupported,
                    "{} of the {} layers use a sliding window; all or none must", windowed,
                    d_.layers);
    }
    d_.sliding_window = window;
    return {};
  }

  // rope_theta and rope_scaling, or (transformers 5) both inside rope_parameters.
  Result<void> read_rope() {
    const Json& newer = json_["rope_parameters"];
    const Json& scaling = newer.is_object() ? newer : json_["rope_scaling"];
    ASSIGN_OR_RETURN(const float outer, real(json_, "rope_theta", 10000.0));
    ASSIGN_OR_RETURN(d_.rope_theta, real(newer, "rope_theta", double{outer}));
    ASSIGN_OR_RETURN(const float part, real(json_, "partial_rotary_factor", 1.0));
    if (!(part > 0 && part <= 1)) {
      return errorf(Code::kDataCorrupt, "partial_rotary_factor is {}; it must be in (0, 1]", part);
    }
    d_.rope_dim = static_cast<int32_t>(static_cast<float>(d_.head_dim) * part);
    d_.rope_original_context = std::max(d_.context, 1);
    if (!scaling.is_object()) return {};
    const std::string type =
        scaling["rope_type"].as_string_or(scaling["type"].as_string_or("default"));
    if (type == "default") return {};
    if (type != "linear" && type != "llama3") {
      return errorf(Code::kUnsupported,
                    "the rotary scaling '{}' is not supported; linear and llama3 are",
                    printable(type));
    }
    ASSIGN_OR_RETURN(d_.rope_factor, real(scaling, "factor", NAN));
    d_.rope_scaling = type == "linear" ? RopeScaling::kLinear : RopeScaling::kLlama3;
    if (type == "linear") return {};
    ASSIGN_OR_RETURN(d_.rope_low_freq, real(scaling, "low_freq_factor", NAN));
    ASSIGN_OR_RETURN(d_.rope_high_freq, real(scaling, "high_freq_factor", NAN));
    ASSIGN_OR_RETURN(d_.rope_original_context,
                     integer(scaling, "original_max_position_embeddings", kNeeded));
    return {};
  }

  const Json& json_;
  ModelDesc d_;
};

}  // namespace

Result<ModelDesc> desc_from_hf_config(const Json& config) { return HfConfig(config).read(); }

}  // namespace towline::engine
