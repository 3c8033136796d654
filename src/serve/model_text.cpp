// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/model_text.hpp"

#include <algorithm>
#include <utility>

#include "base/utf8.hpp"

namespace towline::serve {
namespace {

// Holds back the bytes of a character until it is whole.
class DecoderStream final : public TextStream {
 public:
  explicit DecoderStream(const engine::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t token) override {
    held_ += tokenizer_.piece(token);
    size_t whole = 0;
    while (whole < held_.size()) {
      const size_t n = utf8_length(held_, whole);
      if (n == 0 && held_.size() - whole < 4) break;
      whole += n == 0 ? 1 : n;
    }
    std::string out = held_.substr(0, whole);
    held_.erase(0, whole);
    return out;
  }
  std::string flush() override { return std::exchange(held_, {}); }

 private:
  const engine::Tokenizer& tokenizer_;
  std::string held_;
};

}  // namespace

ModelText::ModelText(engine::Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {
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
  return std::unique_ptr<ModelText>(new ModelText(std::move(tokenizer)));
}

Result<std::vector<int32_t>> ModelText::encode(std::string_view text, bool add_special,
                                               bool parse_special) const {
  return tokenizer_.encode(text, {.add_special = add_special, .parse_special = parse_special});
}

std::string ModelText::decode(std::span<const int32_t> tokens) const {
  return tokenizer_.decode(tokens);
}

std::unique_ptr<TextStream> ModelText::stream(bool) const {
  return std::make_unique<DecoderStream>(tokenizer_);
}

Result<std::string> ModelText::render_chat(const Json& messages, bool add_generation_prompt,
                                           const Json&) const {
  std::string text;
  for (const Json& m : messages.items()) {
    text += m["role"].as_string() + ": " + m["content"].as_string() + "\n\n";
  }
  if (add_generation_prompt) text += "assistant:";
  return text;
}

}  // namespace towline::serve
