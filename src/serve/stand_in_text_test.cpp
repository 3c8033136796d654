// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/stand_in_text.hpp"

#include <gtest/gtest.h>

#include "base/for_seeds.hpp"

namespace towline::serve {
namespace {

TEST(StandInText, TextOfAnyBytesComesBack) {
  const auto text = StandInText::create(32000);
  ASSERT_TRUE(text);
  for_seeds(100, [&](Rng& rng) {
    std::string bytes;
    for (uint64_t i = rng.below(50); i > 0; --i) bytes += static_cast<char>(rng.below(256));
    const auto tokens = (*text)->encode(bytes, false, false);
    ASSERT_TRUE(tokens);
    EXPECT_EQ(tokens->size(), bytes.size());
    EXPECT_EQ((*text)->decode(*tokens), bytes);
  });
}

TEST(StandInText, StreamsWholeCharactersAndPrintsEveryToken) {
  const auto text = StandInText::create(32000);
  ASSERT_TRUE(text);
  const auto stream = (*text)->stream(false);
  const auto tokens = (*text)->encode("\xc3\xa9", false, false);  // one character of two bytes
  ASSERT_TRUE(tokens && tokens->size() == 2);
  EXPECT_EQ(stream->push((*tokens)[0]), "");
  EXPECT_EQ(stream->push((*tokens)[1]), "\xc3\xa9");
  EXPECT_EQ(stream->push(31999), " t31999");
  EXPECT_EQ(stream->push(40000), "");
  EXPECT_EQ(stream->flush(), "");
  for (int32_t t = 3; t < 32000; ++t) ASSERT_FALSE((*text)->piece(t).empty()) << t;
}

TEST(StandInText, SmallVocabularyIsRefused) {
  EXPECT_EQ(StandInText::create(259).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace towline::serve
