// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Small random vocabularies for tests.
#pragma once

#include <string>
#include <vector>

#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "engine/text/byte_tokens.hpp"
#include "engine/text/tokenizer.hpp"

namespace towline::engine {

inline void add_token(Vocabulary& v, std::string text, TokenType type, float score = 0) {
  v.tokens.push_back(std::move(text));
  v.types.push_back(type);
  v.scores.push_back(score);
}

// Tokens 0 <unk>, 1 <s>, 2.. bytes, then random texts over "ab▁é". Byte-level if `bytes`.
inline Vocabulary random_vocabulary(Rng& rng, Vocabulary::Model model, bool bytes) {
  Vocabulary v;
  v.model = model;
  add_token(v, "<unk>", TokenType::kUnknown);
  add_token(v, "<s>", TokenType::kControl);
  v.unk = 0;
  v.bos = 1;
  v.prefix = {1};
  v.byte_level = bytes;
  v.byte_fallback = !bytes;
  for (int b = 0; b < 256; ++b) {
    if (bytes) add_token(v, std::string(1, static_cast<char>(b)), TokenType::kNormal);
    if (!bytes) add_token(v, format("<0x{:02X}>", b), TokenType::kByte);
  }
  std::vector<std::string> parts = {"a", "b", std::string(kMetaspace), "\xc3\xa9"};
  if (!bytes) {
    for (const std::string& part : parts) add_token(v, part, TokenType::kNormal);
  }
  while (parts.size() < 24) {
    const std::string left = parts[rng.below(parts.size())];
    const std::string right = parts[rng.below(parts.size())];
    v.merges.emplace_back(left, right);
    if (std::find(parts.begin(), parts.end(), left + right) != parts.end()) continue;
    parts.push_back(left + right);
    add_token(v, left + right, TokenType::kNormal, static_cast<float>(rng.below(6)));
  }
  if (model == Vocabulary::Model::kBpe) v.scores.clear();
  return v;
}

inline std::string random_text(Rng& rng, size_t most) {
  static const std::string kParts[] = {"a", "b", "a", "b", std::string(kMetaspace), "\xc3\xa9",
                                       "\xe4\xb8\xad", "\xff", " "};
  std::string out;
  for (size_t n = rng.below(most + 1); n > 0; --n) out += kParts[rng.below(std::size(kParts))];
  return out;
}

}  // namespace towline::engine
