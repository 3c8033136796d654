// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/added_tokens.hpp"

#include "engine/text/characters.hpp"

namespace towline::engine {

AddedTokenMatcher::AddedTokenMatcher(const Vocabulary& vocabulary, bool normalized)
    : vocabulary_(&vocabulary), token_at_(1, -1) {
  for (size_t i = 0; i < vocabulary.added.size(); ++i) {
    const AddedToken& token = vocabulary.added[i];
    if (token.normalized != normalized || token.pattern.empty()) continue;
    empty_ = false;
    starts_[static_cast<unsigned char>(token.pattern[0])] = true;
    int32_t node = 0;
    for (const char c : token.pattern) {
      const int32_t byte = static_cast<unsigned char>(c);
      int32_t next = children_.find(node, byte).first;
      if (next < 0) {
        next = static_cast<int32_t>(token_at_.size());
        token_at_.push_back(-1);
        children_.add(node, byte, {next, 0});
      }
      node = next;
    }
    token_at_[static_cast<size_t>(node)] = static_cast<int32_t>(i);
  }
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, size_t at,
                                                bool parse_special) const {
  const AddedToken* longest = nullptr;
  int32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    node = children_.find(node, static_cast<unsigned char>(text[i])).first;
    if (node < 0) break;
    const int32_t index = token_at_[static_cast<size_t>(node)];
    if (index < 0) continue;
    const AddedToken& token = vocabulary_->added[static_cast<size_t>(index)];
    if (token.special && !parse_special) continue;
    if (token.single_word && (is_word_before(text, at) || is_word_after(text, i + 1))) continue;
    longest = &token;
  }
  return longest;
}

std::vector<AddedTokenMatcher::Span> AddedTokenMatcher::split(std::string_view text,
                                                              bool parse_special) const {
  std::vector<Span> spans;
  size_t done = 0;  // text before this is in a span, or was taken along
  for (size_t at = 0; at < text.size() && !empty_;) {
    const AddedToken* token = nullptr;
    if (starts_[static_cast<unsigned char>(text[at])]) token = longest_at(text, at, parse_special);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->pattern.size();
    if (token->lstrip) begin = done + trimmed_right(text.substr(done, at - done)).size();
    if (token->rstrip) end = text.size() - trimmed_left(text.substr(end)).size();
    if (begin > done) spans.push_back({done, begin, -1});
    spans.push_back({at, at + token->pattern.size(), token->id});
    done = at = end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), -1});
  return spans;
}

}  // namespace towline::engine
