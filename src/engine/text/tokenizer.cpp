// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/fmt.hpp"
#include "engine/text/byte_tokens.hpp"

namespace towline::engine {
namespace {

// Below this many pieces a cache of pieces seen costs more than it saves.
constexpr size_t kCacheFrom = 64;

// Encodes every piece; a piece that was seen before copies the tokens it had then.
template <class Model>
void encode_all(const Model& model, const std::vector<std::string_view>& pieces,
                std::vector<int32_t>& out) {
  typename Model::Scratch scratch;
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> seen;
  const bool cache = pieces.size() >= kCacheFrom;
  for (const std::string_view piece : pieces) {
    const size_t begin = out.size();
    if (!cache) {
      model.encode(piece, scratch, out);
      continue;
    }
    const auto [at, is_new] = seen.try_emplace(piece);
    if (is_new) {
      model.encode(piece, scratch, out);
      at->second = {begin, out.size()};
    } else {
      for (size_t i = at->second.first; i < at->second.second; ++i) out.push_back(out[i]);
    }
  }
}

Result<void> check_shape(const Vocabulary& v) {
  const size_t n = v.tokens.size();
  if (n == 0) return Error(Code::kDataCorrupt, "the vocabulary has no tokens");
  if (v.types.size() != n) {
    return errorf(Code::kDataCorrupt, "the vocabulary has {} tokens but {} token types", n,
                  v.types.size());
  }
  if (v.model == Vocabulary::Model::kSpm && v.scores.size() != n) {
    return errorf(Code::kDataCorrupt, "the vocabulary has {} tokens but {} scores", n,
                  v.scores.size());
  }
  const auto in_range = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < n; };
  for (const AddedToken& token : v.added) {
    if (!in_range(token.id)) {
      return errorf(Code::kDataCorrupt, "added token '{}' has id {}, outside the vocabulary of {}",
                    token.text, token.id, n);
    }
  }
  for (const auto* list : {&v.prefix, &v.suffix, &v.end_tokens}) {
    for (const int32_t id : *list) {
      if (!in_range(id)) {
        return errorf(Code::kDataCorrupt, "token id {} is outside the vocabulary of {}", id, n);
      }
    }
  }
  for (const int32_t id : {v.bos, v.eos, v.unk, v.pad}) {
    if (id != -1 && !in_range(id)) {
      return errorf(Code::kDataCorrupt, "token id {} is outside the vocabulary of {}", id, n);
    }
  }
  return {};
}

std::string metaspace_to_space(std::string_view text) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(kMetaspace, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) return out;
    out += ' ';
    at = found + kMetaspace.size();
  }
}

}  // namespace

Result<Tokenizer> Tokenizer::from_model(const ModelFile& file) {
  Result<Vocabulary> vocabulary = load_vocabulary(file);
  if (!vocabulary) return std::move(vocabulary.error()).context("tokenizer of " + file.path());
  return create(std::move(*vocabulary)).context("tokenizer of " + file.path());
}

Result<Tokenizer> Tokenizer::create(Vocabulary vocabulary) {
  TRY(check_shape(vocabulary));
  Tokenizer t(std::make_unique<Vocabulary>(std::move(vocabulary)));
  const Vocabulary& v = *t.vocabulary_;
  ASSIGN_OR_RETURN(t.normalize_, TextPipeline::compile(v.normalize));
  for (AddedToken& token : t.vocabulary_->added) {
    Pieces text = Pieces::whole(token.text, true);
    if (token.normalized) TRY(t.normalize_.run(text));
    token.pattern = std::move(text.text);
  }
  ASSIGN_OR_RETURN(t.split_, TextPipeline::compile(v.split));
  t.raw_added_ = AddedTokenMatcher(v, false);
  t.normalized_added_ = AddedTokenMatcher(v, true);
  t.index_.build(v.tokens);
  switch (v.model) {
    case Vocabulary::Model::kSpm: t.model_ = SpmModel(v); break;
    case Vocabulary::Model::kBpe: t.model_ = BpeModel(v); break;
    case Vocabulary::Model::kWordPiece: t.model_ = WordPieceModel(v); break;
  }
  t.make_pieces();
  t.vocabulary_->merges = {};  // compiled into the model; 280,000 pairs of strings are not small
  return t;
}

void Tokenizer::make_pieces() {
  const Vocabulary& v = *vocabulary_;
  pieces_.resize(v.tokens.size());
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const std::string& text = v.tokens[i];
    switch (v.types[i]) {
      case TokenType::kByte: {
        const int value = byte_token_value(text);
        pieces_[i] = value >= 0 ? std::string(1, static_cast<char>(value)) : text;
        break;
      }
      case TokenType::kControl:
      case TokenType::kUserDefined: pieces_[i] = text; break;
      case TokenType::kUnknown: pieces_[i] = "\xef\xbf\xbd"; break;
      default: pieces_[i] = v.space_is_metaspace ? metaspace_to_space(text) : text;
    }
  }
  // A user-defined token that spells spaces the SentencePiece way still prints spaces.
  if (!v.space_is_metaspace) return;
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (v.types[i] == TokenType::kUserDefined) pieces_[i] = metaspace_to_space(pieces_[i]);
  }
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > kMaxTextBytes) {
    return errorf(Code::kInvalidArgument, "a text of {} bytes; at most {} can be tokenized at once",
                  text.size(), kMaxTextBytes);
  }
  std::vector<int32_t> out;
  if (options.add_special) out = vocabulary_->prefix;
  for (const AddedTokenMatcher::Span& span : raw_added_.split(text, options.parse_special)) {
    if (span.id >= 0) {
      out.push_back(span.id);
      continue;
    }
    TRY(encode_fragment(std::string(text.substr(span.begin, span.end - span.begin)),
                        span.begin == 0, options.parse_special, out));
  }
  if (options.add_special) {
    out.insert(out.end(), vocabulary_->suffix.begin(), vocabulary_->suffix.end());
  }
  return out;
}

Result<void> Tokenizer::encode_fragment(std::string text, bool at_start, bool parse_special,
                                        std::vector<int32_t>& out) const {
  Pieces fragment = Pieces::whole(std::move(text), at_start);
  TRY(normalize_.run(fragment));
  if (normalized_added_.empty()) {
    TRY(split_.run(fragment));
    encode_pieces(fragment, out);
    return {};
  }
  for (const auto& span : normalized_added_.split(fragment.text, parse_special)) {
    if (span.id >= 0) {
      out.push_back(span.id);
      continue;
    }
    Pieces part = Pieces::whole(fragment.text.substr(span.begin, span.end - span.begin),
                                at_start && span.begin == 0);
    TRY(split_.run(part));
    encode_pieces(part, out);
  }
  return {};
}

void Tokenizer::encode_pieces(const Pieces& pieces, std::vector<int32_t>& out) const {
  std::visit(
      [&](const auto& model) {
        std::vector<std::string_view> words;
        words.reserve(pieces.size());
        for (size_t k = 0; k < pieces.size(); ++k) {
          std::string_view piece = pieces[k];
          while (model.words_are_independent() && !piece.empty()) {
            const size_t n = first_word_length(piece);
            words.push_back(piece.substr(0, n));
            piece.remove_prefix(n);
          }
          if (!piece.empty()) words.push_back(piece);
        }
        encode_all(model, words, out);
      },
      model_);
}

std::string_view Tokenizer::piece(int32_t id, bool special) const {
  if (id < 0 || id >= vocab_size()) return {};
  if (!special && is_special(id)) return {};
  return pieces_[static_cast<size_t>(id)];
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() &&
         vocabulary_->types[static_cast<size_t>(id)] == TokenType::kControl;
}

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  const int32_t id = index_.find(vocabulary_->tokens, token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, DecodeOptions options) const {
  std::string out;
  bool strip = options.strip_first && vocabulary_->strip_first_space;
  for (const int32_t id : ids) {
    std::string_view text = piece(id, options.special);
    if (text.empty()) continue;
    if (strip && !is_special(id)) {
      if (text.starts_with(' ')) text.remove_prefix(1);
      strip = false;
    }
    out += text;
  }
  return out;
}

}  // namespace towline::engine
