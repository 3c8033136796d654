// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/api_request.hpp"

#include <gtest/gtest.h>

#include "serve/routes.hpp"

namespace towline::serve {
namespace {

ApiLimits limits() {
  ApiLimits l;
  l.vocab_size = 1000;
  return l;
}

ApiCheck check(ApiKind kind, const std::string& body, ApiRequest& out) {
  return parse_api_request(kind, parse_json(body, "test").value(), limits(), out);
}

struct Bad {
  ApiKind kind;
  const char* body;
  const char* param;
  const char* code;
};

constexpr ApiKind kChat = ApiKind::kChat, kText = ApiKind::kCompletion;
constexpr const char* kInvalid = "invalid_value";
constexpr const char* kUnsupported = "unsupported_parameter";
constexpr const char* kMissing = "missing_required_parameter";

TEST(ApiRequest, RefusesEachBadBodyByName) {
  const Bad kBad[] = {
      {kText, R"([])", "", kInvalid},
      {kText, R"("prompt")", "", kInvalid},
      {kText, R"({})", "prompt", kMissing},
      {kText, R"({"prompt":null})", "prompt", kMissing},
      {kText, R"({"prompt":[]})", "prompt", kInvalid},
      {kText, R"({"prompt":3})", "prompt", kInvalid},
      {kText, R"({"prompt":{"a":1}})", "prompt", kInvalid},
      {kText, R"({"prompt":["a",1]})", "prompt[1]", kInvalid},
      {kText, R"({"prompt":[1,"a"]})", "prompt", kInvalid},
      {kText, R"({"prompt":[1,-1]})", "prompt", kInvalid},
      {kText, R"({"prompt":[1000]})", "prompt", kInvalid},
      {kText, R"({"prompt":[1.5]})", "prompt", kInvalid},
      {kText, R"({"prompt":[[1],[1000]]})", "prompt[1]", kInvalid},
      {kText, R"({"prompt":"a","temperature":-0.1})", "temperature", kInvalid},
      {kText, R"({"prompt":"a","temperature":2.1})", "temperature", kInvalid},
      {kText, R"({"prompt":"a","temperature":"hot"})", "temperature", kInvalid},
      {kText, R"({"prompt":"a","top_p":1.01})", "top_p", kInvalid},
      {kText, R"({"prompt":"a","top_k":-2})", "top_k", kInvalid},
      {kText, R"({"prompt":"a","top_k":1.5})", "top_k", kInvalid},
      {kText, R"({"prompt":"a","min_p":-1})", "min_p", kInvalid},
      {kText, R"({"prompt":"a","presence_penalty":3})", "presence_penalty", kInvalid},
      {kText, R"({"prompt":"a","frequency_penalty":-3})", "frequency_penalty", kInvalid},
      {kText, R"({"prompt":"a","repetition_penalty":0})", "repetition_penalty", kInvalid},
      {kText, R"({"prompt":"a","max_tokens":-1})", "max_tokens", kInvalid},
      {kText, R"({"prompt":"a","max_tokens":1e300})", "max_tokens", kInvalid},
      {kText, R"({"prompt":"a","max_tokens":true})", "max_tokens", kInvalid},
      {kText, R"({"prompt":"a","n":0})", "n", kInvalid},
      {kText, R"({"prompt":"a","n":129})", "n", kInvalid},
      {kText, R"({"prompt":"a","n":99999999999})", "n", kInvalid},
      {kText, R"({"prompt":"a","seed":1e300})", "seed", kInvalid},
      {kText, R"({"prompt":"a","stop":""})", "stop", kInvalid},
      {kText, R"({"prompt":"a","stop":["a",""]})", "stop[1]", kInvalid},
      {kText, R"({"prompt":"a","stop":7})", "stop", kInvalid},
      {kText, R"({"prompt":"a","stop_token_ids":[1000]})", "stop_token_ids", kInvalid},
      {kText, R"({"prompt":"a","logit_bias":[1]})", "logit_bias", kInvalid},
      {kText, R"({"prompt":"a","logit_bias":{"x":1}})", "logit_bias", kInvalid},
      {kText, R"({"prompt":"a","logit_bias":{"1000":1}})", "logit_bias", kInvalid},
      {kText, R"({"prompt":"a","logit_bias":{"5":101}})", "logit_bias", kInvalid},
      {kText, R"({"prompt":"a","logit_bias":{"5":"1"}})", "logit_bias", kInvalid},
      {kText, R"({"prompt":"a","logprobs":true})", "logprobs", kInvalid},
      {kText, R"({"prompt":"a","logprobs":21})", "logprobs", kInvalid},
      {kText, R"({"prompt":"a","stream":"yes"})", "stream", kInvalid},
      {kText, R"({"prompt":"a","stream_options":{}})", "stream_options", kInvalid},
      {kText, R"({"prompt":"a","stream":true,"stream_options":{"include_usage":1}})",
       "stream_options.include_usage", kInvalid},
      {kText, R"({"prompt":"a","model":7})", "model", kInvalid},
      {kText, R"({"prompt":"a","best_of":2})", "best_of", kUnsupported},
      {kText, R"({"prompt":"a","suffix":"x"})", "suffix", kUnsupported},
      {kText, R"({"prompt":"a","response_format":{"type":"json_object"}})", "response_format",
       kUnsupported},
      {kChat, R"({})", "messages", kMissing},
      {kChat, R"({"messages":[]})", "messages", kInvalid},
      {kChat, R"({"messages":"hi"})", "messages", kInvalid},
      {kChat, R"({"messages":["hi"]})", "messages[0]", kInvalid},
      {kChat, R"({"messages":[{"role":"user"}]})", "messages[0].content", kInvalid},
      {kChat, R"({"messages":[{"role":"king","content":"a"}]})", "messages[0].role", kInvalid},
      {kChat, R"({"messages":[{"content":"a"}]})", "messages[0].role", kInvalid},
      {kChat, R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})",
       "messages[0].content[0].type", kUnsupported},
      {kChat, R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
       "messages[0].content[0]", kInvalid},
      {kChat, R"({"messages":[{"role":"tool","content":"a"}]})", "messages[0]", kUnsupported},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function"}]})",
       "tools", kUnsupported},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],"tool_choice":"required"})",
       "tool_choice", kUnsupported},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],"functions":[{}]})", "functions",
       kUnsupported},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],
                  "response_format":{"type":"json_schema","json_schema":{}}})",
       "response_format", kUnsupported},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],"top_logprobs":2})", "top_logprobs",
       kInvalid},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],"logprobs":true,"top_logprobs":21})",
       "top_logprobs", kInvalid},
      {kChat, R"({"messages":[{"role":"user","content":"a"}],"modalities":["audio"]})",
       "modalities", kUnsupported},
      {ApiKind::kEmbedding, R"({})", "input", kMissing},
      {ApiKind::kEmbedding, R"({"input":"a","encoding_format":"hex"})", "encoding_format",
       kInvalid},
      {ApiKind::kTokenize, R"({})", "prompt", kMissing},
      {ApiKind::kTokenize, R"({"prompt":["a","b"]})", "prompt", kInvalid},
      {ApiKind::kDetokenize, R"({})", "tokens", kMissing},
      {ApiKind::kDetokenize, R"({"tokens":["a"]})", "tokens", kInvalid},
  };
  for (const Bad& bad : kBad) {
    ApiRequest out;
    const ApiCheck error = check(bad.kind, bad.body, out);
    ASSERT_TRUE(error) << bad.body;
    EXPECT_EQ(error->param, bad.param) << bad.body << " " << error->message;
    EXPECT_EQ(error->code, bad.code) << bad.body;
    EXPECT_EQ(error->status, 400) << bad.body;
    EXPECT_FALSE(error->message.empty());
  }
}

TEST(ApiRequest, TakesEveryFormOfPrompt) {
  ApiRequest r;
  ASSERT_FALSE(check(kText, R"({"prompt":"a"})", r));
  EXPECT_EQ(std::get<std::string>(r.prompts[0]), "a");
  ASSERT_FALSE(check(kText, R"({"prompt":["a","b"]})", r));
  EXPECT_EQ(r.prompts.size(), 2u);
  ASSERT_FALSE(check(kText, R"({"prompt":[1,2,3]})", r));
  EXPECT_EQ(std::get<std::vector<int32_t>>(r.prompts[0]), (std::vector<int32_t>{1, 2, 3}));
  ASSERT_FALSE(check(kText, R"({"prompt":[[1],[2,3]]})", r));
  EXPECT_EQ(std::get<std::vector<int32_t>>(r.prompts[1]), (std::vector<int32_t>{2, 3}));
}

TEST(ApiRequest, ReadsEveryParameter) {
  ApiRequest r;
  ASSERT_FALSE(check(kChat, R"({"model":"m","messages":[{"role":"developer","content":"s"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
      "stream":true,"stream_options":{"include_usage":true},"max_tokens":5,
      "max_completion_tokens":7,"n":3,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,
      "presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.1,
      "logit_bias":{"5":-100,"6":2.5},"seed":-7,"stop":["x","y"],"stop_token_ids":[9],
      "ignore_eos":true,"logprobs":true,"top_logprobs":4,"priority":-2,"return_token_ids":true,
      "chat_template_kwargs":{"k":1}})", r));
  EXPECT_EQ(r.model, "m");
  EXPECT_EQ(r.messages[0]["role"].as_string(), "system");
  EXPECT_EQ(r.messages[1]["content"].as_string(), "a\nb");
  EXPECT_TRUE(r.stream && r.include_usage && r.ignore_eos && r.return_token_ids);
  EXPECT_EQ(r.max_tokens, 7);
  EXPECT_EQ(r.n, 3);
  EXPECT_FLOAT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(r.sampling.top_p, 0.9f);
  EXPECT_EQ(r.sampling.top_k, 40);
  EXPECT_FLOAT_EQ(r.sampling.min_p, 0.1f);
  EXPECT_FLOAT_EQ(r.sampling.presence_penalty, 1);
  EXPECT_FLOAT_EQ(r.sampling.frequency_penalty, -1);
  EXPECT_FLOAT_EQ(r.sampling.repetition_penalty, 1.1f);
  ASSERT_EQ(r.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(r.sampling.logit_bias[0], (std::pair<int32_t, float>{5, -100.0f}));
  EXPECT_EQ(r.seed, -7);
  EXPECT_EQ(r.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(r.stop_token_ids, (std::vector<int32_t>{9}));
  EXPECT_EQ(r.logprobs, 4);
  EXPECT_EQ(r.priority, -2);
  EXPECT_EQ(r.template_kwargs["k"].as_int(), 1);
}

TEST(ApiRequest, FieldsThatAskForNothingAreFine) {
  ApiRequest r;
  EXPECT_FALSE(check(kChat, R"({"messages":[{"role":"user","content":"a"}],"tools":[],
      "tool_choice":"auto","functions":null,"response_format":{"type":"text"},
      "modalities":["text"],"store":false,"metadata":{"a":"b"},"user":"u","service_tier":"auto",
      "parallel_tool_calls":true,"reasoning_effort":"low","logprobs":false})", r));
  EXPECT_EQ(r.logprobs, -1);
  EXPECT_FALSE(check(kText, R"({"prompt":"a","best_of":1,"suffix":null,"echo":true,
      "logprobs":0,"max_tokens":0})", r));
  EXPECT_EQ(r.logprobs, 0);
  EXPECT_EQ(r.max_tokens, 0);
}

TEST(ApiRequest, UnknownFieldsAreRefusedOnlyWhenStrict) {
  const Json body = parse_json(R"({"prompt":"a","colour":"red"})", "test").value();
  ApiRequest r;
  ApiLimits l = limits();
  EXPECT_FALSE(parse_api_request(kText, body, l, r));
  l.strict_fields = true;
  const ApiCheck error = parse_api_request(kText, body, l, r);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->param, "colour");
  EXPECT_EQ(error->code, "unknown_parameter");
}

// Every $ref in the document leads somewhere, and every route with a body has its schema.
TEST(ApiRequest, OpenApiDocumentIsClosed) {
  const Json document = openapi_document("1");
  EXPECT_EQ(document["openapi"].as_string(), "3.1.0");
  const Json& schemas = document["components"]["schemas"];
  const std::string text = document.dump();
  const std::string mark = "\"$ref\":\"#/components/schemas/";
  size_t refs = 0;
  for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos; ++refs) {
    at += mark.size();
    const std::string name = text.substr(at, text.find('"', at) - at);
    EXPECT_TRUE(schemas.contains(name)) << name;
  }
  EXPECT_GT(refs, 20u);
  for (const Route& route : routes()) EXPECT_TRUE(document["paths"].contains(route.path));
  EXPECT_TRUE(schemas["CompletionRequest"]["properties"].contains("temperature"));
  EXPECT_EQ(schemas["CompletionRequest"]["properties"]["temperature"]["maximum"].as_double(), 2);
}

}  // namespace
}  // namespace towline::serve
