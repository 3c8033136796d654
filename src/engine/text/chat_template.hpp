// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ChatTemplate: a conversation to the text that a model was trained to continue.
//
//   ASSIGN_OR_RETURN(ChatTemplate t, ChatTemplate::from_model(file, tokenizer));
//   ASSIGN_OR_RETURN(std::string prompt, t.render(messages, tools, {}));
//   tokenizer.encode(prompt, {.add_special = false, .parse_special = true});
//
// Templates are Jinja as Hugging Face runs it (docs/tokenizers.md says which parts). They come with
// model files and are not trusted: steps, memory, output and nesting are bounded, and a template
// that breaks a bound or raises is an error. Immutable; render is safe from many threads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "engine/format/model_file.hpp"
#include "engine/text/tokenizer.hpp"

namespace towline::engine {

namespace jinja {
struct Template;
}

struct RenderOptions {
  bool add_generation_prompt = true;  // end with what begins the assistant's turn
  // Seconds since 1970 for strftime_now(), read as UTC. The clock is the caller's.
  int64_t now = 0;
  Json variables = {};  // an object: further variables of the template ("enable_thinking": false)
};

class ChatTemplate {
 public:
  // What a model without a template gets: "role: content" paragraphs, then "assistant:".
  static const std::string_view kDefault;

  // `bos` and `eos` are the texts of those tokens, for {{ bos_token }}; may be empty.
  static Result<ChatTemplate> parse(std::string source, std::string bos, std::string eos);
  // The file's own template, or kDefault if it has none (is_default() says so).
  static Result<ChatTemplate> from_model(const ModelFile& file, const Tokenizer& tokenizer);

  // `messages`: an array of {"role", "content", ...}; `tools`: an array of tool descriptions, or
  // null. A template's raise_exception is kInvalidArgument with its words.
  Result<std::string> render(const Json& messages, const Json& tools,
                             const RenderOptions& options) const;

  bool is_default() const { return is_default_; }
  const std::string& source() const { return source_; }

 private:
  ChatTemplate() = default;
  std::string source_, bos_, eos_;
  bool is_default_ = false;
  std::shared_ptr<const jinja::Template> parsed_;
};

}  // namespace towline::engine
