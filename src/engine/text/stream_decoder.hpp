// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StreamDecoder: tokens to text as they come, never splitting a character.
//
//   StreamDecoder decoder(tokenizer);
//   for (int32_t token : tokens) send(decoder.push(token));
//   send(decoder.flush());
//
// What push returns is always valid UTF-8; bytes that may still become a character are held back
// (3 at most), bytes that cannot are U+FFFD. All returned texts joined equal to_valid_utf8 of
// Tokenizer::decode. Copyable, so that a stream can be forked. One thread.
#pragma once

#include <cstdint>
#include <string>

#include "engine/text/tokenizer.hpp"

namespace towline::engine {

class StreamDecoder {
 public:
  // strip_first: for a text from its beginning, drop the space that a SentencePiece vocabulary puts
  // there. Leave false when the text continues a prompt.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool special = false, bool strip_first = false)
      : tokenizer_(&tokenizer),
        special_(special),
        strip_(strip_first && tokenizer.strips_first_space()) {}

  std::string push(int32_t token);
  std::string flush();  // what is held back, as U+FFFD; the decoder can go on being used

 private:
  const Tokenizer* tokenizer_;
  bool special_;
  bool strip_;
  std::string held_;
};

}  // namespace towline::engine
