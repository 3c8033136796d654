// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/word_piece.hpp"

#include <algorithm>

#include "base/utf8.hpp"
#include "engine/text/byte_tokens.hpp"

namespace towline::engine {

WordPieceModel::WordPieceModel(const Vocabulary& vocabulary) : vocabulary_(&vocabulary) {
  std::vector<bool> use(vocabulary.tokens.size());
  for (size_t i = 0; i < use.size(); ++i) {
    use[i] = vocabulary.types[i] != TokenType::kControl;
    longest_ = std::max(longest_, vocabulary.tokens[i].size());
  }
  index_.build(vocabulary.tokens, use);
}

void WordPieceModel::encode(std::string_view word, Scratch&, std::vector<int32_t>& out) const {
  const std::string marked = std::string(kMetaspace) + std::string(word);
  const std::string_view text = marked;
  const size_t first = out.size();
  for (size_t at = 0; at < text.size();) {
    size_t length = std::min(longest_, text.size() - at);
    int32_t id = -1;
    for (; length > 0; --length) {
      if ((id = index_.find(vocabulary_->tokens, text.substr(at, length))) >= 0) break;
    }
    if (id < 0) {
      out.resize(first);
      if (vocabulary_->unk >= 0) out.push_back(vocabulary_->unk);
      return;
    }
    out.push_back(id);
    at += length;
  }
}

}  // namespace towline::engine
