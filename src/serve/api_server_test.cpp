// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The API over real sockets and a fake model of bytes, whose answer is "Hello from a fake.".
#include "serve/api_server.hpp"

#include <poll.h>

#include <fstream>

#include "serve/test_server.hpp"

namespace towline::serve {
namespace {

constexpr const char* kChatPath = "/v1/chat/completions";
constexpr const char* kTextPath = "/v1/completions";

Json event_json(const std::string& text) { return parse_json(text, "event").value_or(Json()); }

std::string error_code(const Answer& answer) {
  return answer.json()["error"]["code"].as_string();
}

TEST(Api, ServesModelsAndProbes) {
  TestServer server;
  Client client = server.client();
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.get("/health/live").json()["status"].as_string(), "live");
  EXPECT_EQ(client.get("/health/ready").json()["status"].as_string(), "ready");
  EXPECT_EQ(client.get("/v1/models").json()["data"][0]["id"].as_string(), "fake");
  EXPECT_EQ(client.get("/v1/models/fake").json()["max_model_len"].as_int(), 4096);
  EXPECT_EQ(error_code(client.get("/v1/models/other")), "model_not_found");
  EXPECT_TRUE(client.get("/version").json()["version"].is_string());
  EXPECT_EQ(client.get("/openapi.json").json()["openapi"].as_string(), "3.1.0");
}

TEST(Api, AdaptersAreModelsThatComeAndGo) {
  TestServer closed;
  constexpr const char* kLoad = "/v1/load_lora_adapter";
  constexpr const char* kUnload = "/v1/unload_lora_adapter";
  constexpr const char* kTuned = R"({"lora_name":"tuned","lora_path":"/a/b"})";
  EXPECT_EQ(closed.client().post(kLoad, kTuned).status, 403);
  ApiServerOptions options;
  options.lora_updates = true;
  TestServer server({}, options);
  Client client = server.client();
  const auto ask = [&] {
    return client.post(kTextPath, R"({"model":"tuned","prompt":"hi","max_tokens":2})");
  };
  EXPECT_EQ(error_code(ask()), "model_not_found");
  EXPECT_EQ(client.post(kLoad, R"({"lora_name":"tuned"})").status, 400);
  EXPECT_EQ(client.post(kLoad, R"({"lora_name":"fake","lora_path":"/a"})").status, 400);
  EXPECT_EQ(client.post(kLoad, R"({"lora_name":"x","lora_path":"none"})").status, 404);
  EXPECT_EQ(client.post(kLoad, "not json").status, 400);
  EXPECT_EQ(client.post(kLoad, kTuned).status, 200);
  const Json list = client.get("/v1/models").json()["data"];
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[1]["id"].as_string(), "tuned");
  EXPECT_EQ(list[1]["parent"].as_string(), "fake");
  EXPECT_EQ(client.get("/v1/models/tuned").status, 200);
  const Answer answer = ask();
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json()["model"].as_string(), "tuned");
  EXPECT_EQ(server.generator().submitted().back().adapter, "tuned");
  client.post(kTextPath, R"({"model":"fake","prompt":"hi","max_tokens":2})");
  EXPECT_EQ(server.generator().submitted().back().adapter, "");
  EXPECT_EQ(client.post(kUnload, kTuned).status, 200);
  EXPECT_EQ(client.post(kUnload, kTuned).status, 404);
  EXPECT_EQ(error_code(ask()), "model_not_found");
}

TEST(Api, CompletesAText) {
  TestServer server;
  const Answer answer =
      server.client().post(kTextPath, R"({"model":"fake","prompt":"hi","max_tokens":5})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json body = answer.json();
  EXPECT_EQ(body["object"].as_string(), "text_completion");
  EXPECT_EQ(body["choices"][0]["text"].as_string(), "Hello");
  EXPECT_EQ(body["choices"][0]["finish_reason"].as_string(), "length");
  EXPECT_EQ(body["usage"]["prompt_tokens"].as_int(), 3);  // BOS, h, i
  EXPECT_EQ(body["usage"]["completion_tokens"].as_int(), 5);
  EXPECT_EQ(body["usage"]["total_tokens"].as_int(), 8);
  EXPECT_TRUE(body["id"].as_string().starts_with("cmpl-"));
}

TEST(Api, Answers16TokensByDefault) {
  TestServer server;
  const Json body = server.client().post(kTextPath, R"({"prompt":"hi"})").json();
  EXPECT_EQ(body["usage"]["completion_tokens"].as_int(), 16);
}

TEST(Api, ChatsToTheModelsEnd) {
  TestServer server;
  const Json body = server.client()
                        .post(kChatPath, R"({"messages":[{"role":"user","content":"hi"}]})")
                        .json();
  EXPECT_EQ(body["choices"][0]["message"]["role"].as_string(), "assistant");
  EXPECT_EQ(body["choices"][0]["message"]["content"].as_string(), "Hello from a fake.");
  EXPECT_EQ(body["choices"][0]["finish_reason"].as_string(), "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"].as_int(), 19);  // with the end token
  EXPECT_EQ(FakeText().decode(server.generator().submitted()[0].prompt), "user: hi\nassistant: ");
}

TEST(Api, StreamsAChat) {
  TestServer server;
  const Answer answer = server.client().post(
      kChatPath, R"({"messages":[{"role":"user","content":"hi"}],"stream":true,
                     "stream_options":{"include_usage":true}})");
  ASSERT_TRUE(answer.complete);
  EXPECT_TRUE(answer.header("content-type").starts_with("text/event-stream"));
  const auto events = answer.events();
  std::string text;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const Json e = event_json(events[i]);
    const Json& delta = e["choices"][0]["delta"];
    EXPECT_EQ(delta.contains("role"), i == 0);
    EXPECT_TRUE(e.contains("usage") && e["usage"].is_null());
    text += delta["content"].as_string();
    EXPECT_EQ(e["choices"][0]["finish_reason"].is_string(), i + 3 == events.size());
  }
  EXPECT_EQ(text, "Hello from a fake.");
  const Json usage = event_json(events[events.size() - 2]);
  EXPECT_EQ(usage["choices"].size(), 0u);
  EXPECT_EQ(usage["usage"]["completion_tokens"].as_int(), 19);
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST(Api, StopStringsEndBothForms) {
  TestServer server;
  Client client = server.client();
  const Json whole =
      client.post(kTextPath, R"({"prompt":"hi","max_tokens":50,"stop":[" a"]})").json();
  EXPECT_EQ(whole["choices"][0]["text"].as_string(), "Hello from");
  EXPECT_EQ(whole["choices"][0]["finish_reason"].as_string(), "stop");
  EXPECT_EQ(whole["usage"]["completion_tokens"].as_int(), 12);
  const Answer stream =
      client.post(kTextPath, R"({"prompt":"hi","max_tokens":50,"stop":" a","stream":true})");
  std::string text;
  for (const std::string& e : stream.events()) {
    text += event_json(e)["choices"][0]["text"].as_string();
  }
  EXPECT_EQ(text, "Hello from");
}

TEST(Api, GivesNChoicesForEachPrompt) {
  TestServer server;
  const Json body =
      server.client().post(kTextPath, R"({"prompt":["a","b",[104]],"n":2,"max_tokens":3,"seed":5})")
          .json();
  ASSERT_EQ(body["choices"].size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(body["choices"][i]["index"].as_int(), static_cast<int64_t>(i));
    EXPECT_EQ(body["choices"][i]["text"].as_string(), "Hel");
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"].as_int(), 5);  // each prompt once
  EXPECT_EQ(body["usage"]["completion_tokens"].as_int(), 18);
  const auto submitted = server.generator().submitted();
  ASSERT_EQ(submitted.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(submitted[i].choice, static_cast<int32_t>(i % 2));
    EXPECT_EQ(submitted[i].sampling.seed, 5u);
  }
}

TEST(Api, AWindowOfSequencesRunsAtOnce) {
  FakeGenerator::Options fake;
  fake.capacity = 2;  // less than the window: the rest follows as places come free
  ApiServerOptions options;
  options.max_sequences = 4;
  TestServer server(fake, options);
  const Json body =
      server.client().post(kTextPath, R"({"prompt":"a","n":9,"max_tokens":3})").json();
  EXPECT_EQ(body["choices"].size(), 9u);
}

TEST(Api, ReportsLogprobsOfBothForms) {
  TestServer server;
  Client client = server.client();
  const Json text =
      client.post(kTextPath, R"({"prompt":"hi","max_tokens":3,"logprobs":2})").json();
  const Json& logprobs = text["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"].size(), 3u);
  EXPECT_EQ(logprobs["tokens"][1].as_string(), "e");
  EXPECT_EQ(logprobs["token_logprobs"][1].as_double(), -0.25);  // 'e' is 101
  EXPECT_EQ(logprobs["top_logprobs"][0].size(), 2u);
  EXPECT_EQ(logprobs["text_offset"][2].as_int(), 2);
  const Json chat = client.post(kChatPath, R"({"messages":[{"role":"user","content":"a"}],
      "max_tokens":3,"logprobs":true,"top_logprobs":2})").json();
  const Json& entry = chat["choices"][0]["logprobs"]["content"][1];
  EXPECT_EQ(entry["token"].as_string(), "e");
  EXPECT_EQ(entry["bytes"][0].as_int(), 101);
  EXPECT_EQ(entry["top_logprobs"].size(), 2u);
}

TEST(Api, EchoesThePrompt) {
  TestServer server;
  Client client = server.client();
  const Json echo =
      client.post(kTextPath, R"({"prompt":"hi ","max_tokens":5,"echo":true,"logprobs":0})").json();
  EXPECT_EQ(echo["choices"][0]["text"].as_string(), "hi Hello");
  const Json& logprobs = echo["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 9u);
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["token_logprobs"][1].is_number());
  EXPECT_EQ(logprobs["text_offset"][4].as_int(), 3);
  // The prompt alone: to score a text.
  const Json score =
      client.post(kTextPath, R"({"prompt":"hi","max_tokens":0,"echo":true,"logprobs":0})").json();
  EXPECT_EQ(score["choices"][0]["text"].as_string(), "hi");
  EXPECT_EQ(score["choices"][0]["logprobs"]["tokens"].size(), 3u);
  EXPECT_EQ(score["usage"]["completion_tokens"].as_int(), 0);
}

TEST(Api, ReturnsTokenIds) {
  TestServer server;
  const Json body =
      server.client()
          .post(kTextPath, R"({"prompt":[104,105],"max_tokens":2,"return_token_ids":true})")
          .json();
  EXPECT_EQ(body["choices"][0]["token_ids"].dump(), "[72,101]");
  EXPECT_EQ(body["choices"][0]["prompt_token_ids"].dump(), "[104,105]");
}

TEST(Api, SeedsAreTheClientsOrFresh) {
  TestServer server;
  Client client = server.client();
  client.post(kTextPath, R"({"prompt":"a","seed":-1})");
  client.post(kTextPath, R"({"prompt":"a"})");
  client.post(kTextPath, R"({"prompt":"a"})");
  const auto submitted = server.generator().submitted();
  EXPECT_EQ(submitted[0].sampling.seed, ~uint64_t{0});
  EXPECT_NE(submitted[1].sampling.seed, submitted[2].sampling.seed);
}

TEST(Api, IgnoreEosAndStopTokens) {
  TestServer server;
  Client client = server.client();
  client.post(kTextPath, R"({"prompt":"a","max_tokens":2,"ignore_eos":true,"stop_token_ids":[7]})");
  client.post(kTextPath, R"({"prompt":"a","max_tokens":2,"stop_token_ids":[7]})");
  const auto submitted = server.generator().submitted();
  EXPECT_EQ(submitted[0].stop_tokens, (std::vector<int32_t>{7}));
  EXPECT_EQ(submitted[1].stop_tokens, (std::vector<int32_t>{7, kFakeEnd}));
}

TEST(Api, Embeds) {
  TestServer server;
  Client client = server.client();
  const Json floats = client.post("/v1/embeddings", R"({"input":["a","bc"]})").json();
  ASSERT_EQ(floats["data"].size(), 2u);
  EXPECT_EQ(floats["data"][1]["embedding"][1].as_double(), 3.25);  // BOS, b, c; width 8
  EXPECT_EQ(floats["usage"]["prompt_tokens"].as_int(), 5);
  const Json base64 =
      client.post("/v1/embeddings", R"({"input":"a","encoding_format":"base64"})").json();
  // 2.0f 2.25f ... as little-endian bytes 00000040 00001040 ...
  EXPECT_TRUE(base64["data"][0]["embedding"].as_string().starts_with("AAAAQAAAEEA"))
      << base64["data"][0]["embedding"].as_string();
  EXPECT_EQ(base64["data"][0]["embedding"].as_string().size(), 44u);
  EXPECT_EQ(client.post("/v1/embeddings", R"({"input":"a","dimensions":3})").status, 400);
  EXPECT_EQ(client.post("/v1/embeddings", R"({"input":"a","dimensions":8})").status, 200);
}

TEST(Api, TokenizesBothWays) {
  TestServer server;
  Client client = server.client();
  const Json tokens =
      client.post("/tokenize", R"({"prompt":"hi","return_token_strs":true})").json();
  EXPECT_EQ(tokens["tokens"].dump(), "[256,104,105]");
  EXPECT_EQ(tokens["count"].as_int(), 3);
  EXPECT_EQ(tokens["max_model_len"].as_int(), 4096);
  EXPECT_EQ(tokens["token_strs"].dump(), R"(["<s>","h","i"])");
  const Json plain =
      client.post("/tokenize", R"({"prompt":"hi","add_special_tokens":false})").json();
  EXPECT_EQ(plain["tokens"].dump(), "[104,105]");
  const Json chat =
      client.post("/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})").json();
  EXPECT_EQ(chat["count"].as_int(), 20);
  EXPECT_EQ(client.post("/detokenize", R"({"tokens":[104,105]})").json()["prompt"].as_string(),
            "hi");
}

TEST(Api, ErrorsHaveOpenAisShape) {
  FakeGenerator::Options fake;
  fake.context = 32;
  TestServer server(fake);
  struct Case {
    std::string path, body, headers;
    int status;
    std::string code;
  };
  const std::string json = "content-type: application/json\r\n";
  const Case kCases[] = {
      {kTextPath, "{", json, 400, "invalid_json"},
      {kTextPath, "", json, 400, "invalid_json"},
      {kTextPath, "{\"prompt\":\"\xff\xfe\"}", json, 400, "invalid_json"},
      {kTextPath, R"({"prompt":"a","temperature":NaN})", json, 400, "invalid_json"},
      {kTextPath, R"({"prompt":"a","temperature":1e999})", json, 400, "invalid_json"},
      {kTextPath, std::string(100000, '['), json, 400, "invalid_json"},
      {kTextPath, "[]", json, 400, "invalid_value"},
      {kTextPath, R"({"prompt":"a"})", "", 415, "unsupported_media_type"},
      {kTextPath, R"({"prompt":"a"})", "content-type: text/plain\r\n", 415,
       "unsupported_media_type"},
      {kTextPath, R"({"prompt":"a","model":"gpt-4"})", json, 404, "model_not_found"},
      {kTextPath, R"({"prompt":"a","max_tokens":0})", json, 400, "invalid_value"},
      {kTextPath, R"({"prompt":"a","max_tokens":31})", json, 400, "context_length_exceeded"},
      {kTextPath, R"({"prompt":")" + std::string(40, 'a') + "\"}", json, 400,
       "context_length_exceeded"},
      {kTextPath, R"({"prompt":")" + std::string(100000, 'a') + "\"}", json, 400,
       "context_length_exceeded"},
      {kTextPath, R"({"prompt":[[]]})", json, 400, "invalid_value"},
      {kChatPath, R"({"messages":[{"role":"user","content":"template error"}]})", json, 400,
       "invalid_value"},
      {kChatPath, R"({"messages":[{"role":"user","content":"a"}],"tools":[{}]})", json, 400,
       "unsupported_parameter"},
      {"/v1/embeddings", R"({"input":""})", json, 200, ""},  // BOS alone
      {"/v1/nothing", "{}", json, 404, "not_found"},
      {"/v1/models", "{}", json, 405, "method_not_allowed"},
  };
  Client client = server.client();  // one connection survives them all
  for (const Case& c : kCases) {
    const Answer answer = client.post(c.path, c.body, c.headers);
    EXPECT_EQ(answer.status, c.status) << c.body.substr(0, 80) << answer.body.substr(0, 300);
    if (c.status == 200) continue;
    EXPECT_EQ(error_code(answer), c.code) << c.body.substr(0, 80);
    const Json error = answer.json()["error"];
    EXPECT_TRUE(error["message"].is_string() && error["type"].is_string() &&
                error.contains("param"));
    EXPECT_LT(answer.body.size(), 2000u);
  }
  EXPECT_EQ(client.get(kTextPath).header("allow"), "POST");
  EXPECT_EQ(client.post(kTextPath, R"({"prompt":"a","max_tokens":3})").status, 200);
}

TEST(Api, KeysGuardEveryRouteButProbes) {
  ApiServerOptions options;
  options.api_keys = {"first", "second"};
  TestServer server({}, options);
  Client client = server.client();
  for (const char* probe : {"/health", "/health/live", "/health/ready"}) {
    EXPECT_EQ(client.get(probe).status, 200);
  }
  for (const char* path : {"/v1/models", "/v1/models/fake", "/metrics", "/openapi.json", "/version",
                           "/nothing", kChatPath, "/tokenize"}) {
    const Answer refused = client.get(path);
    EXPECT_EQ(refused.status, 401) << path;
    EXPECT_EQ(error_code(refused), "invalid_api_key");
    EXPECT_NE(client.get(path, "authorization: Bearer second\r\n").status, 401) << path;
  }
  EXPECT_EQ(client.get("/v1/models", "x-api-key: first\r\n").status, 200);
  for (const char* bad :
       {"authorization: Bearer third\r\n", "authorization: Bearer \r\n", "authorization: first\r\n",
        "x-api-key: firs\r\n", "x-api-key: firstt\r\n", "authorization: Basic first\r\n"}) {
    EXPECT_EQ(client.get("/v1/models", bad).status, 401) << bad;
  }
}

TEST(Api, KeyFilesSkipCommentsAndBlankLines) {
  const std::string path = ::testing::TempDir() + format("towline-keys-{}", ::getpid());
  std::ofstream(path) << "# ours\nalpha\n\nbeta \r\n";
  EXPECT_EQ(read_key_file(path).value(), (std::vector<std::string>{"alpha", "beta"}));
  std::ofstream(path) << "# none\n";
  EXPECT_FALSE(read_key_file(path));
  std::remove(path.c_str());
  EXPECT_EQ(read_key_file(path).error().code(), Code::kNotFound);
}

TEST(Api, RequestIdsComeBack) {
  TestServer server;
  Client client = server.client();
  EXPECT_EQ(client.get("/v1/models", "x-request-id: abc-1\r\n").header("x-request-id"), "abc-1");
  const std::string made = client.get("/v1/models").header("x-request-id");
  EXPECT_TRUE(made.starts_with("req-"));
  EXPECT_NE(client.get("/v1/models").header("x-request-id"), made);
  const std::string odd = client.get("/v1/models", "x-request-id: a b\r\n").header("x-request-id");
  EXPECT_TRUE(odd.starts_with("req-"));
}

TEST(Api, CorsIsAnOption) {
  ApiServerOptions options;
  options.cors_origin = "*";
  options.api_keys = {"k"};
  TestServer server({}, options);
  Client client = server.client();
  client.send("OPTIONS /v1/models HTTP/1.1\r\nhost: x\r\norigin: http://a\r\n\r\n");
  const Answer preflight = client.read();
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.header("access-control-allow-origin"), "*");
  EXPECT_EQ(client.get("/v1/models").header("access-control-allow-origin"), "*");
  TestServer without;
  EXPECT_EQ(without.client().get("/v1/models").header("access-control-allow-origin"), "");
}

TEST(Api, AFullServerSaysWhenToComeBack) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  ApiServerOptions options;
  options.max_sequences = 1;
  options.max_queue = 1;
  TestServer server(fake, options);
  Client first = server.client(), second = server.client(), third = server.client();
  first.send_post(kTextPath, R"({"prompt":"a","max_tokens":2})");
  second.send_post(kTextPath, R"({"prompt":"a","max_tokens":2})");
  while (server.generator().submitted().size() < 2) std::this_thread::yield();
  const Answer refused = third.post(kTextPath, R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.header("retry-after"), "1");
  EXPECT_EQ(refused.json()["error"]["type"].as_string(), "rate_limit_error");
  server.generator().step(2);
  EXPECT_EQ(first.read().status, 200);
  EXPECT_EQ(second.read().status, 200);
  server.generator().step(2);
  EXPECT_EQ(third.post(kTextPath, R"({"prompt":"a","max_tokens":2})").status, 200);
}

// What became of a request is told by the id that its client chose, of refused ones too.
TEST(Api, TellsHowARequestEnded) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  ApiServerOptions options;
  options.max_sequences = 1;
  options.max_queue = 0;
  TestServer server(fake, options);
  const auto trace = [&](const std::string& id) {
    return server.client().get("/v1/requests/" + id).json();
  };
  // An answer may be read a moment before the server knows that it is.
  const auto ended = [&](const std::string& id) {
    while (trace(id)["status"].is_null()) std::this_thread::yield();
    return trace(id);
  };
  const auto post = [](Client& client, const std::string& id) {
    client.send_post(kTextPath, R"({"prompt":"a","max_tokens":2})",
                     "content-type: application/json\r\nx-request-id: " + id + "\r\n");
  };
  Client first = server.client(), second = server.client();
  post(first, "one");
  while (server.generator().stats().running != 1) std::this_thread::yield();
  EXPECT_TRUE(trace("one")["status"].is_null());
  post(second, "two");
  EXPECT_EQ(second.read().status, 429);
  EXPECT_EQ(ended("two")["status"].as_int(), 429);
  EXPECT_NE(trace("two")["error"].as_string().find("full"), std::string::npos);
  server.generator().step(2);
  const std::string id = first.read().json()["id"].as_string();
  EXPECT_EQ(ended(id)["status"].as_int(), 200);
  EXPECT_TRUE(trace(id)["error"].is_null());
  // Whoever calls his request by an answer's id does not hide that answer.
  post(second, id);
  while (server.generator().stats().running != 1) std::this_thread::yield();
  EXPECT_EQ(trace(id)["request_id"].as_string(), "one");
  second.close();
  ASSERT_TRUE(server.generator().wait_until([](size_t live, int64_t) { return live == 0; }));
}

// The generator itself may be full first.
TEST(Api, AFullGeneratorIs429Too) {
  FakeGenerator::Options fake;
  fake.capacity = 0;
  TestServer server(fake);
  const Answer refused = server.client().post(kTextPath, R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.header("retry-after"), "1");
}

TEST(Api, DisconnectCancelsWithinAStep) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  TestServer server(fake);
  for (const bool stream : {true, false}) {
    for (const bool reset : {true, false}) {
      const int64_t before = server.generator().stats().steps;
      Client client = server.client();
      client.send_post(kTextPath,
                       format(R"({{"prompt":"a","n":3,"max_tokens":9,"stream":{}}})", stream));
      while (server.generator().stats().running != 3) std::this_thread::yield();
      reset ? client.reset() : client.close();
      ASSERT_TRUE(server.generator().wait_until([](size_t live, int64_t) { return live == 0; }));
      // No token was made for it, and it took one step each at most to end the three.
      EXPECT_EQ(server.generator().stats().generation_tokens, 0);
      EXPECT_LE(server.generator().stats().steps - before, 3);
    }
  }
  EXPECT_EQ(server.client().get("/health").status, 200);
}

TEST(Api, GeneratorErrorsReachTheClient) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  TestServer server(fake);
  Client whole = server.client(), stream = server.client();
  whole.send_post(kTextPath, R"({"prompt":"a"})");
  stream.send_post(kTextPath, R"({"prompt":"a","stream":true})");
  while (server.generator().submitted().size() < 2) std::this_thread::yield();
  server.generator().break_down();
  EXPECT_EQ(whole.read().status, 500);
  const Answer answer = stream.read();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(event_json(answer.events()[0])["error"]["type"].as_string(), "server_error");
}

TEST(Api, DrainsOnSignal) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  ApiServerOptions options;
  options.drain_deadline = seconds(3600);
  TestServer server(fake, options);
  Client running = server.client();
  running.send_post(kTextPath, R"({"prompt":"a","max_tokens":3,"stream":true})");
  while (server.generator().submitted().empty()) std::this_thread::yield();
  server.on_loop([&] { server.server().drain(); });
  Client late = server.client();
  const Answer ready = late.get("/health/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.json()["status"].as_string(), "draining");
  EXPECT_EQ(server.client().get("/health/live").status, 200);
  const Answer refused = server.client().post(kTextPath, R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("retry-after"), "5");
  EXPECT_EQ(refused.header("connection"), "close");
  server.generator().step(3);
  const Answer answer = running.read();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.events().size(), 4u);
  server.join_loop();  // the loop stops by itself once nothing is left
}

// A stream that is cut off at the end is whole as HTTP, and says that it is not as an answer.
void expect_cut_in_words(const Answer& answer) {
  EXPECT_TRUE(answer.complete);
  EXPECT_NE(answer.body.find("the server was stopped before this was finished"), std::string::npos)
      << answer.body;
}

TEST(Api, ASecondSignalStopsAtOnce) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  TestServer server(fake);
  Client running = server.client();
  running.send_post(kTextPath, R"({"prompt":"a","max_tokens":3,"stream":true})");
  while (server.generator().submitted().empty()) std::this_thread::yield();
  server.on_loop([&] { server.server().drain(); });
  server.on_loop([&] { server.server().drain(); });
  server.join_loop();
  expect_cut_in_words(running.read());
}

TEST(Api, TheDrainDeadlineCutsWhatIsLeft) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  ApiServerOptions options;
  options.drain_deadline = milliseconds(10);
  TestServer server(fake, options);
  Client running = server.client();
  running.send_post(kTextPath, R"({"prompt":"a","max_tokens":3,"stream":true})");
  while (server.generator().submitted().empty()) std::this_thread::yield();
  server.on_loop([&] { server.server().drain(); });
  server.join_loop();
  expect_cut_in_words(running.read());
}

// The headline: a thousand streams on one I/O thread, every one whole.
TEST(Api, AThousandStreamsAtOnce) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  fake.reply = "abcdefghijklmnopqrst";
  ApiServerOptions options;
  options.max_sequences = 2000;
  TestServer server(fake, options);
  constexpr int kStreams = 1000;
  std::vector<Client> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(server.client());
    clients.back().send_post(
        kChatPath,
        R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":20,"stream":true})");
  }
  while (server.generator().submitted().size() < kStreams) std::this_thread::yield();
  server.generator().step(20);  // every stream gets a token at each of twenty steps
  int whole = 0;
  for (Client& client : clients) {
    const Answer answer = client.read();
    std::string text;
    for (const std::string& e : answer.events()) {
      if (e != "[DONE]") text += event_json(e)["choices"][0]["delta"]["content"].as_string();
    }
    whole += answer.status == 200 && answer.complete && text == fake.reply &&
             answer.events().size() == 21;
  }
  EXPECT_EQ(whole, kStreams);
}

TEST(Api, MetricsPassPromtool) {
  TestServer server;
  Client client = server.client();
  client.post(kTextPath, R"({"prompt":"hi","max_tokens":5})");
  client.post(kTextPath, R"({"prompt":"hi","max_tokens":-5})");
  client.get("/a\"b\\c");
  const Answer metrics = client.get("/metrics");
  EXPECT_TRUE(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
  const auto has = [&](const std::string& line) {
    EXPECT_NE(metrics.body.find("\n" + line), std::string::npos) << line;
  };
  const std::string labels = R"({engine="0",model_name="fake")";
  has("vllm:num_requests_running" + labels + "} 0");
  has("vllm:generation_tokens_total" + labels + "} 5");
  has("vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"fake\"} 1");
  has("vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"0.001\"}");
  has("vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"2560\"} 1");
  has("vllm:inter_token_latency_seconds_count" + labels + "} 4");
  has("vllm:iteration_tokens_total_count" + labels + "} 5");
  has("vllm:cache_config_info{engine=\"0\",model_name=\"fake\",num_gpu_blocks=\"0\"} 1");
  has("vllm:e2e_request_latency_seconds_bucket" + labels + ",le=\"7680\"} 1");
  has(R"(towline_http_requests_total{method="POST",route="/v1/completions",status="400"} 1)");
  has(R"(towline_http_requests_total{method="other",route="unknown",status="404"} 1)");
  if (std::system("command -v promtool >/dev/null") != 0) {
    GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  }
  const std::string path = ::testing::TempDir() + format("towline-metrics-{}", ::getpid());
  std::ofstream(path) << metrics.body;
  // It parses, and the only complaints are about vLLM's own names.
  const std::string run = format("promtool check metrics < {0} > {0}.out 2>&1", path);
  const int code = std::system(run.c_str());
  std::ifstream complaints(path + ".out");
  for (std::string line; std::getline(complaints, line);) {
    EXPECT_TRUE(line.starts_with("vllm:")) << line;
  }
  EXPECT_TRUE(WEXITSTATUS(code) == 0 || WEXITSTATUS(code) == 3) << code;
  std::remove(path.c_str());
  std::remove((path + ".out").c_str());
}

}  // namespace
}  // namespace towline::serve
