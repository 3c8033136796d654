// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Hugging Face tokenizer.json -> Vocabulary. The file describes a pipeline of components by type
// and parameters; each becomes steps of ours, or an error that names the component.
#include <algorithm>

#include "base/fmt.hpp"
#include "engine/text/byte_tokens.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {
namespace {

using Kind = TextStep::Kind;
using Behavior = TextStep::Behavior;
using Steps = std::vector<TextStep>;

constexpr int64_t kMaxTokens = 4 << 20;

constexpr std::string_view kGpt2Split =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kPunctuation = R"([!-/:-@\[-`{-~\p{P}])";
constexpr std::string_view kHan =
    R"([\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}\x{f900}-\x{faff})"
    R"(\x{20000}-\x{2ceaf}\x{2f800}-\x{2fa1f}])";

Error unsupported(std::string_view where, const Json& component) {
  return errorf(Code::kUnsupported, "tokenizer.json: the {} '{}' is not supported", where,
                component["type"].as_string_or("without a type"));
}

TextStep make(Kind kind, std::string_view pattern = {}, std::string_view content = {}) {
  TextStep s;
  s.kind = kind;
  s.pattern = pattern;
  s.content = content;
  return s;
}

TextStep split_at(std::string_view pattern, Behavior behavior = Behavior::kIsolated) {
  TextStep s = make(Kind::kSplit, pattern);
  s.behavior = behavior;
  return s;
}

Result<Behavior> read_behavior(const Json& component) {
  const std::string name = component["behavior"].as_string_or("Isolated");
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return errorf(Code::kUnsupported, "tokenizer.json: the split behavior '{}' is not supported",
                name);
}

// {"String": "x"} or {"Regex": "x"}
Result<void> read_pattern(const Json& pattern, TextStep& step) {
  if (pattern["String"].is_string()) {
    step.pattern = pattern["String"].as_string();
    step.literal = true;
    return {};
  }
  if (pattern["Regex"].is_string()) {
    step.pattern = pattern["Regex"].as_string();
    return {};
  }
  return Error(Code::kDataCorrupt, "tokenizer.json: a pattern is neither String nor Regex");
}

// Nested sequences are read by recursion; parse_json bounds their depth.
Result<void> add_normalizer(const Json& n, Steps& out) {
  if (n.is_null()) return {};
  const std::string& type = n["type"].as_string();
  if (type == "Sequence") {
    for (const Json& inner : n["normalizers"].items()) TRY(add_normalizer(inner, out));
  } else if (type == "Prepend") {
    out.push_back(make(Kind::kPrepend, "", n["prepend"].as_string()));
  } else if (type == "Replace") {
    TextStep s = make(Kind::kReplace, "", n["content"].as_string());
    TRY(read_pattern(n["pattern"], s));
    if (!s.literal) s.kind = Kind::kReplaceRegex;
    out.push_back(std::move(s));
  } else if (type == "NFC") {
    out.push_back(make(Kind::kNfc));
  } else if (type == "NFD") {
    out.push_back(make(Kind::kNfd));
  } else if (type == "NFKC") {
    out.push_back(make(Kind::kNfkc));
  } else if (type == "NFKD") {
    out.push_back(make(Kind::kNfkd));
  } else if (type == "Lowercase") {
    out.push_back(make(Kind::kLowercase));
  } else if (type == "StripAccents") {
    out.push_back(make(Kind::kStripAccents));
  } else if (type == "Strip") {
    TextStep s = make(Kind::kStrip);
    s.left = n["strip_left"].as_bool(true);
    s.right = n["strip_right"].as_bool(true);
    out.push_back(std::move(s));
  } else if (type == "BertNormalizer") {
    if (n["clean_text"].as_bool(true)) {
      out.push_back(make(Kind::kReplaceRegex, R"([^\P{C}\t\n\r]|\x{fffd})"));
    }
    const bool lower = n["lowercase"].as_bool(true);
    if (n["strip_accents"].as_bool(lower)) {
      out.push_back(make(Kind::kNfd));
      out.push_back(make(Kind::kStripAccents));
    }
    if (lower) out.push_back(make(Kind::kLowercase));
  } else {
    return unsupported("normalizer", n);
  }
  return {};
}

void add_metaspace(const Json& p, Steps& out) {
  const std::string mark = p["replacement"].as_string_or(kMetaspace);
  const std::string scheme =
      p["prepend_scheme"].as_string_or(p["add_prefix_space"].as_bool(true) ? "always" : "never");
  out.push_back(make(Kind::kReplace, " ", mark));
  if (scheme != "never") {
    TextStep prefix = make(Kind::kMetaspacePrefix, "", mark);
    prefix.when = scheme == "first" ? TextStep::When::kFirst : TextStep::When::kAlways;
    out.push_back(std::move(prefix));
  }
  if (p["split"].as_bool(true)) {
    TextStep split = split_at(mark, Behavior::kMergedWithNext);
    split.literal = true;
    out.push_back(std::move(split));
  }
}

Result<void> add_pre_tokenizer(const Json& p, Steps& out, bool& byte_level) {
  if (p.is_null()) return {};
  const std::string& type = p["type"].as_string();
  if (type == "Sequence") {
    for (const Json& inner : p["pretokenizers"].items()) {
      TRY(add_pre_tokenizer(inner, out, byte_level));
    }
  } else if (type == "Split") {
    TextStep s = make(Kind::kSplit);
    TRY(read_pattern(p["pattern"], s));
    ASSIGN_OR_RETURN(s.behavior, read_behavior(p));
    s.invert = p["invert"].as_bool();
    out.push_back(std::move(s));
  } else if (type == "ByteLevel") {
    if (p["add_prefix_space"].as_bool(true)) out.push_back(make(Kind::kPrefixSpace));
    if (p["use_regex"].as_bool(true)) out.push_back(split_at(kGpt2Split));
    if (!byte_level) out.push_back(make(Kind::kByteMap));
    byte_level = true;
  } else if (type == "Digits") {
    out.push_back(split_at(p["individual_digits"].as_bool() ? R"(\p{N})" : R"(\p{N}+)"));
  } else if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const Behavior behavior, read_behavior(p));
    out.push_back(split_at(kPunctuation, behavior));
  } else if (type == "Whitespace") {
    TextStep s = split_at(R"([\p{L}\p{M}\p{N}\p{Pc}]+|[^\p{L}\p{M}\p{N}\p{Pc}\s]+)",
                          Behavior::kRemoved);
    s.invert = true;
    out.push_back(std::move(s));
  } else if (type == "WhitespaceSplit") {
    out.push_back(split_at(R"(\s+)", Behavior::kRemoved));
  } else if (type == "CharDelimiterSplit") {
    TextStep s = split_at(p["delimiter"].as_string(), Behavior::kRemoved);
    s.literal = true;
    out.push_back(std::move(s));
  } else if (type == "Metaspace") {
    add_metaspace(p, out);
  } else if (type == "BertPreTokenizer") {
    out.push_back(split_at(R"(\s+)", Behavior::kRemoved));
    out.push_back(split_at(kPunctuation));
    out.push_back(split_at(kHan));
  } else {
    return unsupported("pre-tokenizer", p);
  }
  return {};
}

Result<void> read_decoder(const Json& d, Vocabulary& v) {
  if (d.is_null()) return {};
  const std::string& type = d["type"].as_string();
  if (type == "Sequence") {
    for (const Json& inner : d["decoders"].items()) TRY(read_decoder(inner, v));
  } else if (type == "Replace") {
    if (d["pattern"]["String"].as_string() == kMetaspace && d["content"].as_string() == " ") {
      v.space_is_metaspace = true;
    }
  } else if (type == "Strip") {
    if (d["content"].as_string() == " " && d["start"].as_int() > 0) v.strip_first_space = true;
  } else if (type == "Metaspace") {
    v.space_is_metaspace = true;
    v.strip_first_space = d["prepend_scheme"].as_string_or("always") != "never" &&
                          d["add_prefix_space"].as_bool(true);
  } else if (type == "WordPiece") {
    v.space_is_metaspace = v.strip_first_space = true;
  } else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse") {
    return unsupported("decoder", d);
  }
  return {};
}

// --- tokens --------------------------------------------------------------------------------------

Result<void> place_token(Vocabulary& v, int64_t id, const std::string& text) {
  if (id < 0 || id >= kMaxTokens) {
    return errorf(Code::kDataCorrupt, "tokenizer.json: token '{}' has id {}; ids are 0 to {}", text,
                  id, kMaxTokens - 1);
  }
  const auto at = static_cast<size_t>(id);
  if (at >= v.tokens.size()) {
    v.tokens.resize(at + 1);
    v.types.resize(at + 1, TokenType::kUnused);
  }
  v.tokens[at] = text;
  v.types[at] = TokenType::kNormal;
  return {};
}

Result<void> read_tokens(const Json& model, Vocabulary& v) {
  if (!model["vocab"].is_object()) {
    return Error(Code::kDataCorrupt, "tokenizer.json: model.vocab is not an object");
  }
  for (const Json::Member& member : model["vocab"].members()) {
    TRY(place_token(v, member.second.as_int(-1), member.first));
  }
  std::string bytes;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.types[i] != TokenType::kNormal) continue;
    if (v.byte_level && byte_unmap(v.tokens[i], bytes)) v.tokens[i] = bytes;
    if (v.byte_fallback && byte_token_value(v.tokens[i]) >= 0) v.types[i] = TokenType::kByte;
  }
  return {};
}

Result<void> read_merges(const Json& model, Vocabulary& v) {
  for (const Json& merge : model["merges"].items()) {
    std::pair<std::string, std::string> parts;
    if (merge.is_array() && merge.size() == 2) {
      parts = {merge[size_t{0}].as_string(), merge[1].as_string()};
    } else if (merge.is_string()) {
      const size_t space = merge.as_string().find(' ');
      if (space != std::string::npos) {
        parts = {merge.as_string().substr(0, space), merge.as_string().substr(space + 1)};
      }
    }
    if (parts.first.empty() || parts.second.empty()) {
      return errorf(Code::kDataCorrupt, "tokenizer.json: merge {} is not two texts",
                    v.merges.size());
    }
    std::string bytes;
    if (v.byte_level && byte_unmap(parts.first, bytes)) parts.first = bytes;
    if (v.byte_level && byte_unmap(parts.second, bytes)) parts.second = bytes;
    v.merges.push_back(std::move(parts));
  }
  return {};
}

Result<void> read_added(const Json& tokenizer, Vocabulary& v) {
  for (const Json& t : tokenizer["added_tokens"].items()) {
    AddedToken token;
    token.text = t["content"].as_string();
    token.special = t["special"].as_bool();
    token.normalized = t["normalized"].as_bool(!token.special);
    token.lstrip = t["lstrip"].as_bool();
    token.rstrip = t["rstrip"].as_bool();
    token.single_word = t["single_word"].as_bool();
    TRY(place_token(v, t["id"].as_int(-1), token.text));
    token.id = static_cast<int32_t>(t["id"].as_int());
    v.types[static_cast<size_t>(token.id)] =
        token.special ? TokenType::kControl : TokenType::kUserDefined;
    v.added.push_back(std::move(token));
  }
  return {};
}

int32_t find_token(const Vocabulary& v, std::string_view text) {
  for (const AddedToken& token : v.added) {
    if (token.text == text) return token.id;
  }
  if (text.empty()) return -1;
  const auto at = std::find(v.tokens.begin(), v.tokens.end(), text);
  return at == v.tokens.end() ? -1 : static_cast<int32_t>(at - v.tokens.begin());
}

// "bos_token": "<s>", or {"content": "<s>", ...}
int32_t named_token(const Json& config, std::string_view key, const Vocabulary& v) {
  const Json& value = config[key];
  return find_token(v, value.is_object() ? value["content"].as_string() : value.as_string());
}

// --- what is put around a text -------------------------------------------------------------------

Result<void> read_post_processor(const Json& p, Vocabulary& v) {
  const std::string& type = p["type"].as_string();
  if (p.is_null() || type == "ByteLevel") return {};
  if (type == "Sequence") {
    for (const Json& inner : p["processors"].items()) TRY(read_post_processor(inner, v));
  } else if (type == "TemplateProcessing") {
    bool after = false;
    for (const Json& item : p["single"].items()) {
      if (item.contains("Sequence")) after = true;
      const std::string& name = item["SpecialToken"]["id"].as_string();
      for (const Json& id : p["special_tokens"][name]["ids"].items()) {
        (after ? v.suffix : v.prefix).push_back(static_cast<int32_t>(id.as_int(-1)));
      }
    }
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    v.prefix.push_back(static_cast<int32_t>(p["cls"][1].as_int(-1)));
    v.suffix.push_back(static_cast<int32_t>(p["sep"][1].as_int(-1)));
  } else {
    return unsupported("post-processor", p);
  }
  return {};
}

std::string read_chat_template(const Json& config) {
  const Json& value = config["chat_template"];
  if (value.is_string()) return value.as_string();
  for (const Json& one : value.items()) {
    if (one["name"].as_string() == "default") return one["template"].as_string();
  }
  return value[size_t{0}]["template"].as_string();
}

Result<void> setup_bpe(const Json& tokenizer, const Json& model, Vocabulary& v) {
  v.model = Vocabulary::Model::kBpe;
  v.name = "tokenizer.json";
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model[key].as_string().empty()) {
      return errorf(Code::kUnsupported, "tokenizer.json: model.{} is not supported", key);
    }
  }
  v.byte_fallback = model["byte_fallback"].as_bool();
  v.fuse_unknown = model["fuse_unk"].as_bool();
  v.ignore_merges = model["ignore_merges"].as_bool();
  TRY(add_pre_tokenizer(tokenizer["pre_tokenizer"], v.split, v.byte_level));
  if (v.byte_level && v.split.back().kind == Kind::kByteMap) {
    v.split.pop_back();
  } else if (v.byte_level) {
    v.split.push_back(make(Kind::kByteUnmap));
  }
  TRY(read_tokens(model, v));
  return read_merges(model, v);
}

// Tokens take GGUF's form: "##ing" -> "ing", "run" -> "▁run".
Result<void> setup_word_piece(const Json& tokenizer, const Json& model, Vocabulary& v) {
  v.model = Vocabulary::Model::kWordPiece;
  v.name = "WordPiece";
  bool byte_level = false;
  TRY(add_pre_tokenizer(tokenizer["pre_tokenizer"], v.split, byte_level));
  if (byte_level) return Error(Code::kUnsupported, "tokenizer.json: WordPiece over bytes");
  TRY(read_tokens(model, v));
  const std::string prefix = model["continuing_subword_prefix"].as_string_or("##");
  for (std::string& token : v.tokens) {
    token = token.starts_with(prefix) ? token.substr(prefix.size())
                                      : std::string(kMetaspace) + token;
  }
  return {};
}

}  // namespace

Result<Vocabulary> vocabulary_from_hf(const Json& tokenizer, const Json& config) {
  const Json& model = tokenizer["model"];
  if (!model.is_object()) {
    return Error(Code::kDataCorrupt, "tokenizer.json: it has no model");
  }
  Vocabulary v;
  TRY(add_normalizer(tokenizer["normalizer"], v.normalize));
  const std::string type = model["type"].as_string_or(model.contains("merges") ? "BPE" : "unnamed");
  const std::string& unknown = model["unk_token"].as_string();
  std::string unknown_text = unknown;
  if (type == "BPE") {
    TRY(setup_bpe(tokenizer, model, v));
  } else if (type == "WordPiece") {
    TRY(setup_word_piece(tokenizer, model, v));
    unknown_text = std::string(kMetaspace) + unknown;
  } else {
    return errorf(Code::kUnsupported,
                  "tokenizer.json: models of type '{}' are not supported; BPE and "
                  "WordPiece are",
                  type);
  }
  v.unk = find_token(v, unknown_text);
  if (v.unk >= 0) v.types[static_cast<size_t>(v.unk)] = TokenType::kUnknown;
  TRY(read_added(tokenizer, v));
  if (v.unk < 0) v.unk = find_token(v, unknown);
  TRY(read_decoder(tokenizer["decoder"], v));
  TRY(read_post_processor(tokenizer["post_processor"], v));
  v.bos = named_token(config, "bos_token", v);
  v.eos = named_token(config, "eos_token", v);
  v.pad = named_token(config, "pad_token", v);
  if (v.bos < 0 && v.prefix.size() == 1) v.bos = v.prefix[0];
  v.add_bos = v.bos >= 0 && !v.prefix.empty() && v.prefix[0] == v.bos;
  v.chat_template = read_chat_template(config);
  collect_end_tokens(v, {});
  return v;
}

}  // namespace towline::engine
