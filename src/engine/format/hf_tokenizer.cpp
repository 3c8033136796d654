// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/hf_tokenizer.hpp"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/fmt.hpp"
#include "engine/format/model_shape.hpp"
#include "engine/text/pre_rules.hpp"

namespace towline::engine {
namespace {

// tokenizer.ggml.token_type
enum : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

constexpr float kNoMerge = -1e6f;  // the score of a token that no merge makes

// `json` itself if its type is `type`, or the members of a Sequence (under `list`) that are.
std::vector<const Json*> parts_of(const Json& json, std::string_view list) {
  std::vector<const Json*> parts;
  if (json["type"].as_string() == "Sequence") {
    for (const Json& part : json[list].items()) parts.push_back(&part);
  } else if (json.is_object()) {
    parts.push_back(&json);
  }
  return parts;
}

bool is_byte_token(const std::string& text) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return text.size() == 6 && text.starts_with("<0x") && hex(text[3]) && hex(text[4]) &&
         text[5] == '>';
}

class TokenizerKeys {
 public:
  TokenizerKeys(const HfTokenizerFiles& files, int32_t vocab, GgufMeta& meta)
      : files_(files), model_(files.tokenizer["model"]), vocab_(vocab), meta_(meta) {}

  Result<void> set() {
    const std::string& type = model_["type"].as_string();
    if (type != "BPE") {
      return errorf(Code::kUnsupported,
                    "the tokenizer's model is '{}'; only BPE can be written to a GGUF file",
                    printable(type));
    }
    TRY(collect_tokens());
    TRY(collect_merges());
    if (model_["byte_fallback"].as_bool()) {
      TRY(set_scored());
    } else {
      TRY(set_byte_level());
    }
    meta_.set_strings("tokenizer.ggml.tokens", tokens_);
    meta_.set_i32s("tokenizer.ggml.token_type", types_);
    TRY(set_special_ids());
    set_template();
    return {};
  }

 private:
  Result<void> put_token(const std::string& text, const Json& id, int32_t type) {
    if (!id.is_int() || id.as_int() < 0 || id.as_int() >= vocab_) {
      return errorf(Code::kDataCorrupt, "the token '{}' has the id {}; the model has {} tokens",
                    printable(text), id.dump(), vocab_);
    }
    const auto at = static_cast<size_t>(id.as_int());
    tokens_[at] = text;
    types_[at] = type;
    ids_[text] = static_cast<int32_t>(at);
    return {};
  }

  Result<void> collect_tokens() {
    tokens_.resize(static_cast<size_t>(vocab_));
    types_.assign(tokens_.size(), kUnused);
    for (const auto& [text, id] : model_["vocab"].members()) {
      TRY(put_token(text, id, is_byte_token(text) ? kByte : kNormal));
    }
    if (ids_.empty()) return Error(Code::kDataCorrupt, "tokenizer.json has an empty vocabulary");
    for (const Json& added : files_.tokenizer["added_tokens"].items()) {
      const bool special = added["special"].as_bool();
      TRY(put_token(added["content"].as_string(), added["id"], special ? kControl : kUserDefined));
    }
    if (const auto unknown = id_of(model_["unk_token"].as_string())) types_[*unknown] = kUnknown;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] == kUnused) tokens_[i] = format("[PAD{}]", i);
    }
    return {};
  }

  // A merge is "a b" or ["a", "b"].
  Result<void> collect_merges() {
    for (const Json& merge : model_["merges"].items()) {
      std::string text = merge.as_string();
      if (merge.is_array() && merge.size() == 2) {
        text = merge[size_t{0}].as_string() + " " + merge[1].as_string();
      }
      if (text.find(' ') == std::string::npos) {
        return errorf(Code::kDataCorrupt, "merge {} of tokenizer.json is not two tokens",
                      merges_.size());
      }
      merges_.push_back(std::move(text));
    }
    return {};
  }

  std::optional<size_t> id_of(const std::string& text) const {
    const auto at = ids_.find(text);
    return at != ids_.end() ? std::optional(static_cast<size_t>(at->second)) : std::nullopt;
  }

  // Whether a "▁" is put before the text, and whether blanks become "▁" at all.
  Result<bool> space_prefix() const {
    bool replaced = false, prefix = false;
    for (const Json* step : parts_of(files_.tokenizer["normalizer"], "normalizers")) {
      const std::string& type = (*step)["type"].as_string();
      if (type == "Prepend") {
        prefix = true;
      } else if (type == "Replace" && (*step)["pattern"]["String"].as_string() == " ") {
        replaced = true;
      } else {
        return errorf(Code::kUnsupported, "the normaliser '{}' has no counterpart in a GGUF file",
                      printable(type));
      }
    }
    for (const Json* step : parts_of(files_.tokenizer["pre_tokenizer"], "pretokenizers")) {
      const std::string& type = (*step)["type"].as_string();
      if (type != "Metaspace") {
        return errorf(Code::kUnsupported,
                      "the pre-tokenizer '{}' has no counterpart in a GGUF file", printable(type));
      }
      replaced = true;
      prefix = (*step)["prepend_scheme"].as_string_or("always") != "never";
    }
    if (!replaced) {
      return Error(Code::kUnsupported,
                   "the tokenizer has byte fallback but does not write blanks as U+2581");
    }
    return prefix;
  }

  Result<void> set_scored() {
    ASSIGN_OR_RETURN(const bool prefix, space_prefix());
    std::vector<float> scores(tokens_.size(), kNoMerge);
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] != kNormal) scores[i] = 0;
    }
    for (size_t rank = merges_.size(); rank-- > 0;) {  // the first of several wins
      std::string made = merges_[rank];
      made.erase(made.find(' '), 1);
      if (const auto id = id_of(made)) scores[*id] = -static_cast<float>(rank);
    }
    meta_.set_string("tokenizer.ggml.model", "llama");
    meta_.set_string("tokenizer.ggml.pre", "default");
    meta_.set_f32s("tokenizer.ggml.scores", scores);
    meta_.set_bool("tokenizer.ggml.add_space_prefix", prefix);
    return {};
  }

  // The expressions by which the text is cut, in the spelling of pre_rules().
  Result<std::vector<std::string>> split_expressions() const {
    static const std::string kByteLevel = std::string(find_pre_rule("gpt-2")->expressions.front());
    std::vector<std::string> expressions;
    for (const Json* step : parts_of(files_.tokenizer["pre_tokenizer"], "pretokenizers")) {
      const std::string& type = (*step)["type"].as_string();
      if (type == "Split" && (*step)["pattern"]["Regex"].is_string()) {
        expressions.push_back((*step)["pattern"]["Regex"].as_string());
      } else if (type == "Digits" && (*step)["individual_digits"].as_bool()) {
        expressions.push_back(R"(\p{N})");
      } else if (type == "ByteLevel") {
        if ((*step)["use_regex"].as_bool(true)) expressions.push_back(kByteLevel);
      } else {
        return errorf(Code::kUnsupported,
                      "the pre-tokenizer '{}' has no counterpart in a GGUF file", printable(type));
      }
    }
    return expressions;
  }

  Result<void> set_byte_level() {
    ASSIGN_OR_RETURN(const std::vector<std::string> expressions, split_expressions());
    const bool ignore_merges = model_["ignore_merges"].as_bool();
    const PreRule* known = nullptr;
    for (const PreRule& rule : pre_rules()) {
      const bool same = std::equal(rule.expressions.begin(), rule.expressions.end(),
                                   expressions.begin(), expressions.end());
      if (known == nullptr && same && rule.ignore_merges == ignore_merges) known = &rule;
    }
    if (known == nullptr) {
      return errorf(Code::kUnsupported,
                    "the tokenizer's pre-split rule is not one that GGUF has a name for: {}",
                    expressions.empty() ? "(none)" : printable(expressions.front()));
    }
    meta_.set_string("tokenizer.ggml.model", "gpt2");
    meta_.set_string("tokenizer.ggml.pre", known->names.front());
    meta_.set_strings("tokenizer.ggml.merges", merges_);
    return {};
  }

  // "bos_token" is a string or {"content": ...}.
  std::optional<size_t> configured_id(std::string_view name) const {
    const Json& value = files_.config[name];
    return id_of(value.is_object() ? value["content"].as_string() : value.as_string());
  }

  // The token that the post-processor puts before a text, if it does.
  std::optional<size_t> leading_token() const {
    for (const Json* step : parts_of(files_.tokenizer["post_processor"], "processors")) {
      const Json& first = (*step)["single"][size_t{0}];
      if (first.contains("SpecialToken")) return id_of(first["SpecialToken"]["id"].as_string());
    }
    return std::nullopt;
  }

  Result<void> set_special_ids() {
    const auto put = [&](std::string_view key, std::optional<size_t> id) {
      if (id) meta_.set_u32(key, static_cast<uint32_t>(*id));
    };
    const std::optional<size_t> leading = leading_token();
    const auto bos = configured_id("bos_token");
    auto eos = configured_id("eos_token");
    const Json& ends = files_.generation["eos_token_id"];
    const Json& end = ends.is_array() ? ends[size_t{0}] : ends;
    if (!eos && end.is_int() && end.as_int() >= 0 && end.as_int() < vocab_) {
      eos = static_cast<size_t>(end.as_int());
    }
    put("tokenizer.ggml.bos_token_id", bos ? bos : leading);
    put("tokenizer.ggml.eos_token_id", eos);
    put("tokenizer.ggml.unknown_token_id", id_of(model_["unk_token"].as_string()));
    put("tokenizer.ggml.padding_token_id", configured_id("pad_token"));
    const Json& add_bos = files_.config["add_bos_token"];
    meta_.set_bool("tokenizer.ggml.add_bos_token",
                   add_bos.is_bool() ? add_bos.as_bool() : leading.has_value());
    meta_.set_bool("tokenizer.ggml.add_eos_token", files_.config["add_eos_token"].as_bool());
    return {};
  }

  // A string, or a list of named ones of which "default" is taken.
  void set_template() {
    std::string text = files_.chat_template;
    const Json& configured = files_.config["chat_template"];
    if (text.empty()) text = configured.as_string();
    for (const Json& named : configured.items()) {
      if (text.empty() && named["name"].as_string() == "default") {
        text = named["template"].as_string();
      }
    }
    if (!text.empty()) meta_.set_string("tokenizer.chat_template", text);
  }

  const HfTokenizerFiles& files_;
  const Json& model_;
  const int32_t vocab_;
  GgufMeta& meta_;
  std::vector<std::string> tokens_, merges_;
  std::vector<int32_t> types_;
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

Result<void> set_tokenizer_keys(const HfTokenizerFiles& files, int32_t vocab, GgufMeta& meta) {
  return TokenizerKeys(files, vocab, meta).set();
}

}  // namespace towline::engine
