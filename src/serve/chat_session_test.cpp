// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/chat_session.hpp"

#include <gtest/gtest.h>

#include "serve/fake_generator.hpp"

namespace towline::serve {
namespace {

struct Fixture {
  explicit Fixture(FakeGenerator::Options options = {})
      : chat(text), generator(chat.sink(), std::move(options)) {
    chat.attach(generator);
  }
  Result<ChatAnswer> ask(const std::string& user, const ChatOptions& options = {}) {
    shown.clear();
    return chat.ask(user, options, [this](std::string_view s) { shown += s; }, interrupt);
  }
  std::string last_prompt() { return text.decode(generator.submitted().back().prompt); }
  FakeText text;
  ChatSession chat;
  FakeGenerator generator;
  std::atomic<bool> interrupt{false};
  std::string shown;
};

TEST(ChatSession, RemembersTheConversation) {
  Fixture f;
  f.chat.set_system("be kind");
  const ChatAnswer answer = f.ask("one").value();
  EXPECT_EQ(answer.text, "Hello from a fake.");
  EXPECT_EQ(f.shown, answer.text);
  EXPECT_EQ(answer.finish, FinishReason::kStop);
  EXPECT_EQ(answer.output_tokens, 19);
  f.ask("two").value();
  EXPECT_EQ(f.last_prompt(),
            "system: be kind\nuser: one\nassistant: Hello from a fake.\nuser: two\n"
            "assistant: ");
  f.chat.reset();
  f.chat.set_system("");
  f.ask("three").value();
  EXPECT_EQ(f.last_prompt(), "user: three\nassistant: ");
}

TEST(ChatSession, StopsAtStopTextsAndLimits) {
  Fixture f;
  ChatOptions options;
  options.stop = {" from"};
  EXPECT_EQ(f.ask("one", options).value().text, "Hello");
  options = {};
  options.max_tokens = 3;
  const ChatAnswer answer = f.ask("two", options).value();
  EXPECT_EQ(answer.text, "Hel");
  EXPECT_EQ(answer.finish, FinishReason::kLength);
}

TEST(ChatSession, AnInterruptKeepsWhatThereIs) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  Fixture f(fake);
  f.generator.step(4);
  const ChatAnswer answer = f.chat
                                .ask("one", {},
                                     [&](std::string_view s) {
                                       f.shown += s;
                                       if (f.shown == "Hell") f.interrupt = true;
                                     },
                                     f.interrupt)
                                .value();
  EXPECT_EQ(answer.text, "Hell");
  EXPECT_EQ(answer.finish, FinishReason::kCancelled);
  EXPECT_EQ(f.chat.messages()[1]["content"].as_string(), "Hell");
}

TEST(ChatSession, ForgetsTheOldestTurnsWhenFull) {
  FakeGenerator::Options fake;
  fake.context = 200;
  Fixture f(fake);
  f.chat.set_system("S");
  ChatOptions options;
  options.max_tokens = 20;
  int32_t forgotten = 0;
  for (int i = 0; i < 10; ++i) {
    const ChatAnswer answer = f.ask(format("question {}", i), options).value();
    EXPECT_LE(answer.prompt_tokens + 20, 200);
    EXPECT_GE(answer.forgotten, forgotten);
    forgotten = answer.forgotten;
    EXPECT_TRUE(f.last_prompt().starts_with("system: S\nuser: "));
    EXPECT_TRUE(f.last_prompt().ends_with(format("question {}\nassistant: ", i)));
  }
  EXPECT_GT(forgotten, 0);
}

TEST(ChatSession, AnErrorLeavesTheConversationAsItWas) {
  FakeGenerator::Options fake;
  fake.context = 100;
  Fixture f(fake);
  f.ask("one").value();
  const std::string before = f.chat.messages().dump();
  EXPECT_EQ(f.ask(std::string(500, 'a')).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(f.ask("template error").error().code(), Code::kInvalidArgument);
  f.generator.break_down();
  EXPECT_EQ(f.ask("two").error().code(), Code::kInternal);
  EXPECT_EQ(f.chat.messages().dump(), before);
}

}  // namespace
}  // namespace towline::serve
