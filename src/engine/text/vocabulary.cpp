// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/vocabulary.hpp"

#include <algorithm>
#include <array>

namespace towline::engine {
namespace {

// How models name the token that ends a turn, a message for a tool, or the text.
constexpr std::array<std::string_view, 17> kEndNames = {
    "<|eot_id|>",  "<|im_end|>",      "<|end|>",      "<end_of_turn>", "<|endoftext|>",
    "<|eom_id|>",  "<EOT>",           "<|eot|>",      "_<EOT>",        "<turn|>",
    "<|return|>",  "<|end_of_text|>", "<|call|>",     "<eos>",         "<end_of_utterance>",
    "<|end▁of▁sentence|>", "<|end_of_turn|>"};

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
  ASSIGN_OR_RETURN(const Json tokenizer, file.side_file("tokenizer.json"));
  Result<Json> config = file.side_file("tokenizer_config.json");
  if (!config && config.error().code() != Code::kNotFound) return std::move(config.error());
  return vocabulary_from_hf(tokenizer, config ? *config : Json());
}

}  // namespace towline::engine
