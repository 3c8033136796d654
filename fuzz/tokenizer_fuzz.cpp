// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Input: a tokenizer.json, a zero byte, and a text. If the first part is not a tokenizer, the whole
// input is text for a small built-in vocabulary of one of three kinds. Encoding must succeed or
// fail cleanly, every id must be in range, and streamed decoding must equal decoding at once.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/fmt.hpp"
#include "base/utf8.hpp"
#include "engine/text/stream_decoder.hpp"
#include "engine/text/tokenizer.hpp"

namespace {

using namespace towline;
using namespace towline::engine;

void exercise(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    const auto ids = tokenizer.encode(text, {.add_special = special, .parse_special = special});
    if (!ids) continue;
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const int32_t id : *ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
      streamed += stream.push(id);
    }
    streamed += stream.flush();
    if (streamed != to_valid_utf8(tokenizer.decode(*ids, {.strip_first = false}))) std::abort();
  }
}

Vocabulary small_vocabulary(Vocabulary::Model model) {
  Vocabulary v;
  v.model = model;
  const auto add = [&](std::string text, TokenType type) {
    v.tokens.push_back(std::move(text));
    v.types.push_back(type);
    v.scores.push_back(-static_cast<float>(v.tokens.size()));
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  v.added.push_back({.id = 1, .text = "<s>", .special = true, .rstrip = true});
  v.unk = 0;
  v.prefix = {1};
  v.byte_level = model == Vocabulary::Model::kBpe;
  v.byte_fallback = !v.byte_level;
  for (int b = 0; b < 256; ++b) {
    const auto byte = static_cast<char>(b);
    if (v.byte_level) add(std::string(1, byte), TokenType::kNormal);
    if (!v.byte_level) add(format("<0x{:02X}>", b), TokenType::kByte);
  }
  for (const char* text : {"a", "b", "ab", "aba", "\xe2\x96\x81", "\xe2\x96\x81" "a"}) {
    if (!v.byte_level || std::string_view(text).size() > 1) add(text, TokenType::kNormal);
  }
  v.merges = {{"a", "b"}, {"ab", "a"}, {"\xe2", "\x96"}};
  if (model == Vocabulary::Model::kSpm) {
    v.normalize.push_back({.kind = TextStep::Kind::kReplace, .pattern = " ",
                           .content = "\xe2\x96\x81"});
  } else {
    v.split.push_back({.pattern = R"( ?\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+)"});
  }
  return v;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  if (zero != std::string_view::npos) {
    const Result<Json> json = parse_json(input.substr(0, zero), "tokenizer.json");
    if (json) {
      Result<Vocabulary> vocabulary = vocabulary_from_hf(*json, Json());
      if (!vocabulary) return 0;
      const Result<Tokenizer> tokenizer = Tokenizer::create(std::move(*vocabulary));
      if (tokenizer) exercise(*tokenizer, input.substr(zero + 1));
      return 0;
    }
  }
  static const Tokenizer* const kBuiltIn[] = {
      new Tokenizer(*Tokenizer::create(small_vocabulary(Vocabulary::Model::kSpm))),
      new Tokenizer(*Tokenizer::create(small_vocabulary(Vocabulary::Model::kBpe))),
      new Tokenizer(*Tokenizer::create(small_vocabulary(Vocabulary::Model::kWordPiece))),
  };
  exercise(*kBuiltIn[size % 3], input);  // one of them: three would take three times as long
  return 0;
}
