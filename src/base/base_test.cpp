// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "base/base64.hpp"
#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"
#include "base/html.hpp"
#include "base/id_index.hpp"
#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/options.hpp"
#include "base/printable.hpp"
#include "base/result.hpp"
#include "base/ring.hpp"
#include "base/units.hpp"

namespace towline {
namespace {

TEST(Result, EveryCodeHasItsOwnNameStatusAndExitCode) {
  std::set<std::string_view> names;
  std::set<int> exits, statuses;
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const auto code = static_cast<Code>(i);
    names.insert(code_name(code));
    exits.insert(exit_code(code));
    statuses.insert(http_status(code));
    EXPECT_GT(exit_code(code), 0);
    EXPECT_LT(exit_code(code), 126);
    EXPECT_GE(http_status(code), 400);
  }
  EXPECT_EQ(names.size(), 12u);
  EXPECT_EQ(exits.size(), 12u);
  EXPECT_EQ(statuses.size(), 12u);
}

Result<int> half(int v) {
  if (v % 2 != 0) return errorf(Code::kInvalidArgument, "{} is odd", v);
  return v / 2;
}
Result<int> quarter(int v) {
  ASSIGN_OR_RETURN(const int h, half(v));
  TRY(half(h).context("second half"));
  return h / 2;
}

TEST(Result, PropagatesValuesAndContext) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(7).error().to_string(), "7 is odd");
  EXPECT_EQ(quarter(6).error().to_string(), "second half: 3 is odd");
  EXPECT_EQ(std::move(quarter(6)).context("outer").error().to_string(),
            "outer: second half: 3 is odd");
}

TEST(Json, RoundTripsWhatItParses) {
  const std::string text =
      R"({"b":1,"a":[true,null,-2.5,"x\n\u00e9",9223372036854775807],"o":{"z":1,"y":{}}})";
  Result<Json> j = parse_json(text, "test");
  ASSERT_TRUE(j) << j.error().to_string();
  EXPECT_EQ((*j)["a"][4].as_int(), 9223372036854775807);
  EXPECT_EQ(j->members()[0].first, "b");
  EXPECT_EQ(*parse_json(j->dump(), "again"), *j);
  EXPECT_EQ(*parse_json(j->dump(2), "again"), *j);
}

TEST(Json, RefusesHostileText) {
  EXPECT_FALSE(parse_json(std::string(100000, '['), "deep"));
  EXPECT_FALSE(parse_json("{\"a\":\"\xff\"}", "utf8"));
  EXPECT_FALSE(parse_json("{} x", "trailing"));
  EXPECT_FALSE(parse_json("", "empty"));
  EXPECT_EQ((*parse_json(R"({"a":1,"b":2,"a":3})", "dup"))["a"].as_int(), 3);
  const std::string overflow = parse_json("[1e999]", "t").error().to_string();
  EXPECT_NE(overflow.find(": number overflow parsing '1e999'"), std::string::npos) << overflow;
}

struct Fields {
  int port = 8080;
  double rate = 1.5;
  std::string model;
  bool verbose = false;
  std::vector<int> batch = {1};
};

Result<ParseOutcome> parse(Fields& f, std::vector<std::string> args) {
  OptionTable table("demo", "A demo.");
  table.positional("model", &f.model, "the model").required();
  table.value("port", &f.port, "a port").range(0, 65535);
  table.value("rate", &f.rate, "a rate");
  table.value("batch", &f.batch, "sizes");
  table.flag("verbose", &f.verbose, "talk");
  return table.parse(args);
}

TEST(Options, FlagsReachFields) {
  Fields f;
  ASSERT_TRUE(parse(f, {"m.gguf", "--port", "9", "--batch", "1,8,32", "--verbose"}));
  EXPECT_EQ(f.model, "m.gguf");
  EXPECT_EQ(f.port, 9);
  EXPECT_EQ(f.batch, (std::vector<int>{1, 8, 32}));
  EXPECT_TRUE(f.verbose);
}

TEST(Options, APositionalMayComeAfterAnOption) {
  Fields f;
  const auto outcome = parse(f, {"--port", "9", "--batch", "1,8", "m.gguf"});
  ASSERT_TRUE(outcome) << outcome.error().to_string();
  EXPECT_EQ(f.model, "m.gguf");
  EXPECT_EQ(f.port, 9);
  EXPECT_EQ(f.batch, (std::vector<int>{1, 8}));
}

TEST(Options, ChosenWordsMayBeSeparatedByCommas) {
  std::vector<std::string> chosen, free;
  OptionTable table("test", "A test.");
  table.value("only", &chosen, "which").one_of({"C1", "C2", "C3"});
  table.value("name", &free, "any");
  const std::vector<std::string> args = {"--only", "C1,C3", "--only", "C2", "--name", "a,b"};
  ASSERT_TRUE(table.parse(args));
  EXPECT_EQ(chosen, (std::vector<std::string>{"C1", "C3", "C2"}));
  EXPECT_EQ(free, std::vector<std::string>{"a,b"});
  const std::vector<std::string> wrong = {"--only", "C1,C4"};
  EXPECT_NE(table.parse(wrong).error().to_string().find("C4"), std::string::npos);
}

TEST(Options, WhatWasGivenIsKnown) {
  Fields f;
  OptionTable table("test", "A test.");
  table.value("port", &f.port, "a port");
  table.value("rate", &f.rate, "a rate");
  const std::vector<std::string> args = {"--port", std::to_string(f.port)};
  ASSERT_TRUE(table.parse(args));
  EXPECT_TRUE(table.given("port"));  // though it is the default
  EXPECT_FALSE(table.given("rate"));
  EXPECT_FALSE(table.given("nothing"));
}

TEST(Options, EachMistakeIsNamed) {
  const auto message = [](std::vector<std::string> args) {
    Fields f;
    const auto outcome = parse(f, std::move(args));
    return outcome ? std::string("accepted") : outcome.error().to_string();
  };
  EXPECT_NE(message({"m", "--port", "70000"}).find("--port: 70000 is out of range"),
            std::string::npos);
  EXPECT_NE(message({"m", "--port", "x"}).find("'x' is not a whole number"), std::string::npos);
  EXPECT_NE(message({"m", "--batch", "1,99999999999"}).find("--batch: 99999999999 is out of range"),
            std::string::npos);
  EXPECT_NE(message({"m", "--rate", "nan"}).find("not a number"), std::string::npos);
  EXPECT_NE(message({"m", "--nope"}).find("nope"), std::string::npos);
  EXPECT_NE(message({}).find("model is needed"), std::string::npos);
}

TEST(File, WritesWholeOrNotAtAll) {
  const std::string dir = ::testing::TempDir() + "towline_file";
  std::filesystem::create_directories(dir);
  ASSERT_TRUE(write_file_atomic(dir + "/a", "hello"));
  EXPECT_EQ(*read_file(dir + "/a"), "hello");
  EXPECT_EQ(read_file(dir + "/missing").error().code(), Code::kNotFound);
  EXPECT_FALSE(read_file(dir));
  EXPECT_FALSE(write_file_atomic(dir + "/no/such", "x"));
  Result<MappedFile> map = MappedFile::open(dir + "/a");
  ASSERT_TRUE(map);
  EXPECT_EQ(map->bytes().size(), 5u);
  ASSERT_EQ(::mkfifo((dir + "/pipe").c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::open(dir + "/pipe").error().code(),Code::kInvalidArgument);
  // What is no file is not replaced by one.
  const int reader = ::open((dir + "/pipe").c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_TRUE(write_file_atomic(dir + "/pipe", "hello"));
  char said[16] = {};
  EXPECT_EQ(::read(reader, said, sizeof said), 5);
  EXPECT_STREQ(said, "hello");
  ::close(reader);
  EXPECT_TRUE(std::filesystem::is_fifo(dir + "/pipe"));
  EXPECT_EQ(MappedFile::open("/dev/zero").error().code(), Code::kInvalidArgument);
  std::filesystem::remove_all(dir);
}

TEST(Ring, KeepsOrderAcrossThreads) {
  SpscRing<int> ring(8);
  std::thread producer([&] {
    for (int i = 0; i < 10000; ++i) {
      while (!ring.try_push(i)) std::this_thread::yield();
    }
  });
  for (int expected = 0; expected < 10000;) {
    if (std::optional<int> got = ring.try_pop()) {
      ASSERT_EQ(*got, expected++);
    } else {
      std::this_thread::yield();
    }
  }
  producer.join();
}

TEST(Rng, IsAFunctionOfSeedAndPosition) {
  for_seeds(20, [](Rng& rng) {
    const uint64_t n = 1 + rng.below(1000);
    EXPECT_LT(rng.below(n), n);
    EXPECT_LT(rng.unit(), 1.0);
  });
  EXPECT_EQ(random_at(7, 3), random_at(7, 3));
  EXPECT_NE(random_at(7, 3), random_at(7, 4));
  EXPECT_NE(random_at(7, 3), random_at(8, 3));
}

TEST(Base64, TheRfcsExamplesBothWays) {  // RFC 4648, section 10
  const std::pair<const char*, const char*> cases[] = {{"", ""},         {"f", "Zg=="},
                                                       {"fo", "Zm8="},   {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(base64_encode(bytes), text);
    ASSERT_TRUE(base64_decode(text)) << text;
    EXPECT_EQ(*base64_decode(text), bytes);
  }
  for (const char* bad :
       {"Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v\n", "Z\xff=="}) {
    EXPECT_FALSE(base64_decode(bad)) << bad;
  }
}

TEST(Base64, AnyBytesComeBack) {
  for_seeds(50, [](Rng& rng) {
    std::string bytes(rng.below(100), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    const Result<std::string> back = base64_decode(base64_encode(bytes));
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, bytes);
  });
}

TEST(IdIndex, IsAMap) {
  for_seeds(50, [](Rng& rng) {
    IdIndex<SeqId> index;
    std::map<SeqId, int32_t> expected;
    const uint64_t range = 1 + rng.below(300);
    for (int i = 0; i < 2000; ++i) {
      const SeqId id(static_cast<int64_t>(rng.below(range)) - 100);
      const auto known = expected.find(id);
      ASSERT_EQ(index.find(id), known == expected.end() ? -1 : known->second);
      if (rng.below(2) == 0) {
        ASSERT_EQ(index.erase(id), expected.erase(id) == 1);
      } else if (known == expected.end()) {
        index.add(id, i);
        expected.emplace(id, i);
      }
      ASSERT_EQ(index.size(), expected.size());
    }
    for (const auto& [id, place] : expected) EXPECT_EQ(index.find(id), place);
  });
}

TEST(Html, EscapesWhatEndsTextOrAnAttribute) {
  EXPECT_EQ(html_escaped("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&#39;");
  EXPECT_EQ(html_escaped(""), "");
}

TEST(Printable, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(printable("h\xc3\xa9 \x1b[31m\n\xff\x7f"), "h\xc3\xa9 \\x1b[31m\\x0a\\xff\\x7f");
  EXPECT_EQ(printable(""), "");
}

TEST(Units, ArithmeticKeepsTheUnit) {
  EXPECT_EQ((Tokens(3) + Tokens(4)).value, 7);
  EXPECT_EQ(Instant{5} + nanoseconds(3), Instant{8});
  EXPECT_EQ(format("{}", NodeId(4)), "4");
}

}  // namespace
}  // namespace towline
