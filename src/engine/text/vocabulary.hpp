// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Vocabulary: everything that defines a tokenizer, as plain data.
//
// Two loaders fill it: GGUF metadata (vocabulary_gguf.cpp) and a Hugging Face tokenizer.json
// (vocabulary_hf.cpp). The Tokenizer (tokenizer.hpp) compiles it once and never looks back at the
// file. docs/tokenizers.md explains the fields with examples.
//
// Text goes through these stages, in this order:
//   1. `added` tokens with normalized == false are cut out of the raw text;
//   2. `normalize` steps rewrite what is left, fragment by fragment;
//   3. `added` tokens with normalized == true are cut out of the result;
//   4. `split` steps cut fragments into pieces (and may rewrite them);
//   5. the model turns each piece into tokens; merges never cross pieces.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "engine/format/model_file.hpp"

namespace towline::engine {

// The numbers are those of GGUF's tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // <s>, <|im_end|>: parsed from text only when asked; no text of its own
  kUserDefined = 4,  // always parsed from text, and prints as it is
  kUnused = 5,
  kByte = 6,         // "<0x0A>": the byte itself
};

// A token that is found in the text as it stands, before the model sees it.
struct AddedToken {
  int32_t id = -1;
  std::string text;
  bool special = false;      // parsed only with EncodeOptions::parse_special
  bool normalized = false;   // searched for, in its normalised form, in the normalised text
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // ... after it
  bool single_word = false;  // only where no word character touches it
  std::string pattern = {};  // what is searched for; filled in by Tokenizer::create
};

// One rewriting or cutting step.
struct TextStep {
  enum class Kind : uint8_t {
    kPrepend,          // content + text, unless the text is empty
    kReplace,          // every literal `pattern` -> content
    kReplaceRegex,     // every match of `pattern` -> content
    kNfc, kNfd, kNfkc, kNfkd,
    kLowercase,
    kStripAccents,     // drops nonspacing marks (after kNfd)
    kStrip,            // white space off the left and/or right end (left/right)
    kCollapseSpaces,   // runs of ' ' -> one; none at the ends (SentencePiece)
    kSplit,            // cut at matches of `pattern`
    kPrefixSpace,      // ' ' in front of each piece that does not begin with one
    kMetaspacePrefix,  // `content` in front of a piece that does not begin with it (see `when`)
    kByteMap,          // each byte -> the code point GPT-2 writes it as
    kByteUnmap,        // and back
  };
  // What happens to a match and to the text between matches.
  enum class Behavior : uint8_t { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext,
                                  kContiguous };
  enum class When : uint8_t { kAlways, kFirst };  // kFirst: only at the start of the whole text

  Kind kind = Kind::kSplit;
  std::string pattern = {};
  std::string content = {};
  Behavior behavior = Behavior::kIsolated;
  When when = When::kAlways;
  bool literal = false;  // kSplit: `pattern` is plain text, not an expression
  bool invert = false;   // kSplit: swap matches and the text between them
  bool left = true, right = true;
};

struct Vocabulary {
  enum class Model : uint8_t {
    kSpm,        // merge the adjacent pair whose union has the best score (SentencePiece BPE)
    kBpe,        // merge the adjacent pair of the lowest merge rank
    kWordPiece,  // longest match first, "##" continues a word (BERT)
  };
  Model model = Model::kBpe;
  std::string name;  // of the rule set, for people: "llama-bpe", "SentencePiece", ...

  // Indexed by token id. With byte_level, the text of normal tokens has been turned from GPT-2's
  // printable form into the raw bytes it stands for.
  std::vector<std::string> tokens;
  std::vector<TokenType> types;   // same length as tokens
  std::vector<float> scores;      // kSpm: same length as tokens; else empty
  std::vector<std::pair<std::string, std::string>> merges;  // kBpe: best first

  bool byte_level = false;     // kBpe: symbols are bytes, not characters
  bool byte_fallback = false;  // unknown characters become their bytes' <0xXX> tokens
  bool fuse_unknown = false;   // a run of unknown characters is one unknown token
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say
  bool whole_newlines = false;  // ... if it begins with a newline

  std::vector<AddedToken> added;
  std::vector<TextStep> normalize;
  std::vector<TextStep> split;

  int32_t bos = -1, eos = -1, unk = -1, pad = -1;  // -1: none
  std::vector<int32_t> end_tokens;  // every token that ends a turn or a text, sorted
  // What EncodeOptions::add_special puts around the text.
  std::vector<int32_t> prefix, suffix;
  bool add_bos = false;  // prefix begins with bos

  // Text of a token: "▁" stands for a space; the first space of a text is not part of it.
  bool space_is_metaspace = false;
  bool strip_first_space = false;
  // kWordPiece: "##" joins to the token before, others are preceded by a space.
  std::string chat_template;  // empty: the file has none
};

// Where a key's value is found; tests pass a map, the product passes ModelFile::meta.
using MetaLookup = std::function<const MetaValue&(std::string_view key)>;

// From GGUF metadata (tokenizer.ggml.*). Errors name the key.
Result<Vocabulary> vocabulary_from_gguf(const MetaLookup& meta);

// From the parsed tokenizer.json and, if the model has one, tokenizer_config.json (else null): it
// names the special tokens and may hold the chat template.
Result<Vocabulary> vocabulary_from_hf(const Json& tokenizer, const Json& config);

// Whichever of the two the file holds.
Result<Vocabulary> load_vocabulary(const ModelFile& file);

// Fills end_tokens from eos, `more`, and the names by which models end a turn: <|im_end|>,
// <|eot_id|>, <end_of_turn>, ... (only where such a token is special).
void collect_end_tokens(Vocabulary& vocabulary, const std::vector<int64_t>& more);

// GPT-2's reversible mapping of bytes to printable code points. map never fails; unmap is false if
// a character is outside the mapping.
std::string byte_map(std::string_view bytes);
bool byte_unmap(std::string_view text, std::string& bytes);

}  // namespace towline::engine
