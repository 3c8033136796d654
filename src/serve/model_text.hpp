// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ModelText: the TextModel of a model file: its tokenizer and its chat template.
#pragma once

#include <memory>
#include <string>

#include "engine/format/model_file.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/tokenizer.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

class ModelText final : public TextModel {
 public:
  static Result<std::unique_ptr<ModelText>> open(const engine::ModelFile& file);

  int32_t vocab_size() const override { return tokenizer_.vocab_size(); }
  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special,
                                      bool parse_special) const override;
  std::string decode(std::span<const int32_t> tokens) const override;
  std::string_view piece(int32_t token) const override { return tokenizer_.piece(token, true); }
  std::unique_ptr<TextStream> stream(bool continues) const override;
  Result<std::string> render_chat(const Json& messages, bool add_generation_prompt,
                                  const Json& kwargs) const override;
  std::span<const int32_t> end_tokens() const override { return end_tokens_; }

  const engine::Tokenizer& tokenizer() const { return tokenizer_; }
  // False if the file has no chat template, so that a plain one stands in.
  bool has_chat_template() const { return !template_.is_default(); }

 private:
  ModelText(engine::Tokenizer tokenizer, engine::ChatTemplate chat);
  engine::Tokenizer tokenizer_;
  engine::ChatTemplate template_;
  std::vector<int32_t> end_tokens_;
};

}  // namespace towline::serve
