// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// TextModel: what the API needs to know about a model's text: tokens from text, text from tokens,
// and the chat template. The real one wraps engine/text (model_text.hpp); tests use a fake.
//
// Immutable, usable from any thread. TextStream belongs to one sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace towline::serve {

// Turns the tokens of one sequence into text as they come, never splitting a character.
class TextStream {
 public:
  virtual ~TextStream() = default;
  // The text that became certain with this token; may be empty.
  virtual std::string push(int32_t token) = 0;
  // The rest; an incomplete character becomes U+FFFD.
  virtual std::string flush() = 0;
};

class TextModel {
 public:
  virtual ~TextModel() = default;
  virtual int32_t vocab_size() const = 0;
  // add_special: with what the model expects around a text (BOS). parse_special: "<|im_end|>" in
  // the text is one token.
  virtual Result<std::vector<int32_t>> encode(std::string_view text, bool add_special,
                                              bool parse_special) const = 0;
  virtual std::string decode(std::span<const int32_t> tokens) const = 0;
  // The bytes a token prints; special tokens print their names. May be part of a character.
  virtual std::string_view piece(int32_t token) const = 0;
  // `continues`: the text goes on after a prompt, so that a leading space is part of it.
  virtual std::unique_ptr<TextStream> stream(bool continues) const = 0;
  // The prompt for a conversation: an array of {role, content}, checked by the caller.
  // `kwargs`: extra variables for the template, an object or null.
  virtual Result<std::string> render_chat(const Json& messages, bool add_generation_prompt,
                                          const Json& kwargs) const = 0;
  // Tokens that end an answer.
  virtual std::span<const int32_t> end_tokens() const = 0;
};

}  // namespace towline::serve
