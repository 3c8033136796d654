// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/choice.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"
#include "serve/fake_generator.hpp"

namespace towline::serve {
namespace {

GeneratedToken token_of(int32_t id) {
  GeneratedToken t;
  t.token = id;
  return t;
}

struct Outcome {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets;
  FinishReason finish;
  int32_t counted;
};

// Feeds bytes as tokens and takes after each, as a stream does.
Outcome feed(const std::string& bytes, const std::vector<std::string>& stops, FinishReason end) {
  Choice choice(std::make_unique<FakeStream>(), stops, true);
  Outcome out;
  const auto take = [&] {
    ChoiceDelta delta = choice.take();
    out.text += delta.text;
    for (const ShownToken& t : delta.tokens) {
      out.tokens.push_back(t.token.token);
      out.offsets.push_back(t.offset);
    }
  };
  for (const char c : bytes) {
    choice.push(token_of(static_cast<unsigned char>(c)));
    take();
  }
  choice.end(end);
  take();
  out.finish = choice.finish();
  out.counted = choice.completion_tokens();
  return out;
}

TEST(Choice, PassesTextThrough) {
  const Outcome o = feed("abc", {}, FinishReason::kLength);
  EXPECT_EQ(o.text, "abc");
  EXPECT_EQ(o.tokens.size(), 3u);
  EXPECT_EQ(o.finish, FinishReason::kLength);
  EXPECT_EQ(o.counted, 3);
}

TEST(Choice, StopStringEndsTextBeforeIt) {
  const Outcome o = feed("one two three", {"two"}, FinishReason::kLength);
  EXPECT_EQ(o.text, "one ");
  EXPECT_EQ(o.tokens.size(), 4u);
  EXPECT_EQ(o.finish, FinishReason::kStop);
  EXPECT_EQ(o.counted, 7);  // up to the token that completed the match
}

TEST(Choice, HeldBackTextComesOutWhenItWasNoStop) {
  const Outcome o = feed("a<|en", {"<|end|>"}, FinishReason::kLength);
  EXPECT_EQ(o.text, "a<|en");
  EXPECT_EQ(o.tokens.size(), 5u);
}

TEST(Choice, StopTokenIsCountedButNotShown) {
  Choice choice(std::make_unique<FakeStream>(), {}, true);
  choice.push(token_of('a'));
  GeneratedToken stop = token_of(kFakeEnd);
  stop.is_stop = true;
  choice.push(stop);
  const ChoiceDelta delta = choice.take();
  EXPECT_EQ(delta.text, "a");
  EXPECT_EQ(delta.tokens.size(), 1u);
  EXPECT_EQ(choice.completion_tokens(), 2);
  EXPECT_EQ(choice.finish(), FinishReason::kStop);
}

TEST(Choice, CharactersAreNeverSplit) {
  Choice choice(std::make_unique<FakeStream>(), {}, false);
  const std::string text = "a\xf0\x9f\x99\x82z";
  std::vector<std::string> shown;
  for (const char c : text) {
    choice.push(token_of(static_cast<unsigned char>(c)));
    shown.push_back(choice.take().text);
  }
  EXPECT_EQ(shown, (std::vector<std::string>{"a", "", "", "", "\xf0\x9f\x99\x82", "z"}));
}

TEST(Choice, OffsetsCountCharacters) {
  const Outcome o = feed("\xc3\xa9z", {}, FinishReason::kLength);
  EXPECT_EQ(o.offsets, (std::vector<int64_t>{0, 0, 1}));
}

// Oracle: of all occurrences of all stops, the one that ends first decides.
TEST(Choice, AgreesWithSearchOverTheWholeText) {
  for_seeds(500, [](Rng& rng) {
    std::string text;
    const auto length = static_cast<size_t>(rng.below(24));
    for (size_t i = 0; i < length; ++i) text += static_cast<char>('a' + rng.below(2));
    std::vector<std::string> stops(rng.below(3));
    for (std::string& stop : stops) {
      for (uint64_t n = rng.between(1, 4); n > 0; --n) {
        stop += static_cast<char>('a' + rng.below(2));
      }
    }
    size_t begin = std::string::npos, end = std::string::npos;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
        begin = at;
        end = at + stop.size();
      }
    }
    const bool stopped = begin != std::string::npos;
    const Outcome o = feed(text, stops, FinishReason::kLength);
    const std::string expected = stopped ? text.substr(0, begin) : text;
    EXPECT_EQ(o.text, expected);
    EXPECT_EQ(o.tokens.size(), expected.size());
    EXPECT_EQ(o.finish, stopped ? FinishReason::kStop : FinishReason::kLength);
    EXPECT_EQ(o.counted, static_cast<int32_t>(stopped ? end : text.size()));
  });
}

}  // namespace
}  // namespace towline::serve
