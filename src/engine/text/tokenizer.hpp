// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Tokenizer: text to token ids and back, for one model.
//
//   ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::from_model(file));
//   ASSIGN_OR_RETURN(auto ids, tokenizer.encode("Hello", {.add_special = true}));
//   std::string text = tokenizer.decode(ids);   // whole; StreamDecoder does it token by token
//
// Any bytes are accepted: what is not UTF-8 is encoded byte by byte where the vocabulary can
// express bytes, else as the unknown token. Encoding n bytes takes O(n log n) time at worst,
// whatever the text. Immutable once made, and safe to use from many threads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "engine/text/added_tokens.hpp"
#include "engine/text/bpe.hpp"
#include "engine/text/spm.hpp"
#include "engine/text/text_pipeline.hpp"
#include "engine/text/vocabulary.hpp"
#include "engine/text/word_piece.hpp"

namespace towline::engine {

struct EncodeOptions {
  bool add_special = false;    // put what the model expects around a text: BOS, sometimes EOS
  bool parse_special = false;  // "<|im_end|>" in the text is that token, not nine characters
};

class Tokenizer {
 public:
  // Longer texts are refused: no context holds them.
  static constexpr size_t kMaxTextBytes = size_t{1} << 28;

  static Result<Tokenizer> from_model(const ModelFile& file);
  static Result<Tokenizer> create(Vocabulary vocabulary);

  Result<std::vector<int32_t>> encode(std::string_view text, EncodeOptions options = {}) const;

  // The text of the tokens. Bytes that are not UTF-8 come out as they are (StreamDecoder::flush
  // turns them into U+FFFD). Ids outside the vocabulary are skipped.
  struct DecodeOptions {
    bool special = false;       // control tokens print their names instead of nothing
    bool strip_first = true;    // SentencePiece: without the space that encode put in front
  };
  std::string decode(std::span<const int32_t> ids, DecodeOptions options) const;
  std::string decode(std::span<const int32_t> ids) const { return decode(ids, DecodeOptions()); }

  // The bytes that token `id` adds to a text; may be part of a character. Empty for control tokens
  // unless `special`, and for ids outside the vocabulary. Valid as long as the tokenizer.
  std::string_view piece(int32_t id, bool special = false) const;

  int32_t vocab_size() const { return static_cast<int32_t>(vocabulary_->tokens.size()); }
  bool is_special(int32_t id) const;
  // The token with exactly this text as the vocabulary writes it.
  std::optional<int32_t> find(std::string_view token) const;
  int32_t bos() const { return vocabulary_->bos; }  // -1: none
  int32_t eos() const { return vocabulary_->eos; }
  bool add_bos() const { return vocabulary_->add_bos; }
  // Whether the first space of a text is one that encode put there.
  bool strips_first_space() const { return vocabulary_->strip_first_space; }
  // Tokens that end a turn or a text, ascending.
  std::span<const int32_t> end_tokens() const { return vocabulary_->end_tokens; }
  // The file's chat template, or empty.
  const std::string& chat_template() const { return vocabulary_->chat_template; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }

 private:
  explicit Tokenizer(std::unique_ptr<Vocabulary> vocabulary) : vocabulary_(std::move(vocabulary)) {}
  void make_pieces();
  Result<void> encode_fragment(std::string text, bool at_start, bool parse_special,
                               std::vector<int32_t>& out) const;
  void encode_pieces(const Pieces& pieces, std::vector<int32_t>& out) const;

  std::unique_ptr<Vocabulary> vocabulary_;   // on the heap: the parts below point into it
  std::vector<std::string> pieces_;          // by id: the bytes a token prints
  StringIndex index_;                        // of vocabulary_->tokens
  AddedTokenMatcher raw_added_, normalized_added_;
  TextPipeline normalize_, split_;
  std::variant<SpmModel, BpeModel, WordPieceModel> model_;
};

}  // namespace towline::engine
