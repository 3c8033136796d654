// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "base/fmt.hpp"
#include "base/for_seeds.hpp"
#include "base/json.hpp"
#include "base/utf8.hpp"

namespace towline {
namespace {

std::string error_of(std::string_view text) {
  const Result<Json> tree = parse_toml(text, "t");
  return tree ? "accepted" : tree.error().to_string();
}

TEST(Toml, KeepsOrderAndKinds) {
  const auto j = parse_toml("z = 1\na = 2.5\n[t]\nk = [\"x\", true]\nd = 2026-11-22\n", "t");
  ASSERT_TRUE(j) << j.error().to_string();
  EXPECT_EQ(j->dump(), R"({"z":1,"a":2.5,"t":{"k":["x",true],"d":"2026-11-22"}})");
  EXPECT_NE(error_of("a = \nb = 2").find("line 1"), std::string::npos);
}

TEST(Toml, TakesLettersBeyondAsciiInQuotesAndComments) {
  const auto tree = parse_toml(
      "\xef\xbb\xbf"
      "a = \"é\" # é\n'ü' = '''ä\nö'''\n\"x\\\"é\" = 1\n\"\" = \"\"\"e\\\n  \xc2\xa0z~\"\"\"\n",
      "t");
  ASSERT_TRUE(tree) << tree.error().to_string();
  EXPECT_EQ(tree->dump(), R"({"a":"é","ü":"ä\nö","x\"é":1,"":"e)"
                          "\xc2\xa0"
                          R"(z~"})");
}

TEST(Toml, RefusesLettersBeyondAsciiElsewhere) {
  for (const char* line : {"\xcc\x89"
                           "a = 1",
                           "é = 1", "a = é", "b = 1\n[é]", "b = \"\"\"x\"\"\"\" é", "c = 1\"é\"",
                           "c = [1]\"é\"", "c = [1{\"é\"}]", "c = 1\xc2\xa0",
                           "c = 1979-05-27\xc2\xa0"
                           "07:32:00",
                           "c = '~' é", "a.é = 1", "c = tru\xc3\xa9"}) {
    const std::string error = error_of(std::string("x = 'é'\n") + line + "\ny = 'é'\n");
    EXPECT_NE(error.find("t: not valid TOML at line "), std::string::npos) << line << ": " << error;
  }
  EXPECT_NE(error_of("x = 1\ny = é\n").find("takes no letter that is not ASCII"),
            std::string::npos);
  EXPECT_EQ(error_of("x = 'é'\ny = !\n").find("ASCII"), std::string::npos);
}

TEST(Toml, AnEscapeCannotPassForALetter) {
  const auto tree = parse_toml(R"(a = "é \u007EC3 \U0000007ea9" )", "t");
  ASSERT_TRUE(tree) << tree.error().to_string();
  EXPECT_EQ((*tree)["a"].as_string(), "é ~C3 ~a9");
  std::string all = "a = \"";
  for (const char c : std::string_view("~!?^|;@&%$`")) all += format("\\u{:04x}", int{c});
  EXPECT_NE(error_of(all + "\"").find("write one of them as it is"), std::string::npos);
}

TEST(Toml, HostileTextIsOneError) {
  EXPECT_NE(error_of("a = 1\nb = \"\xff\"").find("line 2: bytes that are not UTF-8"),
            std::string::npos);
  std::string key, nested, tables;
  for (int i = 0; i < 100000; ++i) key += "a.";
  EXPECT_NE(error_of("x = 1\n" + key + "a = 1").find("line 2: more than 1000 dots"),
            std::string::npos);
  EXPECT_NE(error_of("[" + key.substr(0, 2000) + "a]").find("nested deeper than 256"),
            std::string::npos);
  for (int i = 0; i < 100000; ++i) nested += "[";
  EXPECT_NE(error_of("a = " + nested).find("not valid TOML at line 1"), std::string::npos);
  EXPECT_NE(error_of(std::string(9 << 20, '#')).find("TOML is read up to 8388608"),
            std::string::npos);
}

TEST(Toml, EveryAsciiCharacterInEveryPlaceIsReadOrRefused) {
  const std::array<const char*, 10> places = {
      "{}", "[{}", "[{}]", "[[{}", "a{}", "a.{} = 1", "a = {}", "a = [{}", "a = {{}", "a = 1{}"};
  for (const char* place : places) {
    for (int c = 1; c < 128; ++c) {
      std::string text = place;
      text.replace(text.find("{}"), 2, 1, static_cast<char>(c));
      const auto tree = parse_toml(text, "t");
      EXPECT_TRUE(tree || tree.error().to_string().find("at line ") != std::string::npos) << text;
    }
  }
}

TEST(Toml, ManyKeysAreReadInLinearTime) {
  std::string text;
  for (int i = 0; i < 50000; ++i) text += format("k{} = {}\n", i, i);
  const auto tree = parse_toml(text, "t");
  ASSERT_TRUE(tree);
  EXPECT_EQ(tree->size(), 50000u);
  EXPECT_EQ(tree->members().back().first, "k49999");
}

// Writes random TOML together with the value that it stands for.
class Writer {
 public:
  explicit Writer(Rng& rng) : rng_(rng) {}

  std::string document(Json& value) {
    value = Json::object();
    std::string text;
    for (int keys = pick(5); keys > 0; --keys) text += line(value);
    for (int tables = pick(3); tables > 0; --tables) {
      std::string name;
      const std::string key = new_key(value, name);
      Json table = Json::object();
      text += "[ " + key + " ]" + comment() + "\n";
      for (int keys = pick(4); keys > 0; --keys) text += line(table);
      value.set(name, std::move(table));
    }
    return text;
  }

  int pick(int n) { return static_cast<int>(rng_.below(static_cast<uint64_t>(n))); }

 private:
  std::string letters() {
    static const std::vector<std::string> kAlphabet = {
        "a", "Z", "7", " ", "~", "!", "C3", "#",        "=",  "[",        "]",      "{",
        "}", ",", ".", "é", "ü", "ʰ", "中", "\xc2\xa0", "😀", "\xcc\x89", "~C3~A9", "\xe2\x80\xa8"};
    std::string out;
    for (int n = pick(6); n > 0; --n) out += kAlphabet[static_cast<size_t>(pick(24))];
    return out;
  }
  // One of TOML's four ways to write a string; multi-line ones only where values stand.
  std::string quoted(std::string& value, bool multi_line) {
    value = letters();
    const int kind = pick(multi_line ? 4 : 2);
    const std::array<const char*, 4> quotes = {"\"", "'", "\"\"\"", "'''"};
    const std::string quote = quotes[static_cast<size_t>(kind)];
    std::string inner = value;
    if (kind % 2 == 0) {
      const std::array<std::array<const char*, 2>, 4> extra = {
          {{"\\\"", "\""}, {"\\u007E", "~"}, {"\\u00e9", "é"}, {"\\U0000007ea9", "~a9"}}};
      const auto& more = extra[static_cast<size_t>(pick(4))];
      inner += more[0];
      value += more[1];
    }
    if (kind >= 2) {
      const std::string tail = letters();
      value +=
          inner.empty() ? tail : "\n" + tail;  // a line break right after the quotes is dropped
      inner += "\n" + tail;
    }
    if (kind == 2 && pick(2) == 0) {
      inner += "\\\n   z";
      value += "z";
    }
    return quote + inner + quote;
  }
  std::string new_key(const Json& table, std::string& name) {
    std::string text;
    do {
      text = pick(3) == 0 ? name = format("k{}", pick(100)) : quoted(name, false);
    } while (table.contains(name));
    return text;
  }
  std::string comment() { return pick(2) == 0 ? "" : " # " + letters() + "\"'"; }
  std::string scalar(Json& value) {
    std::string inner;
    switch (pick(4)) {
      case 0: value = Json(pick(1000)); return format("{}", value.as_int());
      case 1: value = Json(pick(2) == 0); return value.as_bool() ? "true" : "false";
      case 2: value = Json(pick(64) / 4.0 + 0.125); return format("{}", value.as_double());
      default:
        const std::string text = quoted(inner, true);
        value = Json(inner);
        return text;
    }
  }
  std::string line(Json& table) {
    std::string name;
    const std::string key = new_key(table, name);
    Json value;
    std::string text = key + " = ";
    if (const int kind = pick(4); kind == 0) {
      value = Json::array();
      text += "[";
      for (int n = pick(4); n > 0; --n) {
        Json item;
        text += comment() + "\n " + scalar(item) + ",";
        value.push(std::move(item));
      }
      text += "]";
    } else if (kind == 1) {
      value = Json::object();
      std::string inner_name;
      const std::string inner_key = new_key(value, inner_name);
      Json item;
      text += "{ " + inner_key + " = " + scalar(item) + " }";
      value.set(inner_name, std::move(item));
    } else {
      text += scalar(value);
    }
    table.set(name, std::move(value));
    return text + comment() + "\n";
  }

  Rng& rng_;
};

TEST(Toml, ReadsWhatWasWritten) {
  for_seeds(500, [](Rng& rng) {
    Json value;
    const std::string text = Writer(rng).document(value);
    const auto tree = parse_toml(text, "t");
    ASSERT_TRUE(tree) << tree.error().to_string() << "\n" << text;
    EXPECT_EQ(tree->dump(), value.dump()) << text;
  });
}

// One thing put in at any place: read, or refused with its line; never anything that is not UTF-8.
TEST(Toml, DamagedTextIsReadOrRefused) {
  int refused = 0;
  for_seeds(1000, [&](Rng& rng) {
    Json value;
    Writer writer(rng);
    std::string text = writer.document(value);
    const std::array<std::string, 8> thorns = {"é", "\"", "'", "\n", "]", "\xcc\x89", "{", "\xff"};
    const std::string& thorn = thorns[static_cast<size_t>(writer.pick(8))];
    text.insert(static_cast<size_t>(writer.pick(static_cast<int>(text.size()) + 1)), thorn);
    const auto tree = parse_toml(text, "t");
    if (!tree) {
      ++refused;
      EXPECT_NE(tree.error().to_string().find("at line "), std::string::npos) << text;
      return;
    }
    const auto again = parse_json(tree->dump(), "dump");
    ASSERT_TRUE(again) << text;
    EXPECT_EQ(again->dump(), tree->dump()) << text;
  });
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace towline
