// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// GGUF metadata -> Vocabulary. Keys: docs/tokenizers.md; source: the GGUF specification of the ggml
// project, section "Tokenizer".
#include <algorithm>

#include "base/fmt.hpp"
#include "engine/text/byte_tokens.hpp"
#include "engine/text/pre_rules.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {
namespace {

using Strings = std::vector<std::string_view>;
using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;

// Typed reading: an absent key is the fallback, a key of another type an error that names it.
class Reader {
 public:
  explicit Reader(const MetaLookup& meta) : meta_(meta) {}

  Result<std::string> text(std::string_view key, std::string_view fallback) const {
    const MetaValue& v = meta_(key);
    if (std::holds_alternative<std::monostate>(v)) return std::string(fallback);
    if (const auto* s = std::get_if<std::string_view>(&v)) return std::string(*s);
    return wrong_type(key, "a string");
  }
  Result<bool> flag(std::string_view key, bool fallback) const {
    const MetaValue& v = meta_(key);
    if (std::holds_alternative<std::monostate>(v)) return fallback;
    if (const auto* b = std::get_if<bool>(&v)) return *b;
    return wrong_type(key, "a boolean");
  }
  // A token id, or -1; ids outside the vocabulary are taken as absent (files carry such).
  Result<int32_t> id(std::string_view key, size_t vocab) const {
    const MetaValue& v = meta_(key);
    if (std::holds_alternative<std::monostate>(v)) return -1;
    const auto* i = std::get_if<int64_t>(&v);
    if (i == nullptr) return wrong_type(key, "an integer");
    return *i >= 0 && static_cast<uint64_t>(*i) < vocab ? static_cast<int32_t>(*i) : -1;
  }
  template <class List>
  Result<const List*> list(std::string_view key, bool required) const {
    const MetaValue& v = meta_(key);
    if (const auto* l = std::get_if<List>(&v)) return l;
    if (!std::holds_alternative<std::monostate>(v)) return wrong_type(key, "an array");
    if (!required) return static_cast<const List*>(nullptr);
    return errorf(Code::kDataCorrupt, "the file has no '{}'; without it there is no tokenizer",
                  key);
  }

 private:
  static Error wrong_type(std::string_view key, std::string_view wanted) {
    return errorf(Code::kDataCorrupt, "'{}' is not {}", key, wanted);
  }
  const MetaLookup& meta_;
};

TextStep step(TextStep::Kind kind, std::string_view pattern, std::string_view content) {
  TextStep s;
  s.kind = kind;
  s.pattern = pattern;
  s.content = content;
  return s;
}

Result<void> read_types(const Reader& reader, Vocabulary& v) {
  ASSIGN_OR_RETURN(const Ints* types, reader.list<Ints>("tokenizer.ggml.token_type", false));
  v.types.assign(v.tokens.size(), TokenType::kNormal);
  if (types == nullptr) return {};
  if (types->size() != v.tokens.size()) {
    return errorf(Code::kDataCorrupt, "'tokenizer.ggml.token_type' has {} entries for {} tokens",
                  types->size(), v.tokens.size());
  }
  for (size_t i = 0; i < types->size(); ++i) {
    if ((*types)[i] >= 1 && (*types)[i] <= 6) v.types[i] = static_cast<TokenType>((*types)[i]);
  }
  return {};
}

// `mapped`: the texts are in GPT-2's printable form.
Result<void> read_merges(const Reader& reader, bool mapped, Vocabulary& v) {
  ASSIGN_OR_RETURN(const Strings* merges, reader.list<Strings>("tokenizer.ggml.merges", true));
  v.merges.reserve(merges->size());
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string_view line = (*merges)[rank];
    const size_t space = line.find(' ', 1);  // a left part may be a space itself
    if (line.empty() || space == std::string_view::npos || space + 1 == line.size()) {
      return errorf(Code::kDataCorrupt,
                    "merge {} of 'tokenizer.ggml.merges' is not two texts with a "
                    "space between",
                    rank);
    }
    std::pair<std::string, std::string> merge(line.substr(0, space), line.substr(space + 1));
    std::string bytes;
    if (mapped && byte_unmap(merge.first, bytes)) merge.first = bytes;
    if (mapped && byte_unmap(merge.second, bytes)) merge.second = bytes;
    v.merges.push_back(std::move(merge));
  }
  return {};
}

void unmap_tokens(Vocabulary& v) {
  std::string bytes;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const TokenType type = v.types[i];
    if (type == TokenType::kControl || type == TokenType::kUserDefined) continue;
    if (byte_unmap(v.tokens[i], bytes)) v.tokens[i] = bytes;
  }
}

Result<void> setup_spm(const Reader& reader, Vocabulary& v) {
  v.model = Vocabulary::Model::kSpm;
  v.name = "SentencePiece";
  v.byte_fallback = true;
  v.space_is_metaspace = true;
  ASSIGN_OR_RETURN(const Floats* scores, reader.list<Floats>("tokenizer.ggml.scores", true));
  v.scores = *scores;
  ASSIGN_OR_RETURN(const bool prefix, reader.flag("tokenizer.ggml.add_space_prefix", true));
  ASSIGN_OR_RETURN(const bool collapse,
                   reader.flag("tokenizer.ggml.remove_extra_whitespaces", false));
  v.strip_first_space = prefix;
  if (collapse) v.normalize.push_back(step(TextStep::Kind::kCollapseSpaces, "", ""));
  if (prefix) v.normalize.push_back(step(TextStep::Kind::kPrepend, "", " "));
  v.normalize.push_back(step(TextStep::Kind::kReplace, " ", kMetaspace));
  return {};
}

Result<void> setup_byte_level(const Reader& reader, Vocabulary& v) {
  ASSIGN_OR_RETURN(v.name, reader.text("tokenizer.ggml.pre", "default"));
  const PreRule* rule = find_pre_rule(v.name);
  if (rule == nullptr) {
    return errorf(Code::kUnsupported,
                  "the pre-split rule '{}' ('tokenizer.ggml.pre') is not known; "
                  "docs/tokenizers.md lists those that are",
                  v.name);
  }
  v.model = Vocabulary::Model::kBpe;
  v.byte_level = true;
  v.ignore_merges = rule->ignore_merges;
  v.add_bos = rule->add_bos;
  for (const std::string_view expression : rule->expressions) {
    v.split.push_back(step(TextStep::Kind::kSplit, expression, ""));
  }
  TRY(read_merges(reader, true, v));
  unmap_tokens(v);
  ASSIGN_OR_RETURN(const bool prefix, reader.flag("tokenizer.ggml.add_space_prefix", false));
  if (prefix) v.normalize.push_back(step(TextStep::Kind::kPrepend, "", " "));
  return {};
}

// Gemma 4: merges over characters, "▁" for spaces, bytes as <0xXX>; lines are independent, and a
// run of newlines that is a token stays whole.
Result<void> setup_gemma(const Reader& reader, Vocabulary& v) {
  v.model = Vocabulary::Model::kBpe;
  v.name = "gemma4";
  v.byte_fallback = true;
  v.fuse_unknown = true;
  v.whole_newlines = true;
  v.space_is_metaspace = true;
  v.normalize.push_back(step(TextStep::Kind::kReplace, " ", kMetaspace));
  v.split.push_back(step(TextStep::Kind::kSplit, R"([^\n]+|\n+)", ""));
  return read_merges(reader, false, v);
}

Result<void> setup_word_piece(const Reader&, Vocabulary& v) {
  v.model = Vocabulary::Model::kWordPiece;
  v.name = "WordPiece";
  v.space_is_metaspace = true;
  v.strip_first_space = true;
  v.normalize.push_back(
      step(TextStep::Kind::kReplaceRegex, R"([^\P{C}\t\n\r]|\x{fffd})", ""));
  v.normalize.push_back(step(TextStep::Kind::kNfd, "", ""));
  v.normalize.push_back(step(TextStep::Kind::kStripAccents, "", ""));
  v.normalize.push_back(step(TextStep::Kind::kLowercase, "", ""));
  // Words, and single punctuation marks, symbols and Han characters.
  TextStep words = step(TextStep::Kind::kSplit, R"(\s+)", "");
  words.behavior = TextStep::Behavior::kRemoved;
  v.split.push_back(words);
  v.split.push_back(step(TextStep::Kind::kSplit,
                         R"([!-/:-@\[-`{-~\p{P}\x{3400}-\x{4dbf}\x{4e00}-\x{9fff})"
                         R"(\x{f900}-\x{faff}\x{20000}-\x{2ceaf}\x{2f800}-\x{2fa1f}])", ""));
  return {};
}

// Control tokens are found on request, user-defined ones always.
void collect_added(Vocabulary& v, bool strip_right) {
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const TokenType type = v.types[i];
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown;
    if ((!special && type != TokenType::kUserDefined) || v.tokens[i].empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(i);
    token.text = v.tokens[i];
    token.special = special;
    token.rstrip = strip_right && token.text != "<unk>" && token.text != "<s>" &&
                   token.text != "<|endoftext|>";
    v.added.push_back(std::move(token));
  }
}

Result<void> read_special_ids(const Reader& reader, Vocabulary& v) {
  const size_t n = v.tokens.size();
  ASSIGN_OR_RETURN(v.bos, reader.id("tokenizer.ggml.bos_token_id", n));
  ASSIGN_OR_RETURN(v.eos, reader.id("tokenizer.ggml.eos_token_id", n));
  ASSIGN_OR_RETURN(v.unk, reader.id("tokenizer.ggml.unknown_token_id", n));
  ASSIGN_OR_RETURN(v.pad, reader.id("tokenizer.ggml.padding_token_id", n));
  const bool word_piece = v.model == Vocabulary::Model::kWordPiece;
  if (word_piece && v.bos < 0) {
    ASSIGN_OR_RETURN(v.bos, reader.id("tokenizer.ggml.cls_token_id", n));
  }
  if (word_piece && v.eos < 0) {
    ASSIGN_OR_RETURN(v.eos, reader.id("tokenizer.ggml.seperator_token_id", n));
  }
  if (word_piece && v.unk < 0) {
    const auto unknown = std::find(v.tokens.begin(), v.tokens.end(), "[UNK]");
    if (unknown != v.tokens.end()) v.unk = static_cast<int32_t>(unknown - v.tokens.begin());
  }
  ASSIGN_OR_RETURN(v.add_bos, reader.flag("tokenizer.ggml.add_bos_token", v.add_bos));
  ASSIGN_OR_RETURN(const bool add_eos, reader.flag("tokenizer.ggml.add_eos_token", word_piece));
  v.add_bos = v.add_bos && v.bos >= 0;
  if (v.add_bos) v.prefix.push_back(v.bos);
  if (add_eos && v.eos >= 0) v.suffix.push_back(v.eos);
  Ints ends;
  for (const std::string_view key :
       {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    ASSIGN_OR_RETURN(const int32_t end, reader.id(key, n));
    if (end >= 0) ends.push_back(end);
  }
  collect_end_tokens(v, ends);
  return {};
}

}  // namespace

Result<Vocabulary> vocabulary_from_gguf(const MetaLookup& meta) {
  const Reader reader(meta);
  ASSIGN_OR_RETURN(const std::string model, reader.text("tokenizer.ggml.model", ""));
  if (model.empty()) {
    return Error(Code::kNotFound, "the file has no 'tokenizer.ggml.model': it holds no tokenizer");
  }
  Vocabulary v;
  ASSIGN_OR_RETURN(const Strings* tokens, reader.list<Strings>("tokenizer.ggml.tokens", true));
  v.tokens.assign(tokens->begin(), tokens->end());
  TRY(read_types(reader, v));
  if (model == "llama") {
    v.add_bos = true;
    TRY(setup_spm(reader, v));
  } else if (model == "gpt2") {
    TRY(setup_byte_level(reader, v));
  } else if (model == "gemma4") {
    v.add_bos = true;
    TRY(setup_gemma(reader, v));
  } else if (model == "bert") {
    v.add_bos = true;
    TRY(setup_word_piece(reader, v));
  } else {
    return errorf(Code::kUnsupported,
                  "tokenizers of the kind '{}' ('tokenizer.ggml.model') are not "
                  "supported; llama, gpt2, gemma4 and bert are",
                  model);
  }
  ASSIGN_OR_RETURN(std::string name, reader.text("general.name", ""));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  // Phi-3's special tokens swallow the white space after them; GGUF has no key that says so.
  const bool phi3 =
      name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
  collect_added(v, phi3);
  TRY(read_special_ids(reader, v));
  ASSIGN_OR_RETURN(v.chat_template, reader.text("tokenizer.chat_template", ""));
  return v;
}

}  // namespace towline::engine
