// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StandInText: text for a model that is not there (emulated devices, docs/cluster.md). A prompt's
// bytes are its tokens; a token that is no byte prints as its number, " t1234". Nothing ends an
// answer but its length. It makes every interface work on an emulated cluster, and means nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/text_model.hpp"

namespace towline::serve {

class StandInText final : public TextModel {
 public:
  // At least 260 tokens: 0 to 2 are no text, 3 + b is byte b.
  static Result<std::unique_ptr<StandInText>> create(int32_t vocab);

  int32_t vocab_size() const override { return static_cast<int32_t>(pieces_.size()); }
  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special,
                                      bool parse_special) const override;
  std::string decode(std::span<const int32_t> tokens) const override;
  std::string_view piece(int32_t token) const override;
  std::unique_ptr<TextStream> stream(bool continues) const override;
  // "role: content" lines.
  Result<std::string> render_chat(const Json& messages, bool add_generation_prompt,
                                  const Json& kwargs) const override;
  std::span<const int32_t> end_tokens() const override { return {}; }

 private:
  StandInText() = default;
  std::vector<std::string> pieces_;  // by token
};

}  // namespace towline::serve
