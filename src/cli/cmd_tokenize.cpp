// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/utf8.hpp"
#include "cli/commands.hpp"
#include "engine/text/tokenizer.hpp"

namespace towline::cli {
namespace {

using engine::Tokenizer;

std::string read_stdin() {
  std::string text;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0;) text.append(buffer, n);
  return text;
}

Result<Tokenizer> open_tokenizer(const std::string& path) {
  if (path.ends_with(".json")) {
    ASSIGN_OR_RETURN(const Json description, load_json(path));
    ASSIGN_OR_RETURN(engine::Vocabulary vocabulary,
                     engine::vocabulary_from_hf(description, Json()));
    return Tokenizer::create(std::move(vocabulary));
  }
  ASSIGN_OR_RETURN(const engine::ModelFile file, engine::ModelFile::open(path));
  return Tokenizer::from_model(file);
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// --- tokenize ------------------------------------------------------------------------------------

struct TokenizeOptions {
  std::string model, text, file;
  bool lines = false, texts = false, special = false, add_special = false, json = false;
};

OptionTable tokenize_table(TokenizeOptions& o) {
  OptionTable t("tokenize", "Turn text into token ids.");
  t.describe(
      "The text is the argument, or the whole of --file ('-': standard input), byte for byte.");
  t.positional("model", &o.model,
               "GGUF file (a vocabulary alone will do), Hugging Face directory, or tokenizer.json")
      .required();
  t.positional("text", &o.text, "the text");
  t.value("file", &o.file, "read the text from this file; - is standard input").metavar("F");
  t.flag("lines", &o.lines, "tokenize each line by itself");
  t.flag("texts", &o.texts, "the text is a JSON list of texts: tokenize each by itself");
  t.flag("special", &o.special, "'<|im_end|>' in the text is that token, not nine characters");
  t.flag("add-bos", &o.add_special, "add the tokens that the model expects around a text");
  t.flag("json", &o.json, "print a list of ids; with --lines or --texts, one list a line");
  t.example("towline tokenize model.gguf \"Hello world\"");
  t.example("towline tokenize model.gguf --file prompts.txt --lines --json");
  return t;
}

void print_tokens(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool json) {
  if (json) {
    Json list = Json::array();
    for (const int32_t id : ids) list.push(id);
    std::puts(list.dump().c_str());
    return;
  }
  for (const int32_t id : ids) {
    std::string shown;
    append_json_string(shown, tokenizer.piece(id, true));
    std::puts(format("{:>7}  {}", id, shown).c_str());
  }
}

Result<int> run_tokenize(std::span<const std::string> args) {
  TokenizeOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, tokenize_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  std::string text = o.text;
  if (o.file == "-") {
    text = read_stdin();
  } else if (!o.file.empty()) {
    ASSIGN_OR_RETURN(text, read_file(o.file));
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, open_tokenizer(o.model));
  const engine::EncodeOptions encode{.add_special = o.add_special, .parse_special = o.special};
  std::vector<std::string_view> texts = {text};
  Json list;
  if (o.lines) texts = split_lines(text);
  if (o.texts) {
    ASSIGN_OR_RETURN(list, parse_json(text, "--texts"));
    texts.clear();
    for (const Json& item : list.items()) texts.push_back(item.as_string());
  }
  bool first = true;
  for (const std::string_view one : texts) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.encode(one, encode));
    if (!first && !o.json) std::puts("");
    first = false;
    print_tokens(tokenizer, ids, o.json);
  }
  return 0;
}

// --- detokenize ----------------------------------------------------------------------------------

struct DetokenizeOptions {
  std::string model, file;
  std::vector<std::string> ids;
  bool special = false, json = false;
};

OptionTable detokenize_table(DetokenizeOptions& o) {
  OptionTable t("detokenize", "Turn token ids into text.");
  t.positional("model", &o.model,
               "GGUF file (a vocabulary alone will do), Hugging Face directory, or tokenizer.json")
      .required();
  t.positional("ids", &o.ids, "token ids");
  t.value("file", &o.file, "read a JSON list of ids from this file; - is standard input")
      .metavar("F");
  t.flag("special", &o.special, "print control tokens by name instead of leaving them out");
  t.flag("json", &o.json, "print {\"text\": ...}; invalid UTF-8 becomes U+FFFD");
  t.example("towline detokenize model.gguf 9906 1917");
  t.example("towline tokenize model.gguf Hello --json | towline detokenize model.gguf --file -");
  return t;
}

Result<int32_t> parse_id(const std::string& word, int32_t vocab) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
  if (error != std::errc() || end != word.data() + word.size() || id < 0 || id >= vocab) {
    return errorf(Code::kInvalidArgument, "'{}' is not a token id; this model has ids 0 to {}",
                  word, vocab - 1);
  }
  return id;
}

// The ids of a JSON list as words, so that both sources are checked in one place.
Result<void> add_ids_from_file(const std::string& path, std::vector<std::string>& words) {
  std::string text;
  if (path == "-") {
    text = read_stdin();
  } else {
    ASSIGN_OR_RETURN(text, read_file(path));
  }
  ASSIGN_OR_RETURN(const Json list, parse_json(text, path == "-" ? "standard input" : path));
  if (!list.is_array()) {
    return errorf(Code::kInvalidArgument, "{}: not a JSON list of token ids", path);
  }
  for (const Json& item : list.items()) words.push_back(item.dump());
  return {};
}

Result<int> run_detokenize(std::span<const std::string> args) {
  DetokenizeOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, detokenize_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, open_tokenizer(o.model));
  if (!o.file.empty()) TRY(add_ids_from_file(o.file, o.ids));
  std::vector<int32_t> ids;
  for (const std::string& word : o.ids) {
    ASSIGN_OR_RETURN(const int32_t id, parse_id(word, tokenizer.vocab_size()));
    ids.push_back(id);
  }
  const std::string text = tokenizer.decode(ids, {.special = o.special});
  if (o.json) {
    std::puts(Json::object({{"text", to_valid_utf8(text)}}).dump().c_str());
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fputc('\n', stdout);
  }
  return 0;
}

}  // namespace

const Command kTokenize = {"tokenize", "turn text into token ids", run_tokenize,
                           [](void (*sink)(const OptionTable&)) {
                             TokenizeOptions o;
                             sink(tokenize_table(o));
                           }};
const Command kDetokenize = {"detokenize", "turn token ids into text", run_detokenize,
                             [](void (*sink)(const OptionTable&)) {
                               DetokenizeOptions o;
                               sink(detokenize_table(o));
                             }};

}  // namespace towline::cli
