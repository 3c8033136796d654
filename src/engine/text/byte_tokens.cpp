// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/byte_tokens.hpp"

#include <algorithm>

namespace towline::engine {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

int byte_token_value(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const int high = hex_digit(text[3]);
  const int low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::array<int32_t, 256> find_byte_tokens(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> ids;
  ids.fill(-1);
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] != TokenType::kByte) continue;
    const int value = byte_token_value(vocabulary.tokens[i]);
    if (value >= 0) ids[static_cast<size_t>(value)] = static_cast<int32_t>(i);
  }
  return ids;
}

void emit_bytes(std::string_view symbol, const std::array<int32_t, 256>& byte_tokens, int32_t unk,
                std::vector<int32_t>& out) {
  const auto id_of = [&](char c) { return byte_tokens[static_cast<unsigned char>(c)]; };
  if (std::all_of(symbol.begin(), symbol.end(), [&](char c) { return id_of(c) >= 0; })) {
    for (const char c : symbol) out.push_back(id_of(c));
  } else if (unk >= 0) {
    out.push_back(unk);
  }
}

bool no_token_crosses_words(const Vocabulary& vocabulary, const std::vector<bool>& use) {
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (use[i] && first_word_length(vocabulary.tokens[i]) != vocabulary.tokens[i].size()) {
      return false;
    }
  }
  return true;
}

size_t first_word_length(std::string_view text) {
  size_t at = 0;
  while (text.substr(at).starts_with(kMetaspace)) at += kMetaspace.size();
  return std::min(text.find(kMetaspace, at), text.size());
}

}  // namespace towline::engine
