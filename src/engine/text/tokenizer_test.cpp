// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "base/file.hpp"
#include "base/for_seeds.hpp"
#include "base/utf8.hpp"
#include "engine/text/pre_rules.hpp"
#include "engine/text/regex.hpp"
#include "engine/text/stop_matcher.hpp"
#include "engine/text/stream_decoder.hpp"
#include "engine/text/test_vocabulary.hpp"

namespace towline::engine {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;
using Model = Vocabulary::Model;

fs::path shared_models() {
  const char* shared = std::getenv("TOWLINE_SHARED");
  return fs::path(shared ? shared : "../shared") / "data" / "models";
}

// --- real vocabularies ---------------------------------------------------------------------------

struct Vector {
  std::string text;
  Ids ids;
};

std::vector<Vector> read_vectors(const std::string& gguf) {
  static constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  std::string texts = *read_file(gguf + ".inp");
  std::istringstream lines(*read_file(gguf + ".out"));
  std::vector<Vector> out;
  for (std::string line; std::getline(lines, line);) {
    const size_t end = std::min(texts.find(kBetween), texts.size());
    Vector v{texts.substr(0, end), {}};
    texts.erase(0, std::min(end + kBetween.size(), texts.size()));
    std::istringstream numbers(line);
    for (int32_t id; numbers >> id;) v.ids.push_back(id);
    out.push_back(std::move(v));
  }
  return out;
}

TEST(Tokenizer, VectorsOfRealVocabularies) {
  const fs::path folder = shared_models() / "vocab";
  if (!fs::exists(folder)) GTEST_SKIP() << "no vocabularies at " << folder;
  int vectors = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const auto file = ModelFile::open(entry.path());
    ASSERT_TRUE(file) << file.error().to_string();
    const auto tokenizer = Tokenizer::from_model(*file);
    ASSERT_TRUE(tokenizer) << tokenizer.error().to_string();
    for (const Vector& v : read_vectors(entry.path())) {
      EXPECT_EQ(*tokenizer->encode(v.text), v.ids) << entry.path() << ": " << v.text;
      EXPECT_EQ(tokenizer->decode(v.ids), v.text) << entry.path();
      ++vectors;
    }
  }
  EXPECT_GT(vectors, 200);
}

TEST(Tokenizer, HuggingFaceAndGgufFormsOfOneModelAgree) {
  const fs::path folder = shared_models() / "TinyStories-656K";
  if (!fs::exists(folder)) GTEST_SKIP() << "no model at " << folder;
  const auto hf_file = ModelFile::open(folder / "hf");
  const auto gguf_file = ModelFile::open(folder / "TinyStories-656K-f32.gguf");
  ASSERT_TRUE(hf_file && gguf_file);
  const auto hf = Tokenizer::from_model(*hf_file);
  const auto gguf = Tokenizer::from_model(*gguf_file);
  ASSERT_TRUE(hf && gguf);
  for (const char* text : {"Once upon a time", " a  b\n\n", "", "Lily's dog. \"Hi!\" she said."}) {
    const Ids ids = *hf->encode(text, {.add_special = true});
    EXPECT_EQ(ids, *gguf->encode(text, {.add_special = true})) << text;
    EXPECT_EQ(hf->decode(ids), text);
  }
  EXPECT_EQ(hf->eos(), gguf->eos());
}

TEST(Tokenizer, SpecialTokensOnlyWhenAsked) {
  const fs::path path = shared_models() / "vocab" / "ggml-vocab-llama-bpe.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << "no vocabulary at " << path;
  const auto file = ModelFile::open(path);
  const auto t = Tokenizer::from_model(*file);
  ASSERT_TRUE(t);
  EXPECT_EQ(*t->encode("<|eot_id|>x", {.parse_special = true}), (Ids{128009, 87}));
  EXPECT_GT(t->encode("<|eot_id|>x")->size(), 3u);
  EXPECT_EQ(t->encode("x", {.add_special = true})->front(), t->bos());
  EXPECT_TRUE(std::ranges::binary_search(t->end_tokens(), 128009));
  EXPECT_EQ(t->piece(128009), "");
  EXPECT_EQ(t->piece(128009, true), "<|eot_id|>");
}

TEST(Tokenizer, MegabyteWithoutSpaces) {
  const fs::path path = shared_models() / "vocab" / "ggml-vocab-llama-spm.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << "no vocabulary at " << path;
  const auto file = ModelFile::open(path);
  const auto t = Tokenizer::from_model(*file);
  ASSERT_TRUE(t);
  for (const char* unit : {"a", "xyz", "\xff", "\xe4\xb8\xad"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    EXPECT_EQ(t->decode(*t->encode(text)), text);
  }
}

// --- merging against the definition --------------------------------------------------------------

// BPE and SPM as defined: look at every adjacent pair, merge the best, begin again.
Ids merge_slowly(const Vocabulary& v, std::string_view text) {
  std::map<std::string, int32_t> ids;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.types[i] == TokenType::kNormal) ids[v.tokens[i]] = static_cast<int32_t>(i);
  }
  std::vector<std::string> symbols;
  for (size_t i = 0; i < text.size();) {
    const size_t n = v.byte_level ? 1 : std::max<size_t>(1, utf8_length(text, i));
    symbols.emplace_back(text.substr(i, n));
    i += n;
  }
  for (;;) {
    size_t best = symbols.size();
    double best_key = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const std::pair pair(symbols[i], symbols[i + 1]);
      double key = 0;
      if (v.model == Model::kBpe) {
        const auto at = std::find(v.merges.begin(), v.merges.end(), pair);
        if (at == v.merges.end()) continue;
        key = static_cast<double>(v.merges.end() - at);
      } else {
        const auto at = ids.find(pair.first + pair.second);
        if (at == ids.end()) continue;
        key = 1 + v.scores[static_cast<size_t>(at->second)];
      }
      if (best == symbols.size() || key > best_key) {
        best = i;
        best_key = key;
      }
    }
    if (best == symbols.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
  Ids out;
  for (const std::string& s : symbols) {
    if (ids.contains(s)) {
      out.push_back(ids[s]);
    } else {
      for (const char c : s) out.push_back(2 + static_cast<unsigned char>(c));
    }
  }
  return out;
}

TEST(Merging, BpeEqualsTheDefinitionByScanAndByHeap) {
  for_seeds(300, [](Rng& rng) {
    const Vocabulary v = random_vocabulary(rng, Model::kBpe, rng.below(2) == 0);
    BpeModel scan(v), heap(v);
    scan.scan_limit = SIZE_MAX;
    heap.scan_limit = 0;
    BpeModel::Scratch scratch;
    for (int i = 0; i < 5; ++i) {
      const std::string text = random_text(rng, 40);
      Ids a, b;
      scan.encode(text, scratch, a);
      heap.encode(text, scratch, b);
      EXPECT_EQ(a, merge_slowly(v, text));
      EXPECT_EQ(b, a);
    }
  });
}

TEST(Merging, SpmEqualsTheDefinition) {
  for_seeds(300, [](Rng& rng) {
    const Vocabulary v = random_vocabulary(rng, Model::kSpm, false);
    const SpmModel model(v);
    SpmModel::Scratch scratch;
    for (int i = 0; i < 5; ++i) {
      const std::string text = random_text(rng, 40);
      Ids ids;
      model.encode(text, scratch, ids);
      EXPECT_EQ(ids, merge_slowly(v, text));
      if (!model.words_are_independent()) continue;
      Ids by_word;
      for (std::string_view rest = text; !rest.empty();) {
        const size_t n = first_word_length(rest);
        model.encode(rest.substr(0, n), scratch, by_word);
        rest.remove_prefix(n);
      }
      EXPECT_EQ(by_word, ids);
    }
  });
}

// --- decoding ------------------------------------------------------------------------------------

TEST(Decoding, AnyBytesComeBackAndStreamsEqualTheWhole) {
  for_seeds(200, [](Rng& rng) {
    const bool bytes = rng.below(2) == 0;
    const auto t = Tokenizer::create(
        random_vocabulary(rng, bytes ? Model::kBpe : Model::kSpm, bytes));
    ASSERT_TRUE(t);
    std::string text = random_text(rng, 60);
    for (size_t i = rng.below(8); i > 0; --i) text += static_cast<char>(rng.below(256));
    const Ids ids = *t->encode(text);
    EXPECT_EQ(t->decode(ids), text);
    StreamDecoder stream(*t);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string part = stream.push(id);
      EXPECT_EQ(part, to_valid_utf8(part));
      joined += part;
    }
    EXPECT_EQ(joined + stream.flush(), to_valid_utf8(text));
  });
}

TEST(Decoding, ACharacterIsHeldUntilItIsWhole) {
  Rng rng(1);
  const auto t = Tokenizer::create(random_vocabulary(rng, Model::kSpm, false));
  StreamDecoder stream(*t);
  EXPECT_EQ(stream.push(2 + 0xf0), "");
  EXPECT_EQ(stream.push(2 + 0x9f), "");
  EXPECT_EQ(stream.push(2 + 0x98), "");
  EXPECT_EQ(stream.push(2 + 0x80), "\xf0\x9f\x98\x80");
  EXPECT_EQ(stream.push(2 + 0xe4), "");
  EXPECT_EQ(stream.push(2 + 'x'), "\xef\xbf\xbdx");
  EXPECT_EQ(stream.push(2 + 0xc3), "");
  EXPECT_EQ(stream.flush(), "\xef\xbf\xbd");
  EXPECT_EQ(stream.push(-1), "");
  EXPECT_EQ(stream.push(1 << 30), "");
}

TEST(Decoding, Utf8CouldContinueEqualsTryingEveryContinuation) {
  for (int a = 0; a < 256; ++a) {
    for (int b = -1; b < 256; ++b) {
      std::string tail(1, static_cast<char>(a));
      if (b >= 0) tail += static_cast<char>(b);
      bool possible = false;
      for (const int x : {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf}) {
        std::string whole = tail + static_cast<char>(x) + "\x80\x80";
        possible = possible || utf8_length(whole, 0) > tail.size();
      }
      EXPECT_EQ(utf8_could_continue(tail), possible) << a << " " << b;
    }
  }
}

// --- stop strings --------------------------------------------------------------------------------

TEST(StopMatcher, EqualsSearchingTheWholeText) {
  for_seeds(2000, [](Rng& rng) {
    const auto random = [&](size_t least, size_t most) {
      std::string s;
      for (size_t n = least + rng.below(most - least + 1); n > 0; --n) s += "ab"[rng.below(2)];
      return s;
    };
    std::vector<std::string> stops;
    for (size_t n = rng.below(4); n > 0; --n) stops.push_back(random(1, 5));
    const std::string text = random(0, 40);
    size_t begin = text.size(), end = std::string::npos;
    for (size_t e = 0; e <= text.size() && end == std::string::npos; ++e) {
      for (const std::string& stop : stops) {
        if (stop.size() > e || text.substr(e - stop.size(), stop.size()) != stop) continue;
        end = e;
        begin = std::min(begin, e - stop.size());
      }
    }
    StopMatcher matcher(stops);
    std::string shown;
    for (size_t at = 0; at < text.size() && !matcher.matched();) {
      const size_t n = 1 + rng.below(6);
      shown += matcher.push(std::string_view(text).substr(at, n)).text;
      EXPECT_TRUE(text.starts_with(shown));
      at += n;
    }
    EXPECT_EQ(matcher.matched(), end != std::string::npos);
    shown += matcher.flush();
    EXPECT_EQ(shown, text.substr(0, begin));
  });
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.push("one\n").text, "one");
  EXPECT_EQ(matcher.push("two\n\nUs").text, "\ntwo");
  const StopMatcher::Step step = matcher.push("er: no");
  EXPECT_TRUE(step.matched);
  EXPECT_EQ(step.text, "");
  EXPECT_EQ(step.stop, "\n\nUser:");
  StopMatcher with({"END"}, true);
  EXPECT_EQ(with.push("the END.").text, "the END");
}

// --- added tokens, rules, bad input --------------------------------------------------------------

TEST(AddedTokens, LongestFirstAndWhiteSpaceTaken) {
  Rng rng(1);
  Vocabulary v = random_vocabulary(rng, Model::kBpe, true);
  const auto add = [&](std::string text, auto change) {
    AddedToken token{.id = static_cast<int32_t>(v.tokens.size()), .text = text};
    change(token);
    add_token(v, text, TokenType::kUserDefined);
    v.added.push_back(token);
  };
  v.scores.assign(v.tokens.size(), 0);
  add("<x>", [](AddedToken&) {});
  add("<x><x>", [](AddedToken&) {});
  add("[L]", [](AddedToken& t) { t.lstrip = true; });
  add("[R]", [](AddedToken& t) { t.rstrip = true; });
  add("word", [](AddedToken& t) { t.single_word = true; });
  v.scores.clear();
  const int32_t x = v.added[0].id;
  const auto t = Tokenizer::create(std::move(v));
  ASSERT_TRUE(t) << t.error().to_string();
  const int32_t q = 2 + 'q';
  EXPECT_EQ(*t->encode("<x><x><x>"), (Ids{x + 1, x}));
  EXPECT_EQ(*t->encode("q \n [L]q"), (Ids{q, x + 2, q}));
  EXPECT_EQ(*t->encode("q[R] \n q"), (Ids{q, x + 3, q}));
  EXPECT_EQ(t->encode("swordq")->size(), 6u);
  EXPECT_EQ(*t->encode("q\xc2\xa0word[R]"), (Ids{q, 2 + 0xc2, 2 + 0xa0, x + 4, x + 3}));
}

// Each match stays far below any limit of its own, but there are half a million of them.
TEST(Regex, AllMatchesOfATextShareOneBudgetOfSteps) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "aaaaaaaaaaaaaaaaaaaaaaaaa ";
  const auto matches = [&](std::string_view pattern) -> Result<int> {
    ASSIGN_OR_RETURN(const Regex regex, Regex::compile(pattern));
    RegexScan scan(regex);
    scan.reset(text);
    for (int n = 0;; ++n) {
      ASSIGN_OR_RETURN(const RegexScan::Match match, scan.next());
      if (!match.found) return n;
    }
  };
  const auto hostile = matches("(?:a|aa)+b|a");
  ASSERT_FALSE(hostile);
  EXPECT_EQ(hostile.error().code(), Code::kExhausted);
  EXPECT_EQ(*matches(R"(\p{L}+|\s+(?!\S)|\s+)"), 40'000);
}

TEST(PreRules, EveryExpressionCompiles) {
  for (const PreRule& rule : pre_rules()) {
    for (const std::string_view expression : rule.expressions) {
      const auto regex = Regex::compile(expression);
      EXPECT_TRUE(regex) << rule.names[0] << ": " << regex.error().to_string();
    }
  }
  EXPECT_EQ(find_pre_rule("no such rule"), nullptr);
}

std::string error_of(std::map<std::string, MetaValue, std::less<>> meta) {
  static const MetaValue kAbsent;
  const auto v = vocabulary_from_gguf([&](std::string_view key) -> const MetaValue& {
    const auto at = meta.find(key);
    return at == meta.end() ? kAbsent : at->second;
  });
  if (!v) return v.error().to_string();
  const auto t = Tokenizer::create(*v);
  return t ? "" : t.error().to_string();
}

TEST(Gguf, BadMetadataIsOneSentence) {
  using Strings = std::vector<std::string_view>;
  const std::string model = "tokenizer.ggml.model", tokens = "tokenizer.ggml.tokens";
  EXPECT_NE(error_of({}).find("tokenizer.ggml.model"), std::string::npos);
  EXPECT_NE(error_of({{model, "t5"}, {tokens, Strings{"a"}}}).find("'t5'"), std::string::npos);
  EXPECT_NE(error_of({{model, "llama"}}).find(tokens), std::string::npos);
  EXPECT_NE(error_of({{model, "llama"}, {tokens, Strings{"a"}}}).find("scores"), std::string::npos);
  EXPECT_NE(error_of({{model, "llama"}, {tokens, Strings{"a"}},
                      {"tokenizer.ggml.scores", std::vector<float>{1, 2}}})
                .find("2 scores"), std::string::npos);
  EXPECT_NE(error_of({{model, "gpt2"}, {tokens, Strings{"a"}}, {"tokenizer.ggml.pre", "zzz"}})
                .find("'zzz'"), std::string::npos);
  EXPECT_NE(error_of({{model, "gpt2"}, {tokens, Strings{"a"}},
                      {"tokenizer.ggml.merges", Strings{"ab"}}})
                .find("merge 0"), std::string::npos);
  EXPECT_EQ(error_of({{model, "llama"}, {tokens, Strings{"a"}},
                      {"tokenizer.ggml.scores", std::vector<float>{0}},
                      {"tokenizer.ggml.bos_token_id", int64_t{7}}}), "");
}

// The 15th kind of vocabulary: no file of it is among the shared data,
// so the rules are checked here.
TEST(Gguf, GemmaAndBertRules) {
  using Strings = std::vector<std::string_view>;
  static const MetaValue kAbsent;
  const auto tokenizer = [](std::map<std::string, MetaValue, std::less<>> meta) {
    auto v = vocabulary_from_gguf([&](std::string_view key) -> const MetaValue& {
      const auto at = meta.find(key);
      return at == meta.end() ? kAbsent : at->second;
    });
    return *Tokenizer::create(std::move(*v));
  };
  const Tokenizer gemma =
      tokenizer({{"tokenizer.ggml.model", "gemma4"},
                 {"tokenizer.ggml.tokens", Strings{"<unk>", "a", "b", "\xe2\x96\x81",
                                                   "\xe2\x96\x81"
                                                   "a",
                                                   "\n", "\n\n", "<0xFF>"}},
                 {"tokenizer.ggml.token_type", std::vector<int64_t>{2, 1, 1, 1, 1, 1, 1, 6}},
                 {"tokenizer.ggml.unknown_token_id", int64_t{0}},
                 {"tokenizer.ggml.merges", Strings{"\xe2\x96\x81 a"}}});
  EXPECT_EQ(*gemma.encode("b a\n\nab\xff"), (Ids{2, 4, 6, 1, 2, 7}));
  EXPECT_EQ(*gemma.encode("\n\n\n"), (Ids{5, 5, 5}));
  EXPECT_EQ(gemma.decode(Ids{2, 4, 6}), "b a\n\n");

  const Tokenizer bert = tokenizer(
      {{"tokenizer.ggml.model", "bert"},
       {"tokenizer.ggml.tokens", Strings{"[UNK]", "[CLS]", "[SEP]", "\xe2\x96\x81run", "ning",
                                         "\xe2\x96\x81!", "\xe2\x96\x81\xe4\xb8\xad"}},
       {"tokenizer.ggml.token_type", std::vector<int64_t>{2, 3, 3, 1, 1, 1, 1}},
       {"tokenizer.ggml.cls_token_id", int64_t{1}},
       {"tokenizer.ggml.seperator_token_id", int64_t{2}}});
  EXPECT_EQ(*bert.encode("R\xc3\xbanning! run\xe4\xb8\xad zz", {.add_special = true}),
            (Ids{1, 3, 4, 5, 3, 6, 0, 2}));
}

TEST(HuggingFace, UnsupportedPartsAreNamed) {
  const auto error = [](std::string_view text) {
    const auto v = vocabulary_from_hf(*parse_json(text, "test"), Json());
    return v ? "" : v.error().to_string();
  };
  EXPECT_NE(error("{}").find("no model"), std::string::npos);
  EXPECT_NE(error(R"({"model":{"type":"Unigram"}})").find("'Unigram'"), std::string::npos);
  EXPECT_NE(error(R"({"normalizer":{"type":"Precompiled"},"model":{"type":"BPE","vocab":{}}})")
                .find("'Precompiled'"), std::string::npos);
  EXPECT_NE(error(R"({"model":{"type":"BPE","vocab":{"a":99999999999}}})").find("99999999999"),
            std::string::npos);
  EXPECT_NE(error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}})").find("merge 0"),
            std::string::npos);
}

}  // namespace
}  // namespace towline::engine
