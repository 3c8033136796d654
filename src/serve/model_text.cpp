// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/model_text.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/text/stream_decoder.hpp"

namespace towline::serve {
namespace {

class DecoderStream final : public TextStream {
 public:
  explicit DecoderStream(engine::StreamDecoder decoder) : decoder_(std::move(decoder)) {}
  std::string push(int32_t token) override { return decoder_.push(token); }
  std::string flush() override { return decoder_.flush(); }

 private:
  engine::StreamDecoder decoder_;
};

}  // namespace

ModelText::ModelText(engine::Tokenizer tokenizer, engine::ChatTemplate chat)
    : tokenizer_(std::move(tokenizer)), template_(std::move(chat)) {
  const auto ends = tokenizer_.end_tokens();
  end_tokens_.assign(ends.begin(), ends.end());
  // Small story models never end a text; they begin the next one, with BOS.
  const int32_t bos = tokenizer_.bos();
  if (bos >= 0 && std::ranges::find(end_tokens_, bos) == end_tokens_.end()) {
    end_tokens_.push_back(bos);
  }
}

Result<std::unique_ptr<ModelText>> ModelText::open(const engine::ModelFile& file) {
  ASSIGN_OR_RETURN(engine::Tokenizer tokenizer, engine::Tokenizer::from_model(file));
  ASSIGN_OR_RETURN(engine::ChatTemplate chat, engine::ChatTemplate::from_model(file, tokenizer));
  return std::unique_ptr<ModelText>(new ModelText(std::move(tokenizer), std::move(chat)));
}

Result<std::vector<int32_t>> ModelText::encode(std::string_view text, bool add_special,
                                               bool parse_special) const {
  return tokenizer_.encode(text, {.add_special = add_special, .parse_special = parse_special});
}

std::string ModelText::decode(std::span<const int32_t> tokens) const {
  return tokenizer_.decode(tokens);
}

std::unique_ptr<TextStream> ModelText::stream(bool continues) const {
  return std::make_unique<DecoderStream>(engine::StreamDecoder(tokenizer_, false, !continues));
}

Result<std::string> ModelText::render_chat(const Json& messages, bool add_generation_prompt,
                                           const Json& kwargs) const {
  engine::RenderOptions options;
  options.add_generation_prompt = add_generation_prompt;
  options.now = std::chrono::duration_cast<std::chrono::seconds>(
                    std::chrono::system_clock::now().time_since_epoch())
                    .count();
  options.variables = kwargs;
  return template_.render(messages, Json(), options);
}

}  // namespace towline::serve
