// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/vocabulary.hpp"

#include <algorithm>
#include <array>

#include "base/file.hpp"

namespace towline::engine {
namespace {

// How models name the token that ends a turn, a message for a tool, or the text.
constexpr std::array<std::string_view, 17> kEndNames = {
    "<|eot_id|>",  "<|im_end|>",      "<|end|>",      "<end_of_turn>", "<|endoftext|>",
    "<|eom_id|>",  "<EOT>",           "<|eot|>",      "_<EOT>",        "<turn|>",
    "<|return|>",  "<|end_of_text|>", "<|call|>",     "<eos>",         "<end_of_utterance>",
    "<|end▁of▁sentence|>", "<|end_of_turn|>"};

// A side file, or null if there is none.
Result<Json> optional_side_file(const ModelFile& file, std::string_view name) {
  Result<Json> json = file.side_file(name);
  if (json || json.error().code() != Code::kNotFound) return json;
  return Json();
}

Result<Vocabulary> load_from_directory(const ModelFile& file) {
  ASSIGN_OR_RETURN(const Json tokenizer, file.side_file("tokenizer.json"));
  ASSIGN_OR_RETURN(const Json config, optional_side_file(file, "tokenizer_config.json"));
  ASSIGN_OR_RETURN(Vocabulary v, vocabulary_from_hf(tokenizer, config));
  // The model's configuration may name further tokens that end a turn.
  const auto size = static_cast<int64_t>(v.tokens.size());
  std::vector<int64_t> ends;
  for (const std::string_view name : {"config.json", "generation_config.json"}) {
    ASSIGN_OR_RETURN(const Json settings, optional_side_file(file, name));
    const Json& eos = settings["eos_token_id"];
    for (const Json& id : eos.is_array() ? eos.items() : Json::Array{eos}) {
      if (id.as_int(-1) >= 0 && id.as_int() < size) ends.push_back(id.as_int());
    }
  }
  if (v.eos < 0 && !ends.empty()) v.eos = static_cast<int32_t>(ends.front());
  collect_end_tokens(v, ends);
  if (v.chat_template.empty()) {
    Result<std::string> text = read_file(file.path() + "/chat_template.jinja", 1 << 20);
    if (text) v.chat_template = std::move(*text);
  }
  return v;
}

}  // namespace

void collect_end_tokens(Vocabulary& vocabulary, const std::vector<int64_t>& more) {
  std::vector<int32_t>& ends = vocabulary.end_tokens;
  if (vocabulary.eos >= 0) ends.push_back(vocabulary.eos);
  for (const int64_t id : more) ends.push_back(static_cast<int32_t>(id));
  for (const AddedToken& token : vocabulary.added) {
    if (std::find(kEndNames.begin(), kEndNames.end(), token.text) != kEndNames.end()) {
      ends.push_back(token.id);
    }
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

Result<Vocabulary> load_vocabulary(const ModelFile& file) {
  if (!file.is_directory()) {
    return vocabulary_from_gguf([&](std::string_view key) -> const MetaValue& {
      return file.meta(key);
    });
  }
  return load_from_directory(file);
}

}  // namespace towline::engine
