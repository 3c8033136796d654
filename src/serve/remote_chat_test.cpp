// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/remote_chat.hpp"

#include <gtest/gtest.h>

#include "serve/test_server.hpp"

namespace towline::serve {
namespace {

Result<RemoteChat> connect(int port) {
  ServerUrl target;
  target.port = std::to_string(port);
  return RemoteChat::connect(target, "", "");
}

TEST(RemoteChat, KeepsTheConversation) {
  FakeGenerator::Options fake;
  fake.reply = "Hello there";
  TestServer server(fake);
  RemoteChat chat = connect(server.port()).value();
  chat.set_system("S");
  std::string shown;
  std::atomic<bool> interrupt{false};
  ChatOptions options;
  options.max_tokens = 5;
  const ChatAnswer answer =
      chat.ask("one", options, [&](std::string_view s) { shown += s; }, interrupt).value();
  EXPECT_EQ(answer.text, "Hello");
  EXPECT_EQ(shown, "Hello");
  EXPECT_EQ(answer.finish, FinishReason::kLength);
  EXPECT_EQ(answer.output_tokens, 5);
  EXPECT_GT(answer.prompt_tokens, 0);
  EXPECT_EQ(chat.messages().dump(),
            R"([{"role":"system","content":"S"},{"role":"user","content":"one"},)"
            R"({"role":"assistant","content":"Hello"}])");
}

TEST(RemoteChat, AnInterruptCancelsTheRequest) {
  FakeGenerator::Options fake;
  fake.reply = "Hello there";
  fake.free_running = false;
  TestServer server(fake);
  RemoteChat chat = connect(server.port()).value();
  server.generator().step(4);
  std::string shown;
  std::atomic<bool> interrupt{false};
  const ChatAnswer answer = chat.ask(
                                    "one", {},
                                    [&](std::string_view s) {
                                      shown += s;
                                      if (shown == "Hell") interrupt = true;
                                    },
                                    interrupt)
                                .value();
  EXPECT_EQ(answer.text, "Hell");
  EXPECT_EQ(answer.finish, FinishReason::kCancelled);
  EXPECT_TRUE(server.generator().wait_until(
      [](size_t live, int64_t cancels) { return live == 0 && cancels == 1; }));
}

TEST(RemoteChat, AnErrorIsTheServersSentence) {
  TestServer server;
  RemoteChat chat = connect(server.port()).value();
  std::atomic<bool> interrupt{false};
  ChatOptions options;
  options.max_tokens = 1 << 23;
  const auto answer = chat.ask("one", options, [](std::string_view) {}, interrupt);
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().to_string().find("max_tokens"), std::string::npos)
      << answer.error().to_string();
  EXPECT_EQ(chat.messages().size(), 0u);
}

}  // namespace
}  // namespace towline::serve
