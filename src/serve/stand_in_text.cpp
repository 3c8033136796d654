// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/stand_in_text.hpp"

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"

namespace towline::serve {
namespace {

constexpr int32_t kFirstByte = 3;
constexpr int32_t kFirstWord = kFirstByte + 256;

// Bytes of a prompt that is echoed may split characters; what is generated is ASCII.
class PieceStream final : public TextStream {
 public:
  explicit PieceStream(const StandInText& text) : text_(text) {}
  std::string push(int32_t token) override {
    pending_ += text_.piece(token);
    size_t whole = pending_.size();
    for (size_t back = 1; back <= std::min<size_t>(4, pending_.size()); ++back) {
      const auto c = static_cast<unsigned char>(pending_[pending_.size() - back]);
      if (c >= 0x80 && c < 0xc0) continue;  // in the middle of a character
      const size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
      if (length > back) whole = pending_.size() - back;
      break;
    }
    std::string out = pending_.substr(0, whole);
    pending_.erase(0, whole);
    return out;
  }
  std::string flush() override { return std::exchange(pending_, {}).empty() ? "" : "\xef\xbf\xbd"; }

 private:
  const StandInText& text_;
  std::string pending_;
};

}  // namespace

Result<std::unique_ptr<StandInText>> StandInText::create(int32_t vocab) {
  if (vocab <= kFirstWord) {
    return errorf(Code::kInvalidArgument, "a vocabulary of {} tokens is too small to stand in for; "
                  "it needs more than {}", vocab, kFirstWord);
  }
  std::unique_ptr<StandInText> self(new StandInText());
  self->pieces_.resize(static_cast<size_t>(vocab));
  for (int32_t b = 0; b < 256; ++b) {
    self->pieces_[static_cast<size_t>(kFirstByte + b)] = std::string(1, static_cast<char>(b));
  }
  for (int32_t t = kFirstWord; t < vocab; ++t) {
    self->pieces_[static_cast<size_t>(t)] = format(" t{}", t);
  }
  return self;
}

Result<std::vector<int32_t>> StandInText::encode(std::string_view text, bool add_special,
                                                 bool) const {
  std::vector<int32_t> tokens;
  if (add_special) tokens.push_back(1);
  for (const char c : text) tokens.push_back(kFirstByte + static_cast<unsigned char>(c));
  return tokens;
}

std::string_view StandInText::piece(int32_t token) const {
  if (token < 0 || token >= vocab_size()) return {};
  return pieces_[static_cast<size_t>(token)];
}

std::string StandInText::decode(std::span<const int32_t> tokens) const {
  std::string out;
  for (const int32_t token : tokens) out += piece(token);
  return out;
}

std::unique_ptr<TextStream> StandInText::stream(bool) const {
  return std::make_unique<PieceStream>(*this);
}

Result<std::string> StandInText::render_chat(const Json& messages, bool add_generation_prompt,
                                             const Json&) const {
  std::string out;
  for (const Json& message : messages.items()) {
    out += format("{}: {}\n", message["role"].as_string(), message["content"].as_string());
  }
  if (add_generation_prompt) out += "assistant:";
  return out;
}

}  // namespace towline::serve
