// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/test_server.hpp"

namespace towline::serve {
namespace {

TEST(HttpServer, ServesHealthAndModels) {
  TestServer server;
  Client client = server.client();
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.get("/health/live").json()["status"].as_string(), "live");
  EXPECT_EQ(client.get("/health/ready").json()["status"].as_string(), "ready");
  const Answer models = client.get("/v1/models");  // the same connection throughout
  EXPECT_EQ(models.status, 200);
  EXPECT_EQ(models.json()["data"][0]["id"].as_string(), "fake");
  EXPECT_EQ(client.get("/v1/models/fake").json()["object"].as_string(), "model");
  EXPECT_EQ(client.get("/v1/models/other").status, 404);
}

TEST(HttpServer, CompletesWholeAndStreamed) {
  TestServer server;
  Client client = server.client();
  const Answer whole = client.post("/v1/completions", R"({"prompt":"hi","max_tokens":5})");
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(whole.json()["choices"][0]["text"].as_string(), "Hello");
  EXPECT_EQ(whole.json()["choices"][0]["finish_reason"].as_string(), "length");
  EXPECT_EQ(whole.json()["usage"]["completion_tokens"].as_int(), 5);
  EXPECT_EQ(whole.json()["usage"]["prompt_tokens"].as_int(), 3);

  const Answer streamed = client.post(
      "/v1/completions",
      R"({"prompt":"hi","max_tokens":100,"stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_EQ(streamed.status, 200);
  ASSERT_TRUE(streamed.complete);
  std::string text;
  const auto events = streamed.events();
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    text += parse_json(events[i], "event").value()["choices"][0]["text"].as_string();
  }
  EXPECT_EQ(text, "Hello from a fake.");
  const Json usage = parse_json(events[events.size() - 2], "event").value();
  EXPECT_EQ(usage["choices"].size(), 0u);
  EXPECT_EQ(usage["usage"]["completion_tokens"].as_int(), 19);
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  Client client = server.client();
  std::string all;
  for (int i = 0; i < 20; ++i) {
    const std::string body = format(R"({{"prompt":"{}","max_tokens":{}}})", i, i % 5 + 1);
    all += format("POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r{}\r\n"
                  "content-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
                  i, body.size(), body);
  }
  client.send(all);
  for (int i = 0; i < 20; ++i) {
    const Answer answer = client.read();
    ASSERT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("x-request-id"), format("r{}", i));
    EXPECT_EQ(answer.json()["usage"]["completion_tokens"].as_int(), i % 5 + 1);
  }
}

}  // namespace
}  // namespace towline::serve
